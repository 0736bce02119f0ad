"""Partial sums: what a batch of accepted events brings to each series, usage minute and booked minute."""

from collections.abc import Callable
from typing import Final

import polars as pl

from config.meters import TAKES_VOIDS, Meter
from config.revision import Revision
from core.digests import unique_values
from core.errors import InvariantViolation
from core.frames import FACT_KEY, PARTIAL_SCHEMA, POSITION, QUANTITY, SCALE, empty
from operators.book_time import with_minutes

ADDITIVE: Final = ("count", "sum")
"""Aggregations whose value is the sum of what each event brings, voids taken off."""

EVENTS_MAX: Final = 10 ** (38 - 19 - SCALE)
"""So many values, or amounts per event, below 10^19 add up inside Decimal(38, 12), whatever they are."""

_COLUMNS: Final = (*POSITION, "tenant", "event_time_us", "sign", "usage_minute", "booked_minute")
_LEVEL_COLUMNS: Final = ("usage_time_us", "identity_hi", "identity_lo")
_WINNER: Final = ("winner_ms", "winner_stream", "winner_seq", "winner_index")

Aggregate = Callable[[pl.DataFrame], pl.DataFrame]


def partial_sums(frame: pl.DataFrame, revision: Revision) -> pl.DataFrame:
    """Return the partial results (PARTIAL_SCHEMA) of accepted events, by fact key; for some meters finer.

    `unique_count` has a row per value, `weighted_sum` one per event. `frame` has EVENT_SCHEMA and the meter columns
    of `revision`. `events` is accepted minus voided, `inputs` accepted plus voided. The rows depend on the set of
    events only, not on their order.

    Guarantee: exact; partial results of any split of the events merge to the same facts.
    Unit of parallelism: one batch. Nothing is kept, so nothing is lost if the process dies here.

    Raises InvariantViolation if the frame is not what decode and dedupe promise, or has too many rows to be added
    up exactly.
    """
    if frame.is_empty():
        return empty(PARTIAL_SCHEMA)
    if len(frame) > EVENTS_MAX:
        message = f"partial sums: a batch of {len(frame)} events may exceed Decimal(38, 12); hand over smaller batches"
        raise InvariantViolation(message)
    ordered = _in_position_order(with_minutes(frame, revision.rules.grace_s))
    parts = [part for meter in revision.meters.values() if (part := _of_meter(ordered, meter)) is not None]
    return pl.concat(parts) if parts else empty(PARTIAL_SCHEMA)


def _in_position_order(frame: pl.DataFrame) -> pl.DataFrame:
    """Sort if need be: the first row of a group then has its lowest position."""
    if frame.get_column("usage_time_us").null_count():
        message = "partial sums: an accepted event has no usage time; dedupe must fill it in for voids"
        raise InvariantViolation(message)
    ordered = pl.lit(value=True)
    for name in reversed(POSITION):
        before = pl.col(name).shift(1)
        ordered = (before < pl.col(name)) | ((before == pl.col(name)) & ordered)
    if frame.select(ordered.fill_null(value=True).all()).item():
        return frame
    return frame.sort(POSITION)


def _of_meter(frame: pl.DataFrame, meter: Meter) -> pl.DataFrame | None:
    """Return the meter's partial results, or None if no event of the frame concerns it."""
    unique = meter.aggregation == "unique_count"
    source = f"u:{meter.id}" if unique else f"v:{meter.id}"
    if source not in frame.columns or f"d:{meter.id}" not in frame.columns:
        message = (
            f"partial sums: column {source} or d:{meter.id} is missing; the events were decoded by another revision"
        )
        raise InvariantViolation(message)
    if frame.get_column(source).null_count() == len(frame):
        return None
    keep = pl.col(source).is_not_null()
    if meter.aggregation not in TAKES_VOIDS:
        # Decode made an exception of such a void: there is nothing to take back from a maximum.
        keep &= pl.col("sign") > 0
    columns = (*_COLUMNS, *_LEVEL_COLUMNS) if meter.aggregation == "weighted_sum" else _COLUMNS
    values = (
        frame.lazy()
        .filter(keep)
        .select(*columns, pl.col(source).alias("value"), pl.col(f"d:{meter.id}").alias("dimensions"))
        .with_columns(pl.lit(meter.id).alias("meter"))
        .collect()
    )
    if values.is_empty():
        return None
    if values.get_column("dimensions").null_count():
        message = f"partial sums: meter {meter.id} has a value without dimensions; decode must give both or neither"
        raise InvariantViolation(message)
    if meter.per_event is not None:
        values = _amounts(values, meter)
    return _AGGREGATES[meter.aggregation](values).select(
        pl.col(name).cast(kind) for name, kind in PARTIAL_SCHEMA.items()
    )


def _amounts(values: pl.DataFrame, meter: Meter) -> pl.DataFrame:
    """Replace each event's value by what it brings; many events have the same value."""
    distinct = values.get_column("value").unique()
    table = pl.DataFrame(
        {"value": distinct, "amount": pl.Series([meter.brings(value) for value in distinct], dtype=QUANTITY)}
    )
    joined = values.join(table, on="value", how="left", validate="m:1", maintain_order="left")
    return joined.with_columns(pl.col("amount").alias("value")).drop("amount")


def _common() -> list[pl.Expr]:
    """Columns every aggregation has; the frame is in position order."""
    return [
        *(pl.col(name).first() for name in POSITION),
        pl.col("sign").cast(pl.Int64).sum().alias("events"),
        pl.len().cast(pl.Int64).alias("inputs"),
    ]


def _fill(frame: pl.DataFrame) -> pl.DataFrame:
    """Add the columns that this aggregation does not use."""
    unused = [name for name in ("value_time_us", *_WINNER, "unique_hi", "unique_lo") if name not in frame.columns]
    return frame.with_columns(pl.lit(0).alias(name) for name in unused)


def _add(values: pl.DataFrame) -> pl.DataFrame:
    if values.get_column("sign").min() != 1:
        values = values.with_columns(
            pl.when(pl.col("sign") < 0).then(-pl.col("value")).otherwise(pl.col("value")).alias("value")
        )
    return _fill(values.group_by(FACT_KEY).agg(pl.col("value").sum(), *_common()))


def _greatest(values: pl.DataFrame) -> pl.DataFrame:
    return _fill(values.group_by(FACT_KEY).agg(pl.col("value").max(), *_common()))


def _least(values: pl.DataFrame) -> pl.DataFrame:
    return _fill(values.group_by(FACT_KEY).agg(pl.col("value").min(), *_common()))


def _latest(values: pl.DataFrame) -> pl.DataFrame:
    first = values.group_by(FACT_KEY).agg(*_common())
    last = (
        values.sort("event_time_us", maintain_order=True)
        .group_by(FACT_KEY)
        .agg(
            pl.col("value").last(),
            pl.col("event_time_us").last().alias("value_time_us"),
            *(pl.col(name).last().alias(winner) for name, winner in zip(POSITION, _WINNER, strict=True)),
        )
    )
    return _fill(first.join(last, on=FACT_KEY, validate="1:1"))


def _distinct(values: pl.DataFrame) -> pl.DataFrame:
    """Count distinct values: one row per value, by its digest."""
    grouped = values.rename({"value": "text"}).group_by(*FACT_KEY, "text").agg(*_common())
    texts = grouped.get_column("text").unique()
    hi, lo = unique_values(texts)
    table = pl.DataFrame({"text": texts, "unique_hi": hi, "unique_lo": lo})
    joined = grouped.join(table, on="text", validate="m:1")
    return _fill(joined.with_columns(pl.lit(None).alias("value")))


def _changes(values: pl.DataFrame) -> pl.DataFrame:
    """Keep each level change: what it brings depends on those before and after it, wherever they came."""
    changes = values.rename({"usage_time_us": "value_time_us", "identity_hi": "unique_hi", "identity_lo": "unique_lo"})
    return _fill(changes.with_columns(pl.col("sign").cast(pl.Int64).alias("events"), pl.lit(1).alias("inputs")))


_AGGREGATES: Final[dict[str, Aggregate]] = {
    "count": _add,
    "sum": _add,
    "max": _greatest,
    "min": _least,
    "latest": _latest,
    "unique_count": _distinct,
    "weighted_sum": _changes,
}
