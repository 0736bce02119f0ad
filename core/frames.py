"""Schemas of the frames that travel through the dataflow: one item is a batch, one batch is a frame.

Units are in the names: `_ms` and `_us` are Unix time in milli- and microseconds, `_minute` and `_hour` are
whole minutes or hours since 1970-01-01T00:00Z. Amounts and quantities are Decimal(38, 12), that is integers
scaled by 10^12. A stream is its index in `settings.redis.streams`, a list that only ever grows at its end.
"""

from typing import Final

import polars as pl

Schema = dict[str, pl.DataType | type[pl.DataType]]

QUANTITY: Final = pl.Decimal(38, 12)
SCALE: Final = 12

POSITION_SCHEMA: Final[Schema] = {
    "entry_ms": pl.Int64,
    "stream": pl.UInt16,
    "entry_seq": pl.Int64,
    "entry_index": pl.Int32,
}
"""Where an event stands: sorting by these four columns in this order is *position order*."""

POSITION: Final[tuple[str, ...]] = tuple(POSITION_SCHEMA)

EVENT_SCHEMA: Final[Schema] = POSITION_SCHEMA | {
    "source": pl.String,
    "id": pl.String,
    "type": pl.String,
    "tenant": pl.String,  # the event's subject; for a void the original's subject
    "event_time_us": pl.Int64,  # the event's own time, or the entry-id time if absent
    "usage_time_us": pl.Int64,  # equals event_time_us; for a void the original's time, null if it had none
    "raw": pl.String,  # the event as it came, for the trace
    "identity_hi": pl.UInt64,  # 128-bit digest of (source, id); for a void the original's
    "identity_lo": pl.UInt64,
    "content": pl.UInt64,  # digest of subject, type, time and data; for a void the original's
    "void_content": pl.UInt64,  # for a void: digest of the void itself with its source and id; else 0
    "sign": pl.Int8,  # 1; -1 for a void
}
"""Decoded events, in position order. Added behind these, per configuration revision:

`v:<meter>` Decimal(38,12): the value this event brings to the meter (1 for `count`), null where the type does
not match, the filter excludes it or the property cannot be read. `u:<meter>` String: the value that
`unique_count` counts, null likewise. `d:<meter>` String: the series' dimensions as canonical JSON text
(`{"model":"gpt-4"}`, keys sorted, compact, missing property = ""; `{}` without group_by), null where the
meter does not apply.
"""

REJECT_SCHEMA: Final[Schema] = POSITION_SCHEMA | {
    "reason": pl.String,
    "detail": pl.String,
    "raw": pl.Binary,  # cut at core.reasons.RAW_BYTES_MAX
    "counted": pl.Boolean,  # False: an exception row of an event that was accepted all the same
}

COUNT_SCHEMA: Final[Schema] = {
    "stream": pl.UInt16,
    "shard": pl.String,
    "ingest_minute": pl.Int64,
    "outcome": pl.String,
    "reason": pl.String,
    "events": pl.Int64,  # absolute, growing
}

PARTIAL_SCHEMA: Final[Schema] = {
    "meter": pl.String,
    "tenant": pl.String,
    "dimensions": pl.String,
    "usage_minute": pl.Int64,
    "booked_minute": pl.Int64,
    "value": QUANTITY,  # merged by the meter's own function; null for unique_count; `weighted_sum`: the level
    "value_time_us": pl.Int64,  # `latest`: event time of the winner; `weighted_sum`: of the change; else 0
    "entry_ms": pl.Int64,  # the lowest position of the group
    "stream": pl.UInt16,
    "entry_seq": pl.Int64,
    "entry_index": pl.Int32,
    "winner_ms": pl.Int64,  # `latest`: position of the event that gives the value; else 0
    "winner_stream": pl.UInt16,
    "winner_seq": pl.Int64,
    "winner_index": pl.Int32,
    "unique_hi": pl.UInt64,  # unique_count: digest of the counted value, one row per value; `weighted_sum`: the
    # event's identity (a void's: its original's), one row per event; else 0
    "unique_lo": pl.UInt64,
    "events": pl.Int64,  # accepted minus voided
    "inputs": pl.Int64,  # accepted plus voided
}
"""What dedupe hands to book: partial results per series, usage minute and booked minute of one batch."""

SERIES: Final[tuple[str, ...]] = ("meter", "tenant", "dimensions")
FACT_KEY: Final[tuple[str, ...]] = (*SERIES, "usage_minute", "booked_minute")

FACT_SCHEMA: Final[Schema] = {
    "tenant": pl.String,
    "meter": pl.String,
    "dimensions": pl.String,
    "usage_minute": pl.Int64,
    "booked_minute": pl.Int64,
    "value": QUANTITY,
    "value_time_us": pl.Int64,
    "events": pl.Int64,
    "version": pl.UInt64,
    "sealed": pl.UInt8,
}

EXCEPTION_SCHEMA: Final[Schema] = {
    "kind": pl.String,  # a bounded set, such as `cardinality_limit`
    "identity": pl.String,  # what it is about; a second row with the same kind and identity replaces the first
    "tenant": pl.String,
    "meter": pl.String,
    "booked_minute": pl.Int64,
    "detail": pl.String,
    "events": pl.Int64,
}

RATED_SCHEMA: Final[Schema] = {
    "customer": pl.String,
    "contract": pl.String,
    "entity": pl.String,
    "plan": pl.String,
    "plan_version": pl.UInt32,  # 1-based index of the version in the plan
    "charge": pl.String,
    "price_row": pl.String,  # "" but for matrix charges
    "meter": pl.String,
    "period_start_us": pl.Int64,
    "usage_hour": pl.Int64,
    "booked_hour": pl.Int64,
    "accounting_period": pl.String,  # "2026-10"
    "original_period": pl.String,  # the usage's own period; differs only after its cut-off
    "line_kind": pl.String,
    "quantity": QUANTITY,
    "events": pl.Int64,
    "amount": QUANTITY,
    "revenue_amount": QUANTITY,
    "amount_before": QUANTITY,
    "amount_after": QUANTITY,
    "revenue_after": QUANTITY,  # to date, like amount_after; before is that less revenue_amount
    "currency": pl.String,
    "config_version": pl.String,
    "status": pl.String,  # provisional, sealed, unrated
    "version": pl.UInt64,
    "tenant": pl.String,  # unrated rows: the subject; else ""
}


USAGE_KINDS: Final = ("usage", "late_usage", "void")
"""Line kinds of rows that stand for facts; the others bring amounts only."""


def empty(schema: Schema) -> pl.DataFrame:
    """Return a frame of that schema without rows."""
    return pl.DataFrame(schema=schema)
