"""The cardinality limit: at most so many series per tenant, meter and booked minute; the rest fold into one.

Level changes have a limit of their own: `book_levels`.

The series with the smallest first positions stay. That is a function of the minute's events alone, and it can be
applied before the minute is complete: once every entry below the watermark was seen, no series can still turn up
with a first position below it. So when as many series as allowed began below the watermark, all others are out for
good, and so is every series that comes later. What waits for that decision is at most what the reader reads between
two markers, which its byte limit per epoch bounds.
"""

from collections.abc import Callable
from typing import Final

import orjson
import polars as pl

from core.frames import EXCEPTION_SCHEMA, POSITION, empty
from operators.book_merge import LEVEL, merge

OVERFLOW: Final = '{"__overflow__":"true"}'
"""Dimensions of the overflow series; no meter can have a dimension of that name."""

KIND: Final = "cardinality_limit"

_GROUP: Final = ["tenant", "meter", "booked_minute"]
_SERIES: Final = [*_GROUP, "dimensions"]

SeriesMax = Callable[[int], int]
"""From a booked minute to the number of series allowed in it."""


def fold(rows: pl.DataFrame, series_max: SeriesMax, watermark_ms: int) -> tuple[pl.DataFrame, list[int]]:
    """Fold merged rows (OPEN_SCHEMA) over the limit; return the merged rows and the minutes that changed.

    `watermark_ms`: every entry with ms below it was seen. Where that does not decide yet, nothing is folded.
    """
    out = [part for part in _crowded(rows, series_max) if not part.is_empty()]
    beyond = [part for group in out if not (part := _beyond(group, series_max, watermark_ms)).is_empty()]
    if not beyond:
        return rows, []
    losers = pl.concat(beyond)
    folded = rows.join(losers, on=_SERIES, how="semi").with_columns(
        pl.lit(OVERFLOW).alias("dimensions"),
        pl.lit(0, dtype=pl.Int64).alias("emitted"),
        pl.lit(None, dtype=pl.UInt64).alias("key_hi"),
        pl.lit(None, dtype=pl.UInt64).alias("key_lo"),
    )
    kept = rows.join(losers, on=_SERIES, how="anti")
    is_overflow = pl.col("dimensions") == OVERFLOW
    overflow = merge(pl.concat([kept.filter(is_overflow), folded]))
    return pl.concat([kept.filter(~is_overflow), overflow]), folded.get_column("booked_minute").unique().to_list()


def _crowded(rows: pl.DataFrame, series_max: SeriesMax) -> list[pl.DataFrame]:
    """Return the rows of each booked minute that has more rows than series are allowed: the others need no look."""
    counts = rows.get_column("booked_minute").value_counts()
    return [
        rows.filter(
            (pl.col("booked_minute") == minute) & (pl.col("dimensions") != OVERFLOW) & (pl.col("kind") != LEVEL)
        )
        for minute, count in counts.iter_rows()
        if count > series_max(minute)
    ]


def _beyond(rows: pl.DataFrame, series_max: SeriesMax, watermark_ms: int) -> pl.DataFrame:
    """Return the series (of one booked minute) that are over the limit for good."""
    allowed = series_max(rows.item(0, "booked_minute"))
    firsts = rows.sort(POSITION).group_by(_SERIES).agg(pl.col(POSITION).first())
    # No two series of one meter begin with the same event, so positions are unique within a group.
    ranked = firsts.sort(POSITION).with_columns(pl.int_range(pl.len()).over(_GROUP).alias("rank"))
    decided = ranked.filter((pl.col("rank") == allowed - 1) & (pl.col("entry_ms") < watermark_ms))
    return ranked.filter(pl.col("rank") >= allowed).join(decided, on=_GROUP, how="semi").select(_SERIES)


def exceptions(sealed: pl.DataFrame, series_max: SeriesMax) -> pl.DataFrame:
    """Return one row (EXCEPTION_SCHEMA) per tenant, meter and booked minute whose sealed facts have an overflow."""
    overflow = sealed.filter(pl.col("dimensions") == OVERFLOW)
    if overflow.is_empty():
        return empty(EXCEPTION_SCHEMA)
    totals = overflow.group_by(_GROUP).agg(pl.col("events").sum()).sort(_GROUP)
    return pl.DataFrame(
        [
            {
                "kind": KIND,
                "identity": orjson.dumps([tenant, meter, minute]).decode(),
                "tenant": tenant,
                "meter": meter,
                "booked_minute": minute,
                "detail": (
                    f"more than {series_max(minute)} series in one minute: {events} events are in the series "
                    f"{OVERFLOW}; group by fewer properties, or raise rules.series_per_tenant_minute_max"
                ),
                "events": events,
            }
            for tenant, meter, minute, events in totals.iter_rows()
        ],
        schema=EXCEPTION_SCHEMA,
    )
