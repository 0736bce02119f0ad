from decimal import Decimal
from typing import Any

import polars as pl
import pytest

from config.revision import Configuration, History, Revision
from core.errors import InvariantViolation
from core.frames import PARTIAL_SCHEMA
from operators.book_merge import ADD, LEVEL, MAX, OPEN_SCHEMA, Aggregations, merge, merge_into
from tests.operators.book_oracle import exact, unscale


def rows(*changes: dict[str, Any], kind: int = ADD) -> pl.DataFrame:
    plain: dict[str, Any] = dict.fromkeys(OPEN_SCHEMA, 0) | {"meter": "m", "tenant": "t", "dimensions": "{}"}
    plain |= {"kind": kind, "value": Decimal(0), "key_hi": None, "key_lo": None, "inputs": 1, "events": 1}
    return pl.DataFrame([plain | change for change in changes], schema=OPEN_SCHEMA, orient="row")


@pytest.mark.parametrize("sign", [1, -1])
def test_sum_up_to_the_types_limit_is_exact_and_beyond_is_refused(sign: int) -> None:
    largest = exact(sign * (10**38 - 2))
    smallest = exact(sign)
    merged = merge(rows({"value": largest}, {"value": smallest}))
    assert unscale(merged.item(0, "value")) == sign * (10**38 - 1)
    with pytest.raises(InvariantViolation, match="the sum of meter m exceeds"):
        merge(rows({"value": largest}, {"value": smallest}, {"value": smallest}))
    # Other groups do not count, however many rows there are.
    apart = rows(*({"value": largest, "usage_minute": number} for number in range(50)))
    assert len(merge(apart)) == 50


def test_polars_wraps_silently_which_is_why_sums_are_checked() -> None:
    frame = rows({"value": exact(10**38 - 1)}, {"value": exact(10**38 - 1)})
    wrapped = frame.group_by("meter").agg(pl.col("value").sum()).item(0, "value")
    assert wrapped < 0, "polars raises now: the check in book_merge can go"


def test_sum_may_pass_the_limit_on_its_way() -> None:
    """The order of addition must not decide whether a sum is refused: only its result does."""
    values = [exact(10**38 - 1), exact(5), exact(-10)]
    for order in ([0, 1, 2], [0, 2, 1], [2, 1, 0]):
        merged = merge(rows(*({"value": values[place]} for place in order)))
        assert unscale(merged.item(0, "value")) == 10**38 - 6


def test_merging_into_a_large_frame_equals_merging_all() -> None:
    many = [{"usage_minute": number % 50, "value": Decimal(number), "entry_seq": number} for number in range(200)]
    few = [{"usage_minute": 7, "value": Decimal(1)}, {"usage_minute": 99, "value": Decimal(2)}]
    merged = merge(rows(*many))
    fast = merge_into(merged, [rows(few[0]), rows(few[1])])
    assert fast.sort("usage_minute").equals(merge(rows(*many, *few)).sort("usage_minute"))
    assert dict(fast.schema) == OPEN_SCHEMA
    assert merged.filter(pl.col("usage_minute") == 8).item(0, "entry_seq") == 8


def revision(aggregation: str, known_from_ms: int) -> Revision:
    meter = {"id": "m", "event_type": "e", "aggregation": aggregation, "value": "$.v"}
    return Revision(Configuration.model_validate({"meters": [meter]}), known_from_ms)


def test_meter_that_changes_its_aggregation_uses_the_one_known_at_the_booked_minute() -> None:
    kinds = Aggregations(History([revision("sum", 0), revision("max", 600_000)])).kinds()
    frame = pl.DataFrame({"meter": ["m", "m", "x"], "booked_minute": [9, 10, 10]})
    assert frame.select(kinds).to_series().to_list() == [ADD, MAX, None]
    assert "kind" not in PARTIAL_SCHEMA


def test_level_changes_of_one_minute_stay_apart() -> None:
    merged = merge(rows({"unique_lo": 1}, {"unique_lo": 2}, {"unique_lo": 2, "events": -1}, kind=LEVEL))
    assert sorted(merged.select("unique_lo", "events").rows()) == [(1, 1), (2, -1), (2, 1)]
