"""Totals of raw events that expire: made by ClickHouse from the events themselves, and digested as a whole.

Each series (tenant, meter, dimensions) and booked hour keeps its count, value and a digest over its events; each tenant
and hour a count and digest over all its events, metered or not. Values are read as reconciliation reads them, by
ClickHouse's own JSON functions, so that facts can be compared with them when the events are gone.
"""

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from config.meters import TAKES_VOIDS, Meter
from config.revision import Revision
from queries.leaves_clickhouse import digest_of
from queries.meter_sql import MeterSql
from queries.stores import Stores, of_hour
from sinks.ledger.retention import first_of, following

ROWS_PER_SLICE_MAX: Final = 2_000_000
"""Events hashed and sorted at once."""
MERGED: Final = {"count": "sum", "sum": "sum", "max": "max", "min": "min"}
_FOREVER: Final = datetime(2105, 12, 31, tzinfo=UTC)

# Over the events as they were sent, so that their producer can compute it too; an id, and so a text, counts once.
_DIGEST: Final = digest_of("SHA256(data)")
_PLACE: Final = (
    "toYYYYMM(ingest_time) = {month:UInt32} AND booked_minute >= {first:DateTime} AND booked_minute < {last:DateTime}"
)


def keep(stores: Stores, month: int) -> None:
    """Write the totals of all raw events that arrived in that month; repeating it replaces them by the same ones."""
    partition = {"month": month}
    ((rows, first, last),) = stores.client.query(
        stores.resolved(
            "SELECT count(), intDiv(toUnixTimestamp(min(booked_minute)), 3600),"
            " intDiv(toUnixTimestamp(max(booked_minute)), 3600) FROM @usage_events"
            " WHERE toYYYYMM(ingest_time) = {month:UInt32}"
        ),
        partition,
    ).result_rows
    stores.client.command(stores.resolved(f"ALTER TABLE @kept_usage DROP PARTITION {month}"))
    if not rows:
        return
    hours = max(1, -(-(last + 1 - first) // (1 if rows <= ROWS_PER_SLICE_MAX else -(-4 * rows // ROWS_PER_SLICE_MAX))))
    for start in range(first, last + 1, hours):
        span = partition | {"first": of_hour(start), "last": of_hour(start + hours)}
        _insert(
            stores,
            "SELECT {month:UInt32}, tenant, '', CAST(map(), 'Map(String, String)'), toStartOfHour(booked_minute) AS"  # noqa: S608
            f" hour, '', count(), toDecimal128(0, 12), 0, {_DIGEST} FROM @usage_events FINAL WHERE {_PLACE}"
            " GROUP BY tenant, hour",
            span,
        )
        for revision, known_from, known_to in _revisions(stores, month):
            for meter in revision.meters.values():
                _insert(stores, *_of_meter(revision, meter, span | {"known_from": known_from, "known_to": known_to}))


def _insert(stores: Stores, query: str, parameters: dict[str, Any]) -> None:
    columns = "month, tenant, meter, dimensions, booked_hour, config_version, events, value, inexact, digest"
    stores.client.command(stores.resolved(f"INSERT INTO @kept_usage ({columns}) {query}"), parameters)


def _of_meter(revision: Revision, meter: Meter, parameters: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    sql = MeterSql.of(meter)
    value = {
        "sum": "sum(sign * ifNull(value, 0))",
        "max": "ifNull(max(value), 0)",
        "min": "ifNull(min(value), 0)",
    }.get(MERGED.get(meter.aggregation, "") if meter.per_event is None else "", "toDecimal128(0, 12)")
    voids = "" if meter.aggregation in TAKES_VOIDS else " AND sign = 1"
    query = (
        "SELECT {month:UInt32}, tenant, {meter:String}, dimensions, hour, {config_version:String}, sum(sign),"  # noqa: S608
        f" CAST({value}, 'Decimal(38, 12)'), max(rough), {_DIGEST} FROM (SELECT tenant, data,"
        f" toStartOfHour(booked_minute) AS hour, {sql.sign} AS sign, {sql.value} AS value,"
        f" toUInt8({sql.inexact}) AS rough, {sql.dimensions} AS dimensions FROM @usage_events FINAL WHERE {_PLACE}"
        " AND ingest_time >= toDateTime64({known_from:DateTime}, 3, 'UTC')"
        " AND ingest_time < toDateTime64({known_to:DateTime}, 3, 'UTC')"
        f" AND {sql.applies} AND {sql.readable(meter)}) WHERE 1{voids} GROUP BY tenant, dimensions, hour"
    )
    return query, parameters | sql.parameters | {"meter": meter.id, "config_version": revision.version}


def _revisions(stores: Stores, month: int) -> Iterator[tuple[Revision, datetime, datetime]]:
    revisions = stores.history.revisions
    for number, revision in enumerate(revisions):
        known_from = datetime.fromtimestamp(revision.known_from_ms / 1000, UTC)
        known_to = _FOREVER
        if number + 1 < len(revisions):
            known_to = datetime.fromtimestamp(revisions[number + 1].known_from_ms / 1000, UTC)
        if known_from < first_of(following(month)) and known_to > first_of(month):
            yield revision, known_from, known_to


def digest(stores: Stores, month: int) -> tuple[int, int, str]:
    """Return how many rows are kept for a month, how many events they stand for, and the SHA-256 over all of them."""
    text = (
        "SELECT tenant, toString(meter), series, toUnixTimestamp(booked_hour), toString(config_version), events,"
        " toDecimalString(value, 12), inexact, toString(digest) FROM @kept_usage FINAL WHERE month = {month:UInt32}"
        " ORDER BY tenant, meter, booked_hour, series, config_version"
    )
    found, rows, events = hashlib.sha256(), 0, 0
    for block in stores.client.blocks(stores.resolved(text), {"month": month}):
        for row in block:
            found.update(orjson.dumps([str(cell) for cell in row]) + b"\n")
            rows += 1
            events += 0 if row[1] else int(row[5])
    return rows, events, found.hexdigest()
