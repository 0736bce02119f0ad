"""Re-rating equals what the flow's rater books hour by hour: the same plans give the same amounts."""

from decimal import Decimal
from itertools import pairwise
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.revision import History, Revision
from operators.rate_terms import TermsIndex
from operators.rate_whatif import AMOUNTS_SCHEMA, Collapse, Rerated, Window, amounts, differences, rerate
from tests.operators.rate_support import HOUR0, Driver, Use, contract, customer, facts, revision, version

DAY = 24 * 60
TIERS: list[dict[str, Any]] = [
    {"up_to": "100", "unit_amount": "0.10", "flat_amount": "1"},
    {"up_to": None, "unit_amount": "0.01"},
]
CHARGES: list[dict[str, Any]] = [
    {"id": "graduated", "meter": "tokens", "model": "graduated", "tiers": TIERS, "filter": {"model": "a"}},
    {"id": "volume", "meter": "tokens", "model": "volume", "tiers": TIERS, "filter": {"model": "b"}, "minimum": "7"},
    {"id": "third", "meter": "calls", "model": "per_unit", "unit_amount": "0.1", "unit_divisor": "3"},
    {"id": "peak", "meter": "peak", "model": "per_unit", "unit_amount": "2"},
    {"id": "level", "meter": "level", "model": "package", "package_size": "10", "package_amount": "3"},
    {"id": "fee", "model": "flat", "amount": "31"},
    {
        "id": "matrix",
        "meter": "tokens",
        "model": "matrix",
        "rows": [
            {"when": {"model": "a"}, "unit_amount": "0.5", "minimum": "2"},
            {"model": "graduated", "tiers": TIERS},
        ],
    },
]
COMMITMENTS = [
    {"id": "prepaid", "type": "prepaid", "amount": "20", "period": "P2M", "expires": "2024-04-17T03:00:00Z"},
    {"id": "postpaid", "type": "postpaid", "amount": "60", "period": "P1M", "applies_to": ["graduated", "matrix"]},
]
RULES = {"books_open_at": "2024-01-01T00:00:00Z"}
HALF_HOURS = {"unit": "month", "count": 1, "anchor": "2020-01-01", "timezone": "Asia/Kolkata"}
CUSTOMERS = [
    customer("acme", contracts=[contract(plan_version="latest", to="2024-03-05T12:34:00Z", commitments=COMMITMENTS)]),
    customer(
        "globex",
        subjects=["globex", {"id": "moves", "from": "2024-02-03T10:17:00Z"}],
        contracts=[contract("g", plan_version=1, billing_period=HALF_HOURS)],
    ),
    customer("hooli", contracts=[contract("h", commitments=COMMITMENTS[1:])]),
    customer("initech", subjects=["initech", {"id": "moves", "to": "2024-02-03T10:17:00Z"}]),
]
VERSIONS = [version(*CHARGES), version(*CHARGES[:2], effective="2024-02-10T07:31:00Z")]
REVISION = revision(VERSIONS, CUSTOMERS, rules=RULES)


def whatif(other: Revision, frame: pl.DataFrame, window: Window) -> Rerated:
    index = TermsIndex(other)
    before = pl.col("booked_minute") < window.ends * 60
    return rerate(Collapse(index, window).merge(frame.filter(before)), index, window, HOUR0)


def booked(known: Revision, frame: pl.DataFrame, window: Window) -> pl.DataFrame:
    """Return what the flow's rater books in the window, hour by hour."""
    driver = Driver(History([known]))
    driver.send(frame, (window.ends - HOUR0) * 60 + 1)
    rows = driver.rows("sealed")
    if rows.is_empty():
        return pl.DataFrame(schema=AMOUNTS_SCHEMA)
    inside = pl.col("booked_hour").is_between(window.begins, window.ends, closed="left")
    return amounts(rows.filter(inside))


@st.composite
def uses(draw: st.DrawFn) -> list[Use]:
    """Return usage of 100 days from January on, some of it late."""
    result = []
    for _ in range(draw(st.integers(0, 25))):
        usage = draw(st.integers(0, 100 * DAY))
        late = draw(st.sampled_from([0, 0, 0, 61, DAY, 30 * DAY]))
        meter = draw(st.sampled_from(["tokens", "tokens", "calls", "peak", "level"]))
        sign = draw(st.sampled_from(["", "", "", "-"])) if meter in {"tokens", "calls"} else ""
        quantity = sign + str(draw(st.integers(0, 90)))
        dimensions = draw(st.sampled_from(['{"model":"a"}', '{"model":"b"}'])) if meter == "tokens" else "{}"
        tenant = draw(st.sampled_from(["acme", "globex", "initech", "hooli", "moves", "nobody"]))
        result.append(Use(usage, usage + late, quantity, -1 if sign else 1, meter, tenant, dimensions))
    return result


@given(given_uses=uses(), begins=st.integers(1, 130 * 24), hours=st.integers(1, 60 * 24))
@settings(max_examples=25, deadline=None)
def test_the_same_plans_come_to_what_was_booked(given_uses: list[Use], begins: int, hours: int) -> None:
    frame = facts(given_uses)
    window = Window(HOUR0 + begins, HOUR0 + begins + hours)
    found = differences(booked(REVISION, frame, window), whatif(REVISION, frame, window).amounts)
    assert found.filter(pl.col("difference") != 0).rows() == []
    assert found.filter(pl.col("quantity_booked") != pl.col("quantity_whatif")).rows() == []


@given(given_uses=uses())
@settings(max_examples=10, deadline=None)
def test_other_plans_come_to_what_they_would_have_booked(given_uses: list[Use]) -> None:
    charges = [CHARGES[0] | {"maximum": "3"}, CHARGES[1] | {"discount_percent": "10"}, *CHARGES[2:]]
    other = revision([version(*charges)], CUSTOMERS, rules=RULES)
    frame = facts(given_uses)
    window = Window(HOUR0 + 31 * 24, HOUR0 + 90 * 24)
    assert whatif(other, frame, window).amounts.rows() == booked(other, frame, window).rows()


def test_a_difference_by_hand() -> None:
    known = revision([version({"id": "input", "meter": "tokens", "model": "graduated", "tiers": TIERS})])
    dear = TIERS[0] | {"unit_amount": "0.20"}
    other = revision([version({"id": "input", "meter": "tokens", "model": "graduated", "tiers": [dear, TIERS[1]]})])
    frame = facts([Use(10, 10, "60"), Use(DAY, DAY, "60")])
    window = Window(HOUR0 + 24, HOUR0 + 48)
    # To date 60, then 120. Booked: (100 x 0.10 + 1 + 20 x 0.01) - (60 x 0.10 + 1) = 11.2 - 7 = 4.2.
    # Under the other prices: (100 x 0.20 + 1 + 20 x 0.01) - (60 x 0.20 + 1) = 21.2 - 13 = 8.2.
    found = differences(booked(known, frame, window), whatif(other, frame, window).amounts)
    assert [row[5:] for row in found.rows()] == [tuple(map(Decimal, ("60", "60", "4.2", "8.2", "4")))]


def test_a_charge_that_only_one_side_has_is_zero_on_the_other() -> None:
    known = revision([version({"id": "old", "meter": "tokens", "model": "per_unit", "unit_amount": "1"})])
    other = revision([version({"id": "new", "meter": "calls", "model": "per_unit", "unit_amount": "3"})])
    frame = facts([Use(10, 10, "60"), Use(10, 10, "2", meter="calls")])
    window = Window(HOUR0, HOUR0 + 1)
    result = whatif(other, frame, window)
    found = differences(booked(known, frame, window), result.amounts)
    assert [(row["charge"], int(row["difference"])) for row in found.iter_rows(named=True)] == [
        ("new", 6),
        ("old", -60),
    ]
    # No plan prices tokens any more, so they are not even unpriced.
    assert result.unpriced.is_empty()


def test_usage_without_a_price_is_counted() -> None:
    one = {"id": "input", "meter": "tokens", "model": "per_unit", "unit_amount": "1", "filter": {"model": "a"}}
    frame = facts([Use(10, 10, "60", dimensions='{"model":"b"}'), Use(11, 11, "1", 3, tenant="nobody")])
    result = whatif(revision([version(one)]), frame, Window(HOUR0, HOUR0 + 1))
    assert result.amounts.is_empty()
    assert result.unpriced.rows() == [("", "nobody", "tokens", 3), ("acme", "acme", "tokens", 1)]


@pytest.mark.parametrize(("hours", "steps"), [(1, 2), (96, 2), (97, 3), (193, 4)])
def test_checkpoints_cover_the_window_in_steps(hours: int, steps: int) -> None:
    points = Window(1000, 1000 + hours).checkpoints()
    assert (points[0], points[-1], len(points)) == (999, 999 + hours, steps)
    assert all(0 < later - earlier <= 96 for earlier, later in pairwise(points))
