"""Provisional rows kept up to date by what is new equal those added up from all facts of the hour."""

from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.revision import History
from operators.rate import RateLogic
from operators.rate_fold import FOLD_ROWS
from operators.rate_live import LiveRows
from operators.rate_live_sealed import _NEW_PARTS_MAX
from operators.rate_resolve import slices
from tests.operators.rate_support import PER_TOKEN, T0, Driver, Use, customer, facts, revision, version

CHARGES = (
    PER_TOKEN,
    {"id": "calls", "meter": "calls", "model": "per_unit", "unit_amount": "0.1"},
    {"id": "peak", "meter": "peak", "model": "per_unit", "unit_amount": "2"},
    {"id": "level", "meter": "level", "model": "per_unit", "unit_amount": "3"},
)
TENANTS = ("acme", "globex")
IDENTITY = ("customer", "charge", "usage_hour", "booked_hour", "accounting_period", "line_kind")

uses = st.lists(
    st.tuples(
        st.sampled_from(TENANTS),
        st.sampled_from(("tokens", "calls", "peak", "level")),
        st.integers(0, 90),
        st.integers(1, 9),
    ),
    max_size=6,
)


def _history() -> History:
    return History([revision([version(*CHARGES)], [customer(name) for name in TENANTS])])


def _frame(made: list[Any], booked: int, grown: int, sealed: int) -> pl.DataFrame:
    found = [
        Use(booked - age, booked, str(value + grown), meter=meter, tenant=name) for name, meter, age, value in made
    ]
    return facts(found, sealed).with_columns(pl.col("version") + grown)


def _by_identity(rows: pl.DataFrame) -> dict[Any, Any]:
    return {
        tuple(row[name] for name in IDENTITY): (row["quantity"], row["amount"], row["version"])
        for row in rows.iter_rows(named=True)
    }


def _from_scratch(
    logic: RateLogic, opened: list[pl.DataFrame], sealed: list[pl.DataFrame], watermark_ms: int
) -> dict[Any, Any]:
    fresh = LiveRows(0, 1)
    for frame in opened:
        fresh.add(frame)
    for frame in sealed:  # they are in the store
        fresh.seal(0, slices(frame))
    return _by_identity(fresh.rows(watermark_ms, logic._sealed, logic._rater.chains.peek, logic._index))


@settings(max_examples=60, deadline=None)
@given(st.lists(uses, min_size=1, max_size=12), st.integers(0, 11), st.sampled_from([1, 4, FOLD_ROWS]))
def test_rounds_equal_those_from_scratch(minutes: list[list[Any]], restart_at: int, fold_rows: int) -> None:
    driver = Driver(_history(), fold_rows=fold_rows)
    opened: list[pl.DataFrame] = []
    sealed: list[pl.DataFrame] = []
    sent: set[Any] = set()
    before: list[Any] = []
    start = 100  # minutes: late ones fall into the hour before, and into the one before that
    for number, made in enumerate(minutes):
        booked = start + number
        if number == restart_at:
            driver.restart()
            # What was open comes again as it changes or seals; here at once.
            opened, sent = [_frame(before, booked - 1, 1, 0)], set()
            driver.send(opened[0])
        for grown in (0, 1):
            opened.append(_frame(made, booked, grown, 0))
            driver.send(opened[-1])
        if number:
            sealed.append(_frame(before, booked - 1, 1, 1))
            driver.send(sealed[-1])
        seen = len(driver.out)
        driver.send(facts([]), booked + 1)
        shown: dict[Any, Any] = {}
        for item in driver.out[seen:]:
            if hasattr(item, "frame"):
                shown |= _by_identity(item.frame.filter(pl.col("status") == "provisional"))
        # Sent are rows that are new or have another version; a row that only changes since another does is not.
        expected = _from_scratch(driver.logics[0], opened, sealed, (T0 + booked + 1) * 60_000)
        assert shown == {key: row for key, row in expected.items() if (key, row[2]) not in sent}
        sent = {(key, row[2]) for key, row in expected.items()}
        before = made


@pytest.mark.parametrize("parts", [_NEW_PARTS_MAX - 1, _NEW_PARTS_MAX + 5])
def test_many_sealed_parts_between_two_rounds_are_all_in_the_next(parts: int) -> None:
    """As while catching up, when there is no round for a while."""
    driver = Driver(_history())
    driver.send(facts([Use(0, 0, "1")], sealed=0), 1)
    for part in range(parts):
        driver.send(facts([Use(0, 0, "1", dimensions=f'{{"model":"{part}"}}')]))
    driver.send(facts([]), 3)
    (amount,) = [row["quantity"] for row in driver.rows("provisional").iter_rows(named=True)][-1:]
    assert amount == parts + 1


def test_sealed_facts_leave_the_open_ones() -> None:
    driver = Driver(_history())
    driver.send(facts([Use(number, number, "1") for number in range(20)], sealed=0), 1)
    driver.send(facts([Use(number, number, "1") for number in range(15)]), 2)
    driver.send(facts([]), 3)
    live = driver.logics[0]._live
    assert sum(map(len, live._open)) == 5
