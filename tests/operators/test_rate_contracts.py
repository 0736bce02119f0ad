"""Whole contracts against a naive oracle: what was booked, in whatever order, is what the totals come to."""

import calendar
from collections import defaultdict
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

import orjson
import polars as pl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config.revision import History
from operators.document import Document, documents
from tests.operators import contract_oracle as oracle
from tests.operators.rate_support import T0, Driver, Use, contract, customer, facts, revision, version
from tests.operators.test_rate_properties import seal_all

MONTHS = [oracle.minutes(f"2024-{month:02d}-01T00:00:00Z") for month in range(1, 6)]
END = MONTHS[-1] - T0 + 3 * 1440
JANUARY = 31 * 1440

TIERS = [{"up_to": "10", "unit_amount": "0.335"}, {"up_to": None, "unit_amount": "0.1", "flat_amount": "2"}]
DROPS = [{"up_to": "12", "unit_amount": "1.005"}, {"up_to": None, "unit_amount": "0.2"}]
RATABLE = {"accounting": {"recognition": "ratable"}}
FIRST: list[dict[str, Any]] = [
    {"id": "graduated", "meter": "tokens", "model": "graduated", "tiers": TIERS, "minimum": "9"},
    {"id": "volume", "meter": "tokens", "model": "volume", "tiers": DROPS, "filter": {"model": ["a", "b"]}},
    {
        "id": "matrix",
        "meter": "tokens",
        "model": "matrix",
        "filter": {"model": ["b", "c", "d"]},
        "discount_percent": "12.5",
        "rows": [
            {"when": {"model": "b"}, "unit_amount": "0.005"},
            {"when": {"model": "c"}, "model": "graduated", "tiers": TIERS, "minimum": "3"},
        ],
    },
    {"id": "base", "model": "flat", "amount": "17.5"},
    {"id": "fee", "model": "flat", "amount": "10", "accounting": {"recognition": "as_billable"}},
    {"id": "seats", "meter": "level", "model": "per_unit", "unit_amount": "4.999"} | RATABLE,
    {"id": "peaks", "meter": "peak", "model": "volume", "tiers": DROPS, "zero_usage": "first_tier_flat"},
]
SECOND: list[dict[str, Any]] = [
    FIRST[0] | {"tiers": DROPS[1:], "minimum": "1"},
    FIRST[3] | {"amount": "100"},
    FIRST[5] | {"unit_amount": "7.777"},
    {"id": "volume", "meter": "tokens", "model": "per_unit", "unit_amount": "0.015", "filter": {"model": ["a", "b"]}},
]
CALLS: list[dict[str, Any]] = [{"id": "each", "meter": "calls", "model": "per_unit", "unit_amount": "0.0045"}]
OVERRIDE = {"charge": "graduated", "set": {"discount_percent": "10", "minimum": "4"}}


@st.composite
def contracts(draw: st.DrawFn) -> list[dict[str, Any]]:
    first = contract("c1", plan_version=draw(st.sampled_from(["latest", None])))
    first["from"] = draw(st.sampled_from(["2024-01-01T00:00:00Z", "2024-01-12T05:30:00Z", "2024-02-29T23:59:30Z"]))
    ends = draw(st.sampled_from([None, "2024-02-20T10:00:00Z", "2024-03-31T00:00:00Z"]))
    if ends is not None and ends > first["from"]:
        first["to"] = ends
    if draw(st.booleans()):
        first["overrides"] = [OVERRIDE]
    if draw(st.booleans()):
        return [first, contract("c2", plan="q")]
    return [first]


@st.composite
def uses(draw: st.DrawFn) -> list[Use]:
    found = []
    for _ in range(draw(st.integers(0, 16))):
        usage = draw(st.integers(0, 90 * 24).map(lambda hour: hour * 60 + 7) | st.integers(JANUARY - 90, JANUARY + 60))
        late = draw(st.sampled_from([0, 0, 0, 65, 300, 30 * 1440]))
        meter = draw(st.sampled_from(["tokens", "tokens", "tokens", "calls", "level", "peak"]))
        quantity = draw(st.decimals("0", "20", places=3))
        sign = -1 if meter == "tokens" and late and draw(st.booleans()) else 1
        model = draw(st.sampled_from(["a", "b", "c", "d"]))
        text = orjson.dumps({"model": model}).decode() if meter == "tokens" else "{}"
        found.append(Use(usage, usage + late, str(quantity * sign), sign, meter, "acme", text))
    return found


def history(held: list[dict[str, Any]], currency: str) -> History:
    versions = [
        version(*FIRST, currency=currency),
        version(*SECOND, currency=currency, effective="2024-02-10T07:31:00Z"),
    ]
    return History(
        [
            revision(
                versions,
                [customer(contracts=held)],
                rules={"books_open_at": "2024-01-01T00:00:00Z", "too_old_days": 60},
                plans=[{"id": "q", "versions": [version(*CALLS, currency=currency)]}],
                entity={"timezone": "America/New_York"},
            )
        ]
    )


def settled(held: list[dict[str, Any]], currency: str, frame: pl.DataFrame) -> oracle.World:
    world = oracle.World(
        versions={
            "p": [
                {"effective_from": "2023-01-01T00:00:00Z", "charges": FIRST},
                {"effective_from": "2024-02-10T07:31:00Z", "charges": SECOND},
            ],
            "q": [{"effective_from": "2023-01-01T00:00:00Z", "charges": CALLS}],
        },
        contracts=held,
        months=MONTHS,
        currency=currency,
    )
    found = [
        oracle.Fact(
            row["meter"],
            orjson.loads(row["dimensions"]),
            row["usage_minute"],
            row["booked_minute"],
            row["value"],
        )
        for row in frame.iter_rows(named=True)
    ]
    return oracle.settle(world, found)


def booked(rows: pl.DataFrame, column: str) -> dict[oracle.Chain, Fraction]:
    sums: dict[oracle.Chain, Fraction] = defaultdict(Fraction)
    for row in rows.filter(pl.col("status") == "sealed").iter_rows(named=True):
        start = row["period_start_us"] // 60_000_000
        if start < MONTHS[-1] and not row["charge"].startswith("commitment:"):
            chain = (row["contract"], row["plan_version"], row["charge"], row["price_row"], start)
            sums[chain] += Fraction(row[column])
    return sums


def charged(found: list[Document]) -> dict[oracle.Chain, Decimal]:
    """Add up the documents' entries per charge and period, each on the side of what is charged."""
    sums: dict[oracle.Chain, Decimal] = defaultdict(Decimal)
    for document in found:
        for line in document.lines:
            if line.side == ("credit" if line.swapped else "debit") and line.kind != "recognition":
                start = oracle.minutes(line.period_start)
                chain = (line.contract, line.plan_version, line.charge, line.price_row, start)
                sums[chain] += -line.amount if line.swapped else line.amount
    return sums


def by_role(found: list[Document]) -> dict[str, Decimal]:
    """Return the balance of each account role that closed months leave, debits positive."""
    sums: dict[str, Decimal] = defaultdict(Decimal)
    for document in found:
        for line in document.lines:
            if oracle.minutes(line.period_start) < MONTHS[-1]:
                sums[line.account_role] += line.amount if line.side == "debit" else -line.amount
    return sums


def filled(amounts: dict[Any, Any]) -> dict[Any, Any]:
    return {key: value for key, value in amounts.items() if value}


SLOW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@given(uses(), contracts(), st.sampled_from(["USD", "JPY", "KWD"]), st.integers(0, 12))
@SLOW
def test_everything_booked_is_what_the_periods_totals_come_to(
    some: list[Use], held: list[dict[str, Any]], currency: str, stop: int
) -> None:
    frame = facts(some)
    known = history(held, currency)
    driver = Driver(known)
    seal_all(driver, frame, END, restart_after=stop)
    world = settled(held, currency, frame)
    rows = driver.rows()

    assert filled(booked(rows, "amount")) == filled(world.totals)
    # Every period is over, so whatever is ratable has become revenue as a whole.
    assert filled(booked(rows, "revenue_amount")) == filled(world.totals)
    found = documents(rows, known)
    assert all(one.debit_total == one.credit_total for one in found)
    rounded = {chain: oracle.cents(total, currency) for chain, total in world.totals.items()}
    assert filled(charged(found)) == filled(rounded)
    balances = by_role(found)
    assert not balances["contract_asset"]
    assert not balances["contract_liability"]
    assert balances["unbilled_receivable"] == sum(rounded.values()) == sum(one.total for one in found)


PROMISES = st.sampled_from(["0", "5.50", "40", "200", "100000"])


@st.composite
def commitments(draw: st.DrawFn) -> list[dict[str, Any]]:
    several: Any = st.sampled_from([["graduated"], ["volume", "matrix", "graduated"], []])
    found: list[dict[str, Any]] = []
    if draw(st.booleans()):
        found.append({"id": "least", "type": "postpaid", "amount": draw(PROMISES), "period": "P1M"})
        found[-1] |= {"applies_to": draw(several), "recognition": draw(st.sampled_from(["ratable", "as_billable"]))}
    if draw(st.booleans()):
        found.append({"id": "paid", "type": "prepaid", "amount": draw(PROMISES), "period": "P1M"})
        found[-1] |= {"applies_to": draw(several)}
    if draw(st.booleans()):
        found.append({"id": "early", "type": "prepaid", "amount": draw(PROMISES), "period": "P1M", "priority": -1})
        found[-1] |= {"applies_to": found[-2]["applies_to"] if len(found) > 1 else draw(several)}
    return found


def promised(one: dict[str, Any], currency: str) -> Decimal:
    return oracle.cents(Fraction(one["amount"]), currency)


def expected_of_month(
    world: oracle.World, held: list[dict[str, Any]], start: int, currency: str
) -> dict[str, tuple[Decimal, Decimal]]:
    """Return per commitment (what is drawn, what its end adds) in one month."""
    found = {}
    covered: dict[str, Decimal] = defaultdict(Decimal)
    for one in sorted(held, key=lambda item: (item.get("priority", 0), item["id"])):
        eligible = sum(
            (
                oracle.cents(total, currency)
                for chain, total in world.totals.items()
                if chain[4] == start and (not one["applies_to"] or chain[2] in one["applies_to"])
            ),
            Decimal(0),
        )
        if one["type"] == "postpaid":
            found[one["id"]] = (Decimal(0), max(promised(one, currency) - eligible, Decimal(0)))
            continue
        rest = eligible - covered[str(one["applies_to"])]
        drawn = min(promised(one, currency), max(rest, Decimal(0)))
        covered[str(one["applies_to"])] += drawn
        found[one["id"]] = (drawn, promised(one, currency) - drawn)
    return found


@given(uses(), commitments(), st.sampled_from(["USD", "JPY", "KWD"]), st.integers(0, 12))
@SLOW
def test_commitments_are_drawn_down_and_reached_whatever_the_order(
    some: list[Use], promises: list[dict[str, Any]], currency: str, stop: int
) -> None:
    held = [contract("c1", plan_version="latest", commitments=promises)]
    frame = facts(some)
    known = history(held, currency)
    driver = Driver(known)
    seal_all(driver, frame, END, restart_after=stop)
    world = settled(held, currency, frame)
    rows = driver.rows()
    found = documents(rows, known)

    assert filled(booked(rows, "amount")) == filled(world.totals)
    assert all(one.debit_total == one.credit_total for one in found)
    rounded = {chain: oracle.cents(total, currency) for chain, total in world.totals.items()}
    own = {chain: amount for chain, amount in charged(found).items() if not chain[2].startswith("commitment:")}
    assert filled(own) == filled(rounded)
    ends: dict[tuple[str, int], Decimal] = {}
    drawn = Decimal(0)
    for start in MONTHS[:-1]:
        for name, (used, extra) in expected_of_month(world, promises, start, currency).items():
            ends[f"commitment:{name}", start] = extra
            drawn += used
    booked_ends = {(chain[2], chain[4]): amount for chain, amount in charged(found).items() if chain[1] == 0}
    assert filled(booked_ends) == filled(ends)
    drawdowns = rows.filter((pl.col("status") == "sealed") & (pl.col("line_kind") == "drawdown"))
    assert sum(drawdowns["amount"].to_list(), Decimal(0)) == drawn
    balances = by_role(found)
    breakage = sum((extra for (name, _), extra in ends.items() if name != "commitment:least"), Decimal(0))
    assert balances["contract_liability"] == drawn + breakage
    assert not balances["contract_asset"]
    short = sum((extra for (name, _), extra in ends.items() if name == "commitment:least"), Decimal(0))
    assert balances["unbilled_receivable"] == sum(rounded.values()) - drawn + short


def test_the_oracle_knows_its_months() -> None:
    assert [calendar.monthrange(2024, month)[1] for month in range(1, 5)] == [31, 29, 31, 30]
    assert MONTHS[0] == T0
    assert datetime.fromisoformat("2024-01-01T00:00:00Z").year == 2024
