"""Facts against events: per meter, tenant and booked hour, by ClickHouse's own reading of the raw events.

events accepted = events in facts + filtered + unmetered + exceptions, and the values add up (design section 5). What is
filtered or unmetered is what the expressions leave out, so the sides are compared directly.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from config.meters import TAKES_VOIDS, Meter
from config.revision import Revision
from queries.meter_sql import MeterSql
from queries.reconcile import Check, Span
from queries.stores import Stores

_CAUSE: Final = (
    "rows of usage_facts are missing or were edited"
    "|rows of usage_events are missing, or usage_facts was edited and holds more than the flow wrote"
)
_LIMIT: Final = "toDecimal128('999999999999999999.999999999999', 12)"
_MERGED: Final = {"count": "sum", "sum": "sum", "max": "max", "min": "min"}
_FOREVER: Final = datetime(2105, 12, 31, tzinfo=UTC)


def checks(stores: Stores, span: Span) -> Iterator[Check]:
    """Yield one check per meter of any revision: counts, and values where the booked hour's events decide them."""
    meters: dict[str, Meter] = {}
    for revision in stores.history.revisions:
        meters |= revision.meters
    for meter in meters.values():
        yield _check(stores, span, meter)


def _check(stores: Stores, span: Span, meter: Meter) -> Check:
    check = Check(f"{meter.id}: events are in facts", "usage_events", "usage_facts")
    expected, inexact = _expected(stores, span, meter)
    # What an event comes to is worked out by the flow alone: there the counts are compared.
    merged = _MERGED.get(meter.aggregation) if meter.per_event is None else None
    value = f"{merged}(f.value)" if merged else "toDecimal128(0, 12)"
    rows = stores.rows(
        f"SELECT tenant, toStartOfHour(booked_minute) AS hour, sum(f.events) AS n, {value} AS v"  # noqa: S608
        " FROM @usage_facts_current AS f WHERE meter = {meter:String}"
        " AND booked_minute >= {from:DateTime} AND booked_minute < {to:DateTime} GROUP BY ALL",
        span.parameters | {"meter": meter.id},
    )
    stored = {(row["tenant"], row["hour"]): (int(row["n"]), row["v"]) for row in rows}
    for key in sorted(expected.keys() | stored.keys()):
        events, total = expected.get(key, (0, Decimal(0)))
        events_stored, total_stored = stored.get(key, (0, Decimal(0)))
        where = {"meter": meter.id, "tenant": key[0], "booked_hour": key[1]}
        check.compare(where | {"compared": "events"}, events, events_stored, _CAUSE)
        if merged and key not in inexact:
            check.compare(where | {"compared": "value"}, total, total_stored, _CAUSE)
    if inexact:
        check.note = f"values of {len(inexact)} groups are left out: numbers with exponents or more than 12 places"
    return check


_Groups = dict[tuple[str, datetime], tuple[int, Decimal]]


def _expected(stores: Stores, span: Span, meter: Meter) -> tuple[_Groups, set[tuple[str, datetime]]]:
    """Return events and value by tenant and booked hour, each event read by the revision known at its arrival."""
    total: _Groups = {}
    inexact: set[tuple[str, datetime]] = set()
    for revision, known_from, known_to in _revisions(stores):
        own = revision.meters.get(meter.id)
        if own is None:
            continue
        for row in _read(stores, span, own, known_from, known_to):
            key = (row["tenant"], row["hour"])
            events, value = total.get(key, (0, Decimal(0)))
            total[key] = (events + int(row["n"]), _merge(own.aggregation, key in total, value, row["v"]))
            if row["inexact"] and own.aggregation in _MERGED:
                inexact.add(key)
    return total, inexact


def _merge(aggregation: str, known: bool, one: Decimal, other: Decimal) -> Decimal:
    if not known:
        return other
    merge = {"max": max, "min": min}.get(aggregation)
    return merge(one, other) if merge else one + other


def _revisions(stores: Stores) -> Iterator[tuple[Revision, datetime, datetime]]:
    revisions = stores.history.revisions
    for number, revision in enumerate(revisions):
        known_to = _FOREVER
        if number + 1 < len(revisions):
            known_to = datetime.fromtimestamp(revisions[number + 1].known_from_ms / 1000, UTC)
        yield revision, datetime.fromtimestamp(revision.known_from_ms / 1000, UTC), known_to


def _read(stores: Stores, span: Span, meter: Meter, known_from: datetime, known_to: datetime) -> list[dict[str, Any]]:
    sql = MeterSql.of(meter)
    unique = meter.aggregation == "unique_count"
    readable = f"({sql.text} != '')" if unique else _readable(meter, sql)
    merged = _MERGED.get(meter.aggregation)
    value = {"sum": "sum(sign * ifNull(value, 0))", "max": "ifNull(max(value), 0)", "min": "ifNull(min(value), 0)"}.get(
        merged or "", "toDecimal128(0, 12)"
    )
    # Not everything can be taken back; elsewhere a void is an exception and brings nothing.
    voids = "" if meter.aggregation in TAKES_VOIDS else " AND sign = 1"
    return stores.rows(
        f"SELECT tenant, toStartOfHour(booked_minute) AS hour, sum(sign) AS n, {value} AS v,"  # noqa: S608
        " countIf(inexact) AS inexact FROM (SELECT tenant, booked_minute,"
        f" {sql.sign} AS sign, {sql.value} AS value, {sql.inexact} AS inexact FROM @usage_events_current"
        " WHERE booked_minute >= {from:DateTime} AND booked_minute < {to:DateTime}"
        " AND ingest_time >= toDateTime64({known_from:DateTime}, 3, 'UTC')"
        " AND ingest_time < toDateTime64({known_to:DateTime}, 3, 'UTC')"
        f" AND {sql.applies} AND {readable}) WHERE 1{voids} GROUP BY ALL",
        span.parameters | sql.parameters | {"known_from": known_from, "known_to": known_to},
    )


def _readable(meter: Meter, sql: MeterSql) -> str:
    if meter.value is None:
        return "1"
    lower = f"-{_LIMIT}" if meter.allow_negative else "0"
    return f"(isNotNull({sql.value}) AND {sql.value} >= {lower} AND {sql.value} <= {_LIMIT})"
