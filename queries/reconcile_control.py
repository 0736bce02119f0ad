"""Completeness towards the source: what sources say that they sent in an hour, against what was accepted.

A source sends control totals (`operators.decode_control`); of several for one source, hour and meter the newest one
counts.
Compared are accepted events of that CloudEvents `source` whose own time lies in the hour, read with the meter's type
and filter, whenever they came; voids take nothing off, since the event they take back was sent all the same.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import groupby
from typing import Any, Final

from config.meters import Meter
from core.quantities import decimal_of_scaled
from core.reasons import CONTROL_TYPE
from operators.decode_control import ControlTotal, control_totals
from queries.meter_sql import EventTexts
from queries.reconcile import Break, Check, Span
from queries.stores import EPOCH, Stores, of_hour

NAME: Final = "what sources say they sent is accepted"
_HOUR: Final = timedelta(hours=1)
_SUMMED: Final = ("sum",)

Key = tuple[str, str, int]
"""Source, meter, hour since 1970."""


@dataclass(frozen=True, slots=True)
class _Got:
    events: int = 0
    value: Decimal = Decimal(0)


def checks(stores: Stores, span: Span) -> Iterator[Check]:
    """Yield one check, if a source sent totals for the span; adjacent hours that differ alike are one break."""
    said = _said(stores, span)
    if not said:
        return
    got = _got(stores, span, sorted({key[0] for key in said}))
    refused = _refused(stores, span, sorted({key[0] for key in said}))
    meters = stores.history.meters
    check = Check(NAME, "control totals", "accepted events")
    for (source, name), keys in groupby(sorted(said), key=lambda key: key[:2]):
        meter = meters.get(name)
        rows = [(key[2], said[key], got.get(key, _Got())) for key in keys]
        for run in _runs(rows, check, meter):
            check.add(_break(source, name, run, meter, refused))
    yield check


def _said(stores: Stores, span: Span) -> dict[Key, ControlTotal]:
    rows = stores.rows(
        # A row written again by a replay is the same row, so nothing has to be merged: the index on types is enough.
        "SELECT DISTINCT source, JSONExtractRaw(data, 'data') AS totals, ingest_time, stream, entry_seq, entry_index"
        " FROM @usage_events PREWHERE type = {type:String} WHERE ingest_time >= toDateTime64({from:DateTime}, 3, 'UTC')"
        " AND ingest_time < toDateTime64({until:DateTime}, 3, 'UTC')"
        " ORDER BY ingest_time, stream, entry_seq, entry_index",
        span.parameters | {"type": CONTROL_TYPE, "until": span.ends + _late(stores)},
    )
    first, end = (span.begins - EPOCH) // _HOUR, (span.ends - EPOCH) // _HOUR
    return {
        (row["source"], total.meter, total.hour): total
        for row in rows
        for total in control_totals(row["totals"])
        if first <= total.hour < end
    }


def _late(stores: Stores) -> timedelta:
    """Return how long after its time an event may come and still be accepted."""
    return timedelta(days=max(revision.rules.too_old_days for revision in stores.history.revisions), hours=1)


def _got(stores: Stores, span: Span, sources: list[str]) -> dict[Key, _Got]:
    """Return accepted events by source, meter and hour, each read by the revision known at its arrival."""
    found: dict[Key, _Got] = {}
    revisions = stores.history.revisions
    future = timedelta(seconds=max(revision.rules.future_s for revision in revisions))
    for number, revision in enumerate(revisions):
        known_to = revisions[number + 1].known_from_ms if number + 1 < len(revisions) else (1 << 32) * 1000 - 1000
        if not revision.meters:
            continue
        for row in _read(
            stores,
            list(revision.meters.values()),
            span.parameters
            | {
                "sources": sources,
                "arrives_from": max(
                    span.begins - future, EPOCH, datetime.fromtimestamp(revision.known_from_ms / 1000, UTC)
                ),
                "arrives_to": min(span.ends + _late(stores), datetime.fromtimestamp(known_to / 1000, UTC)),
            },
        ):
            key = (row["source"], row["meter"], int(row["hour"]))
            before = found.get(key, _Got())
            found[key] = _Got(before.events + int(row["n"]), before.value + row["v"])
    return found


def _read(stores: Stores, meters: list[Meter], parameters: dict[str, Any]) -> list[dict[str, Any]]:
    texts = EventTexts.of(meters)
    parameters |= texts.parameters | {"types": sorted({meter.event_type for meter in meters})}
    columns, tuples = [], []
    for number, meter in enumerate(meters):
        sql = texts.meter(meter, f"m{number}_")
        parameters |= sql.parameters
        columns.append(f"countIf(({sql.applies} AND {sql.readable(meter)}) AS c{number}) AS n{number}")
        value = f"sumIf(ifNull({sql.value}, toDecimal128(0, 12)), c{number})"
        columns.append(f"{value if meter.aggregation in _SUMMED else 'toDecimal128(0, 12)'} AS v{number}")
        tuples.append(f"('{meter.id}', n{number}, v{number})")
    return stores.rows(
        "SELECT source, hour, m.1 AS meter, m.2 AS n, m.3 AS v FROM"  # noqa: S608
        f" (SELECT source, hour, {', '.join(columns)} FROM"
        f" (SELECT source, intDiv(toUnixTimestamp(event_time), 3600) AS hour, {texts.columns} FROM @usage_events FINAL"
        " PREWHERE type IN {types:Array(String)} AND source IN {sources:Array(String)}"
        " WHERE ingest_time >= toDateTime64({arrives_from:DateTime}, 3, 'UTC')"
        " AND ingest_time < toDateTime64({arrives_to:DateTime}, 3, 'UTC')"
        " AND event_time >= toDateTime64({from:DateTime}, 6, 'UTC')"
        " AND event_time < toDateTime64({to:DateTime}, 6, 'UTC'))"
        f" GROUP BY source, hour) ARRAY JOIN [{', '.join(tuples)}] AS m",
        parameters,
    )


def _refused(stores: Stores, span: Span, sources: list[str]) -> dict[tuple[str, int], int]:
    """Return refused and partly unreadable events by source and hour of arrival: what is missing may be among them."""
    rows = stores.rows(
        "SELECT JSONExtractString(raw, 'source') AS source, intDiv(toUnixTimestamp(ingest_time), 3600) AS hour,"
        " count() AS n FROM @usage_rejects_current WHERE source IN {sources:Array(String)}"
        " AND ingest_time >= toDateTime64({from:DateTime}, 3, 'UTC')"
        " AND ingest_time < toDateTime64({to:DateTime}, 3, 'UTC')"
        " GROUP BY source, hour",
        span.parameters | {"sources": sources, "to": span.ends + _HOUR},
    )
    return {(row["source"], int(row["hour"])): int(row["n"]) for row in rows}


_Row = tuple[int, ControlTotal, _Got]


def _differs(row: _Row, meter: Meter | None) -> int:
    """Return 0 if said and got are the same, 1 if something is missing, -1 if there is too much."""
    _, said, got = row
    if said.events != got.events:
        return 1 if said.events > got.events else -1
    if said.scaled_sum is None or meter is None or meter.aggregation not in _SUMMED:
        return 0
    expected = decimal_of_scaled(said.scaled_sum)
    return 0 if expected == got.value else 1 if expected > got.value else -1


def _runs(rows: list[_Row], check: Check, meter: Meter | None) -> Iterator[list[_Row]]:
    """Yield adjacent hours that differ to the same side, and count what was compared."""
    run: list[_Row] = []
    for row in rows:
        check.groups += 1
        side = _differs(row, meter)
        if run and (not side or row[0] != run[-1][0] + 1 or side != _differs(run[-1], meter)):
            yield run
            run = []
        if side:
            run.append(row)
    if run:
        yield run


def _break(source: str, name: str, run: list[_Row], meter: Meter | None, refused: dict[tuple[str, int], int]) -> Break:
    where: dict[str, Any] = {
        "source": source,
        "meter": name,
        "from": of_hour(run[0][0]),
        "to": of_hour(run[-1][0] + 1),
    }
    expected, got = sum(said.events for _, said, _ in run), sum(one.events for _, _, one in run)
    left: Decimal | int = expected
    right: Decimal | int = got
    compared = "events"
    if expected == got:
        compared = "sum"
        left = sum((decimal_of_scaled(said.scaled_sum or 0) for _, said, _ in run), Decimal(0))
        right = sum((one.value for _, _, one in run), Decimal(0))
    count = sum(refused.get((source, hour), 0) for hour in range(run[0][0], run[-1][0] + 2))
    return Break(where | {"compared": compared}, left, right, left - right, _cause(left > right, meter, count))


def _cause(missing: bool, meter: Meter | None, refused: int) -> str:
    if meter is None:
        return "no meter of that name is configured: correct the name in the control totals"
    if not missing:
        return "more than the source says: sent again under other ids, or somebody else uses this source"
    if refused:
        return (
            f"{refused} events of this source were refused or unreadable for a meter: see `meterbridge exceptions list`"
        )
    return "never arrived: lost on the way to the stream, not sent yet, or filtered by the producer; send them again"
