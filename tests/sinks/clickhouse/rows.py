"""Small frames of every kind, for the tests of this directory."""

from decimal import Decimal
from typing import Any

import polars as pl

from core.frames import COUNT_SCHEMA, EVENT_SCHEMA, EXCEPTION_SCHEMA, FACT_SCHEMA, RATED_SCHEMA, REJECT_SCHEMA

STREAMS = ("usage:0", "usage:1")
MINUTE = 29_453_760
"""2026-01-01T00:00Z."""
MS = MINUTE * 60_000


def events(count: int, first: int = 0, **columns: Any) -> pl.DataFrame:
    numbers = range(first, first + count)
    plain: dict[str, Any] = {
        "entry_ms": [MS + number for number in numbers],
        "stream": [number % 2 for number in numbers],
        "entry_seq": list(numbers),
        "entry_index": [0] * count,
        "source": ["api"] * count,
        "id": [f"id-{number}" for number in numbers],
        "type": ["call"] * count,
        "tenant": [f"t{number % 3}" for number in numbers],
        "event_time_us": [(MS + number) * 1000 + 7 for number in numbers],
        "usage_time_us": [(MS + number) * 1000 + 7 for number in numbers],
        "raw": [f'{{"n":{number}}}' for number in numbers],
        "identity_hi": [0] * count,
        "identity_lo": [0] * count,
        "content": [0] * count,
        "void_content": [0] * count,
        "sign": [1] * count,
    }
    frame = pl.DataFrame(plain | columns, schema=EVENT_SCHEMA)
    return frame.with_columns(booked_minute=pl.lit(MINUTE, pl.Int64))


def rejects(*rows: tuple[int, str, str, bytes, bool]) -> pl.DataFrame:
    return pl.DataFrame(
        [(MS + seq, 0, seq, 0, reason, detail, raw, counted) for seq, reason, detail, raw, counted in rows],
        schema=REJECT_SCHEMA,
        orient="row",
    )


def counts(*rows: tuple[str, str, str, int]) -> pl.DataFrame:
    return pl.DataFrame(
        [(0, shard, MINUTE, outcome, reason, events) for shard, outcome, reason, events in rows],
        schema=COUNT_SCHEMA,
        orient="row",
    )


def fact(value: str, version: int, sealed: int, **columns: Any) -> pl.DataFrame:
    plain = {
        "tenant": "acme",
        "meter": "tokens",
        "dimensions": '{"model":"x"}',
        "usage_minute": MINUTE,
        "booked_minute": MINUTE,
        "value": Decimal(value),
        "value_time_us": 0,
        "events": 1,
        "version": version,
        "sealed": sealed,
    }
    return pl.DataFrame([plain | columns], schema=FACT_SCHEMA)


def rated(amount: str, version: int, status: str, **columns: Any) -> pl.DataFrame:
    text = dict.fromkeys((name for name, kind in RATED_SCHEMA.items() if kind == pl.String), "x")
    numbers: dict[str, Any] = {
        "plan_version": 1,
        "period_start_us": MS * 1000,
        "usage_hour": MINUTE // 60,
        "booked_hour": MINUTE // 60 + 1,
        "quantity": Decimal("1.5"),
        "events": 3,
        "amount": Decimal(amount),
        "revenue_amount": Decimal(amount),
        "amount_before": Decimal(0),
        "amount_after": Decimal(amount),
        "revenue_after": Decimal(amount),
        "status": status,
        "version": version,
    }
    return pl.DataFrame([text | numbers | columns], schema=RATED_SCHEMA)


def exception(detail: str, events: int) -> pl.DataFrame:
    row = ("cardinality_limit", "acme/tokens", "acme", "tokens", MINUTE, detail, events)
    return pl.DataFrame([row], schema=EXCEPTION_SCHEMA, orient="row")
