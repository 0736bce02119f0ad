from decimal import Decimal
from fractions import Fraction
from typing import Any

import orjson
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.meters import PerEvent
from config.revision import History, Revision
from core.digests import unique_value
from core.errors import InvariantViolation
from core.frames import PARTIAL_SCHEMA
from operators import sums
from operators.sums import partial_sums
from tests.operators.book_oracle import (
    ADDITIVE,
    BORDER_MINUTE,
    METERS,
    Event,
    exact,
    history,
    minutes_of,
    to_frame,
    unscale,
)

HISTORY = history()
REVISION = HISTORY.latest
START_MS = BORDER_MINUTE * 60_000

event_strategy = st.builds(
    Event,
    position=st.tuples(
        st.integers(START_MS, START_MS + 200_000), st.integers(0, 2), st.integers(0, 2), st.integers(0, 2)
    ),
    tenant=st.sampled_from(["a", "b"]),
    time_us=st.integers(-8, 12).map(lambda step: BORDER_MINUTE * 60_000_000 + step * 20_000_000),
    value=st.integers(-(10**30) + 1, 10**30 - 1).map(exact),
    model=st.sampled_from(["x", "y", ""]),
    user=st.sampled_from(["u1", "u2", "ü"]),
    sign=st.sampled_from([1, 1, -1]),
    excluded=st.sets(st.sampled_from([meter["id"] for meter in METERS]), max_size=2).map(tuple),
)


def naive(events: list[Event], revisions: History) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """Return value, value time, first position, winner, events, inputs; values as integers scaled by 10^12."""
    groups: dict[tuple[Any, ...], list[Event]] = {}
    for event in events:
        for meter in METERS:
            if meter["id"] in event.excluded or (event.sign < 0 and meter["aggregation"] not in ADDITIVE):
                continue
            digest = unique_value(event.user) if meter["aggregation"] == "unique_count" else (0, 0)
            minutes = minutes_of(event, revisions)
            key = (meter["id"], event.tenant, event.dimensions(meter), *minutes, *digest)
            groups.setdefault(key, []).append(event)
    out = {}
    for key, group in groups.items():
        aggregation = next(meter["aggregation"] for meter in METERS if meter["id"] == key[0])
        scaled = [unscale(event.value) for event in group]
        last = max(group, key=lambda event: (event.time_us, event.position))
        value = {
            "count": sum(event.sign for event in group) * 10**12,
            "sum": sum(event.sign * one for event, one in zip(group, scaled, strict=True)),
            "max": max(scaled),
            "min": min(scaled),
            "latest": unscale(last.value),
            "unique_count": None,
        }[aggregation]
        latest = aggregation == "latest"
        out[key] = (
            value,
            last.time_us if latest else 0,
            min(event.position for event in group),
            last.position if latest else (0, 0, 0, 0),
            sum(event.sign for event in group),
            len(group),
        )
    return out


def as_dict(partials: pl.DataFrame) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    out = {}
    for row in partials.iter_rows(named=True):
        key = tuple(
            row[name]
            for name in ("meter", "tenant", "dimensions", "usage_minute", "booked_minute", "unique_hi", "unique_lo")
        )
        assert key not in out
        out[key] = (
            None if row["value"] is None else unscale(row["value"]),
            row["value_time_us"],
            tuple(row[name] for name in ("entry_ms", "stream", "entry_seq", "entry_index")),
            tuple(row[name] for name in ("winner_ms", "winner_stream", "winner_seq", "winner_index")),
            row["events"],
            row["inputs"],
        )
    return out


@settings(max_examples=60, deadline=None)
@given(st.lists(event_strategy, max_size=25, unique_by=lambda event: event.position), st.booleans())
def test_partial_sums_equal_the_naive_ones(events: list[Event], in_order: bool) -> None:
    if in_order:
        events = sorted(events, key=lambda event: event.position)
    partials = partial_sums(to_frame(events), REVISION)
    assert dict(partials.schema) == PARTIAL_SCHEMA
    assert as_dict(partials) == naive(events, HISTORY)


def one(**changes: Any) -> Event:
    plain: dict[str, Any] = {
        "position": (START_MS, 0, 0, 0),
        "tenant": "a",
        "time_us": START_MS * 1000,
        "value": Decimal(1),
        "model": "x",
        "user": "u",
    }
    return Event(**(plain | changes))


@pytest.mark.parametrize(("entry_ms", "booked"), [(119_999, 0), (120_000, 2), (179_999, 2), (180_000, 3)])
def test_grace_decides_the_booked_minute_to_the_millisecond(entry_ms: int, booked: int) -> None:
    event = one(position=(START_MS + entry_ms, 0, 0, 0), time_us=(START_MS + 59_999) * 1000 + 999)
    partials = partial_sums(to_frame([event]), REVISION)
    assert partials.get_column("usage_minute").unique().to_list() == [BORDER_MINUTE]
    assert partials.get_column("booked_minute").unique().to_list() == [BORDER_MINUTE + booked]


def test_void_of_the_only_event_leaves_zero_and_two_inputs() -> None:
    partials = partial_sums(to_frame([one(), one(position=(START_MS + 1, 0, 0, 0), sign=-1)]), REVISION)
    row = partials.row(by_predicate=pl.col("meter") == "tokens", named=True)
    assert (row["value"], row["events"], row["inputs"]) == (0, 0, 2)
    maximum = partials.row(by_predicate=pl.col("meter") == "peak", named=True)
    assert (maximum["events"], maximum["inputs"]) == (1, 1)


def test_events_that_no_meter_wants_give_no_rows() -> None:
    event = one(excluded=tuple(meter["id"] for meter in METERS))
    partials = partial_sums(to_frame([event]), REVISION)
    assert partials.is_empty()
    assert dict(partials.schema) == PARTIAL_SCHEMA
    assert partial_sums(to_frame([]), REVISION).is_empty()


def test_sum_of_the_largest_values_is_exact() -> None:
    largest = exact(10**30 - 1)
    events = [one(position=(START_MS, 0, number, 0), value=largest) for number in range(500)]
    row = partial_sums(to_frame(events), REVISION).row(by_predicate=pl.col("meter") == "tokens", named=True)
    assert unscale(row["value"]) == 500 * (10**30 - 1)


def test_frames_of_another_revision_are_refused() -> None:
    frame = to_frame([one()])
    for broken in (frame.drop("v:tokens"), frame.drop("d:tokens")):
        with pytest.raises(InvariantViolation, match="decoded by another revision"):
            partial_sums(broken, REVISION)
    nameless = frame.with_columns(pl.lit(None, dtype=pl.String).alias("d:tokens"))
    with pytest.raises(InvariantViolation, match="without dimensions"):
        partial_sums(nameless, REVISION)
    timeless = frame.with_columns(pl.lit(None, dtype=pl.Int64).alias("usage_time_us"))
    with pytest.raises(InvariantViolation, match="no usage time"):
        partial_sums(timeless, REVISION)


def test_batches_whose_sum_could_wrap_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sums.EVENTS_MAX * (10**31 - 1) < 10**38
    monkeypatch.setattr(sums, "EVENTS_MAX", 1)
    with pytest.raises(InvariantViolation, match="smaller batches"):
        partial_sums(to_frame([one(), one(position=(START_MS, 0, 1, 0))]), REVISION)


@given(st.lists(event_strategy, max_size=12))
@settings(max_examples=40, deadline=None)
def test_meter_with_terms_per_event_adds_up_amounts_and_takes_them_back(events: list[Event]) -> None:
    """Given voids and equal values; then each event counts what it comes to, before values are added."""
    terms = {"rate_percent": "2.9", "fixed_amount": "0.30", "minimum": "0.5", "maximum": "100"}
    meters = [
        meter.model_copy(update={"per_event": PerEvent.model_validate(terms)}) if meter.id == "tokens" else meter
        for meter in REVISION.configuration.meters
    ]
    revision = Revision(REVISION.configuration.model_copy(update={"meters": tuple(meters)}))
    expected: dict[tuple[Any, ...], int] = {}
    for event in events:
        if "tokens" in event.excluded:
            continue
        exact_amount = Fraction(unscale(event.value), 10**12) * Fraction(29, 1000) + Fraction(3, 10)
        scaled = round(max(Fraction(1, 2), min(Fraction(100), exact_amount)) * 10**12)
        key = (event.tenant, *minutes_of(event, HISTORY), event.model)
        expected[key] = expected.get(key, 0) + event.sign * scaled
    rows = partial_sums(to_frame(events), revision).filter(pl.col("meter") == "tokens") if events else pl.DataFrame()
    got = {
        (row["tenant"], row["usage_minute"], row["booked_minute"], orjson.loads(row["dimensions"])["model"]): unscale(
            row["value"]
        )
        for row in rows.iter_rows(named=True)
    }
    assert got == expected
