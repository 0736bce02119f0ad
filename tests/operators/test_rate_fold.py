"""Sealed facts folded to a slice per series come to the same rows as facts kept one by one."""

from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.revision import History
from operators.rate_fold import fold, together
from operators.rate_resolve import SLICE_SCHEMA, slices
from operators.rate_terms import index_of
from tests.operators.rate_support import HOUR0, PER_TOKEN, T0, Driver, Use, contract, customer, facts, revision, version

CHARGES: list[dict[str, Any]] = [
    {
        "id": "volume",
        "meter": "tokens",
        "filter": {"model": ["a", "b"]},
        "model": "volume",
        "tiers": [{"up_to": "12", "unit_amount": "1"}, {"up_to": None, "unit_amount": "0.2"}],
    },
    {"id": "each", "meter": "calls", "model": "per_unit", "unit_amount": "0.0004", "minimum": "0.01"},
    {"id": "peak", "meter": "peak", "model": "per_unit", "unit_amount": "2"},
    {"id": "level", "meter": "level", "model": "per_unit", "unit_amount": "3"},
]
DEARER: list[dict[str, Any]] = [charge | {"filter": {}} if charge["id"] == "volume" else charge for charge in CHARGES]
UNFOLDED = 1 << 60
END = 6 * 60


def _history() -> History:
    """Contracts, plan versions and a subject's owner change within an hour; a revision prices what had no price."""
    versions = [version(*CHARGES), version(*CHARGES, effective="2024-01-01T01:17:00Z")]
    customers = [
        customer("acme"),
        customer("globex", contracts=[contract(**{"from": "2024-01-01T00:23:00Z", "to": "2024-01-01T02:41:00Z"})]),
    ]
    after = [version(*DEARER), version(*DEARER, effective="2024-01-01T01:17:00Z")]
    second = revision(after, customers, known_from_ms=(HOUR0 + 3) * 3_600_000)
    return History([revision(versions, customers), second])


@st.composite
def uses(draw: st.DrawFn) -> list[Use]:
    found = []
    for _ in range(draw(st.integers(1, 40))):
        usage = draw(st.integers(0, 200))
        late = draw(st.sampled_from([0, 0, 0, 1, 7, 65]))
        meter = draw(st.sampled_from(["tokens", "calls", "peak", "level", "dashboard"]))
        void = late > 0 and meter in ("tokens", "calls") and draw(st.integers(0, 3)) == 0
        model = draw(st.sampled_from(["a", "b", "c"]))
        text = f'{{"model":"{model}"}}' if meter == "tokens" else "{}"
        sign = -1 if void else 1
        tenant = draw(st.sampled_from(["acme", "globex", "nobody"]))
        found.append(Use(usage, usage + late, str(draw(st.integers(1, 9)) * sign), sign, meter, tenant, text))
    return found


def _rated(some: list[Use], fold_rows: int, restart_at: int, shards: int = 1) -> Driver:
    driver = Driver(_history(), shards, fold_rows=fold_rows)
    frame = facts(some)
    for number, minute in enumerate(sorted(frame.get_column("booked_minute").unique().to_list())):
        driver.send(frame.filter(pl.col("booked_minute") == minute))
        if number == restart_at:
            driver.restart()
    driver.send(frame.clear(), END)
    return driver


@given(uses(), st.sampled_from([1, 3, 10]), st.integers(0, 20), st.sampled_from([1, 3]))
@settings(max_examples=60, deadline=None)
def test_folding_changes_no_row_and_no_exception(some: list[Use], fold_rows: int, restart_at: int, shards: int) -> None:
    folded = _rated(some, fold_rows, restart_at, shards)
    plain = _rated(some, UNFOLDED, -1, shards)
    assert folded.rows().equals(plain.rows())
    assert folded.exceptions() == plain.exceptions()


def test_memory_of_an_hour_grows_with_its_series_and_not_with_its_facts() -> None:
    driver = Driver(_history(), fold_rows=100)
    for minute in range(50):
        driver.send(facts([Use(minute, minute, "1", meter="calls", dimensions=f'{{"n":"{n}"}}') for n in range(60)]))
    held = sum(map(len, driver.logics[0]._sealed.rows(HOUR0)))
    assert held <= 60 + 100
    driver.send(facts([]), END)
    assert driver.rows().get_column("events").sum() == 50 * 60


def test_usage_without_a_price_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[int] = []

    def counting(frame: pl.DataFrame, *rest: Any) -> tuple[pl.DataFrame, pl.DataFrame]:
        looked_at.append(len(frame))
        return fold(frame, *rest)

    monkeypatch.setattr("operators.rate_fold.fold", counting)
    driver = Driver(_history(), fold_rows=10)
    for minute in range(30):
        driver.send(facts([Use(minute, minute, "1", tenant=f"nobody-{n}") for n in range(5)]))
        if minute == 14:
            driver.restart()
    assert sum(looked_at) == 30 * 5
    driver.send(facts([]), END)
    assert driver.rows("unrated").get_column("events").sum() == 30 * 5


def test_stretches_of_other_terms_are_kept_apart() -> None:
    index = index_of(_history().at(HOUR0 * 3_600_000))
    frame = slices(facts([Use(minute, 60, "1", meter="calls", tenant="globex") for minute in range(60)]))
    folded, rest = fold(frame, index, 1)
    assert folded.select("usage_minute", "events").rows() == [(T0 + 23, 37)]
    assert rest.get_column("usage_minute").to_list() == [T0 + minute for minute in range(23)]


@pytest.mark.parametrize(("meter", "value"), [("tokens", 15), ("peak", 9), ("level", 4)])
def test_values_come_together_as_the_meter_says(meter: str, value: int) -> None:
    index = index_of(_history().at(HOUR0 * 3_600_000))
    frames = [
        slices(facts([Use(3, booked, amount, meter=meter)])).with_columns(pl.lit(booked).alias("value_time_us"))
        for booked, amount in ((3, "2"), (7, "9"), (9, "4"))
    ]
    folded = together([frame.cast(pl.Schema(SLICE_SCHEMA)) for frame in frames], index)
    assert folded.select("value", "events", "version").rows() == [(value, 3, 3)]


def test_a_state_of_the_version_before_folding_goes_on() -> None:
    driver = Driver(History([revision([version(PER_TOKEN)])]))
    driver.send(facts([Use(0, 0, "4")]))
    state = driver.logics[0].snapshot()
    assert state.pop("folded") == state.pop("unpriced") == {}
    driver.logics = [driver._logic(0, state | {"version": 2})]
    driver.send(facts([Use(1, 1, "5")]), 200)
    assert driver.rows().get_column("quantity").to_list() == [9]
