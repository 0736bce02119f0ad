"""The rate step against a naive oracle: whatever the order, splitting, lateness, voids and restarts."""

from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from config.revision import History
from tests.operators.rate_oracle import Oracle, OracleFact
from tests.operators.rate_support import HOUR0, T0, Driver, Use, facts, revision, version

MONTH = 31 * 1440
CHARGES: list[dict[str, Any]] = [
    {
        "id": "graduated",
        "meter": "tokens",
        "model": "graduated",
        "tiers": [
            {"up_to": "10", "unit_amount": "0.333333333333"},
            {"up_to": "50", "unit_amount": "0.1", "flat_amount": "2"},
            {"up_to": None, "unit_amount": "0.01"},
        ],
        "minimum": "9",
    },
    {
        "id": "volume",
        "meter": "tokens",
        "filter": {"model": ["a", "b"]},
        "model": "volume",
        "tiers": [{"up_to": "12", "unit_amount": "1"}, {"up_to": None, "unit_amount": "0.2"}],
    },
    {"id": "each", "meter": "calls", "model": "per_unit", "unit_amount": "0.0004", "minimum": "0.01"},
    {"id": "base", "model": "flat", "amount": "17.5", "accounting": {"recognition": "as_billable"}},
]


@st.composite
def uses(draw: st.DrawFn) -> list[Use]:
    found = []
    for _ in range(draw(st.integers(1, 14))):
        usage = draw(st.integers(0, 5).map(lambda n: n * 37) | st.integers(MONTH - 90, MONTH + 60))
        late = draw(st.sampled_from([0, 0, 0, 2, 65, 300, MONTH, MONTH + 6 * 1440]))
        quantity = draw(st.decimals("0", "30", places=3) | st.sampled_from([Decimal(9), Decimal(13)]))
        void = draw(st.integers(0, 3)) == 0 and late > 0
        meter = draw(st.sampled_from(["tokens", "tokens", "calls"]))
        if meter == "calls":
            quantity = Decimal(draw(st.integers(1, 40)))
        model = draw(st.sampled_from(["a", "b", "c"]))
        text = f'{{"model":"{model}"}}' if meter == "tokens" else "{}"
        sign = -1 if void else 1
        found.append(Use(usage, usage + late, str(quantity * sign), sign, meter, "acme", text))
    return found


def oracle_facts(frame: pl.DataFrame) -> list[OracleFact]:
    found = []
    for row in frame.iter_rows(named=True):
        text = row["dimensions"]
        dimensions = () if text == "{}" else (("model", text[10]),)
        found.append(
            OracleFact(row["meter"], dimensions, row["usage_minute"], row["booked_minute"], row["value"], row["events"])
        )
    return found


def by_booked_hour(frame: pl.DataFrame) -> Iterator[tuple[int, pl.DataFrame]]:
    for (hour,), part in sorted(frame.group_by(pl.col("booked_minute") // 60), key=lambda item: str(item[0])):
        yield int(str(hour)) - HOUR0, part


def seal_all(driver: Driver, frame: pl.DataFrame, end_minute: int, restart_after: int | None = None) -> None:
    """Send each booked hour with the marker that seals it, and the rest of the time in one step."""
    for number, (hour, part) in enumerate(by_booked_hour(frame)):
        driver.send(part, hour * 60 + 61)
        if restart_after == number:
            driver.restart()
    driver.send(frame.clear(), end_minute)


def plain(rows: pl.DataFrame) -> list[dict[str, Any]]:
    sealed = rows.filter(pl.col("status") == "sealed")
    return [
        {
            "charge": row["charge"],
            "period": row["period_start_us"] // 60_000_000,
            "usage_hour": row["usage_hour"],
            "booked_hour": row["booked_hour"],
            "accounting_period": row["accounting_period"],
            "line_kind": row["line_kind"],
            "quantity": Fraction(row["quantity"]),
            "events": row["events"],
            "amount": Fraction(row["amount"]),
            "before": Fraction(row["amount_before"]),
            "after": Fraction(row["amount_after"]),
        }
        for row in sealed.iter_rows(named=True)
    ]


END = 2 * MONTH + 10 * 1440


def history() -> History:
    return History([revision([version(*CHARGES)], rules={"books_open_at": "2024-01-01T00:00:00Z"})])


@given(uses())
@settings(max_examples=30, deadline=None)
def test_rows_equal_the_naive_oracle(some: list[Use]) -> None:
    frame = facts(some)
    driver = Driver(history())
    seal_all(driver, frame, END)
    oracle = Oracle(CHARGES, T0)
    hours = range(HOUR0, HOUR0 + (END - 61) // 60 + 1)
    expected = oracle.run(oracle_facts(frame), hours[0], hours[-1])

    def order(row: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(row[name] for name in ("booked_hour", "charge", "period", "usage_hour", "line_kind"))

    assert sorted(plain(driver.rows()), key=order) == sorted(expected, key=order)


@given(uses(), st.integers(0, 10), st.randoms(use_true_random=False))
@settings(max_examples=12, deadline=None)
def test_restart_batches_order_and_shards_change_nothing(some: list[Use], stop: int, random: Any) -> None:
    frame = facts(some)
    straight = Driver(history())
    seal_all(straight, frame, END)
    restarted = Driver(history())
    seal_all(restarted, frame, END, restart_after=stop)
    assert restarted.rows().equals(straight.rows())

    # One fact at a time, in any order, with provisional rounds in between, and one marker at the very end.
    single = Driver(history(), shards=3)
    places = list(range(len(frame)))
    random.shuffle(places)
    for place in places:
        single.send(frame[place : place + 1].with_columns(pl.lit(0, pl.UInt8).alias("sealed")))
        single.send(frame[place : place + 1], None if random.random() < 0.5 else -1)
    single.restart()
    single.send(frame.clear(), END)
    assert single.rows().sort(pl.all()).equals(straight.rows().sort(pl.all()))


@given(uses())
@settings(max_examples=15, deadline=None)
def test_everything_booked_adds_up_to_the_charge_of_the_periods_total(some: list[Use]) -> None:
    from operators.rating.charges import amount, parse_charge  # noqa: PLC0415

    frame = facts(some)
    driver = Driver(history())
    seal_all(driver, frame, END + 3 * MONTH)
    rows = driver.rows("sealed")
    sums = rows.group_by("charge", "period_start_us").agg(
        pl.col("amount").sum(), pl.col("quantity").sum(), pl.col("events").sum()
    )
    charges = {raw["id"]: parse_charge(raw) for raw in CHARGES}
    for name, _, booked, quantity, events in sums.iter_rows():
        total = amount(charges[name], quantity, events)
        assert abs(total - booked) <= Decimal("5e-13")
    calls = frame.filter(pl.col("meter") == "calls")
    assert rows.filter(pl.col("meter") == "calls").get_column("quantity").sum() == calls.get_column("value").sum()
    assert len(driver.rows()) == len(driver.rows().unique(subset=IDENTITY))


IDENTITY = [
    "customer",
    "contract",
    "plan",
    "plan_version",
    "charge",
    "price_row",
    "period_start_us",
    "usage_hour",
    "booked_hour",
    "accounting_period",
    "line_kind",
    "tenant",
    "meter",
]
