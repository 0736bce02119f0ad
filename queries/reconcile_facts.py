"""Facts against events: per meter, tenant and booked hour, by ClickHouse's own reading of the raw events.

events accepted = events in facts + filtered + unmetered + exceptions, and the values add up (design section 5). What is
filtered or unmetered is what the expressions leave out, so the sides are compared directly. Each event is read and
parsed once for all meters, both sides meet in ClickHouse, and only groups that differ come back.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from config.meters import Meter
from config.revision import Revision
from queries.meter_sql import EventTexts, takes
from queries.reconcile import BREAKS_KEPT_MAX, Check, Span, parts
from queries.stores import EPOCH, Stores
from sinks.ledger import retention

_CAUSE: Final = (
    "rows of usage_facts are missing or were edited"
    "|rows of usage_events are missing, or usage_facts was edited and holds more than the flow wrote"
)
_MERGED: Final = {"count": "sum", "sum": "sum", "max": "max", "min": "min"}
_ZERO: Final = "toDecimal128(0, 12)"
_FOREVER: Final = datetime(2105, 12, 31, tzinfo=UTC)
_ROUNDING: Final = timedelta(minutes=1)
_SPILL_BYTES: Final = 400 << 20


_KEPT_SIDE: Final = (
    "SELECT toString(meter) AS meter, tenant, booked_hour AS hour, sum(k.events) AS side_n,"
    " multiIf(any(transform(toString(meter), {ids:Array(String)}, {functions:Array(String)}, '')) AS own = 'max',"
    " max(k.value), own = 'min', min(k.value), sum(k.value)) AS side_v, max(k.inexact) > 0 AS rough, 0 AS stored"
    " FROM @kept_usage AS k FINAL WHERE booked_hour >= {from:DateTime} AND booked_hour < {to:DateTime}"
    " AND meter IN {ids:Array(String)} GROUP BY meter, tenant, hour"
)
"""Totals of raw events that expired by policy, in the shape of the events' side."""


def checks(stores: Stores, span: Span) -> Iterator[Check]:
    """Yield one check per meter of any revision: counts, and values where the booked hour's events decide them."""
    meters = stores.history.meters
    found = {name: Check(f"{name}: events are in facts", "usage_events", "usage_facts") for name in meters}
    inexact = dict.fromkeys(meters, 0)
    for part in parts(stores, span):
        for row in _compared(stores, part, meters):
            check = found[row["meter"]]
            check.groups += int(row["compared"])
            check.broken += int(row["broken"])
            inexact[row["meter"]] += int(row["left_out"])
            for tenant, hour, *numbers in sorted(row["samples"]):
                _keep(check, {"meter": row["meter"], "tenant": tenant, "booked_hour": hour}, numbers)
    for name, check in found.items():
        if inexact[name]:
            check.note = f"values of {inexact[name]} groups are left out: numbers with exponents or more than 12 places"
        yield check


def _keep(check: Check, where: dict[str, Any], numbers: list[Any]) -> None:
    """Keep what differs in a group; it was counted already."""
    events, events_stored, value, value_stored = numbers
    seen = Check("", "", "")
    seen.compare(where | {"compared": "events"}, int(events), int(events_stored), _CAUSE)
    seen.compare(where | {"compared": "value"}, value, value_stored, _CAUSE)
    check.breaks.extend(seen.breaks[: BREAKS_KEPT_MAX - len(check.breaks)])


def _compared(stores: Stores, span: Span, meters: dict[str, Meter]) -> list[dict[str, Any]]:
    """Return per meter how many comparisons were made, how many differ, and some of these."""
    parameters: dict[str, Any] = dict(span.parameters) | {"kept": BREAKS_KEPT_MAX}
    sides = [_stored_side(meters)]
    for number, (revision, known_from, known_to) in enumerate(_revisions(stores)):
        if revision.meters and known_from < span.ends + _ROUNDING and _arrives(stores, span)[0] < known_to:
            sides.append(_event_side(stores, span, revision, f"r{number}_", parameters))
            parameters |= {f"r{number}_from": known_from, f"r{number}_to": known_to}
    expired = retention.expired_before(stores.engine).get("usage_events")
    parameters["events_from"] = expired or EPOCH
    if expired is not None and _arrives(stores, span)[0] < expired:
        sides.append(_KEPT_SIDE)
    function = "transform(toString(meter), {ids:Array(String)}, {functions:Array(String)}, '')"
    parameters["ids"] = list(meters)
    # What an event comes to is worked out by the flow alone: there the counts are compared.
    parameters["functions"] = [
        _MERGED.get(meter.aggregation, "") if meter.per_event is None else "" for meter in meters.values()
    ]
    text = (
        "SELECT meter, count() + countIf(by_value) AS compared, countIf(n != stored_n) + countIf(v_differs) AS broken,"  # noqa: S608
        " countIf(inexact AND function != '') AS left_out,"
        f" groupArrayIf({BREAKS_KEPT_MAX})((tenant, hour, n, stored_n, if(v_differs, v, {_ZERO}),"
        f" if(v_differs, stored_v, {_ZERO})), n != stored_n OR v_differs) AS samples"
        f" FROM (SELECT meter, tenant, hour, {function} AS function, sumIf(side_n, NOT stored) AS n,"
        " sumIf(side_n, stored) AS stored_n, max(rough) AS inexact,"
        f" {_merged('NOT stored')} AS v, {_merged('stored')} AS stored_v,"
        " function != '' AND NOT inexact AS by_value, by_value AND v != stored_v AS v_differs"
        f" FROM ({' UNION ALL '.join(sides)}) GROUP BY meter, tenant, hour) GROUP BY meter"
    )
    settings = {
        "max_bytes_before_external_group_by": _SPILL_BYTES,
        "do_not_merge_across_partitions_select_final": 1,
    }
    result = stores.client.query(stores.resolved(text), parameters, settings)
    return [dict(zip(result.column_names, row, strict=True)) for row in result.result_rows]


def _merged(side: str) -> str:
    """Return the meter's own function over the rows of a side: a revision may end inside an hour."""
    functions = (f"{name}If(side_v, {side})" for name in ("max", "min", "sum"))
    return "multiIf(function = 'max', {}, function = 'min', {}, {})".format(*functions)


def _stored_side(meters: dict[str, Meter]) -> str:
    """Return facts by meter, tenant and hour, in the shape of the events' side."""
    by_function: dict[str, list[str]] = {"max": [], "min": []}
    for meter in meters.values():
        by_function.setdefault(_MERGED.get(meter.aggregation, ""), []).append(meter.id)

    def listed(function: str) -> str:
        names = ", ".join(f"'{name}'" for name in by_function[function])
        return f"meter IN ({names})" if names else "0"

    return (
        "SELECT toString(meter) AS meter, tenant, toStartOfHour(booked_minute) AS hour, sum(f.events) AS side_n,"  # noqa: S608
        f" multiIf({listed('max')}, max(f.value), {listed('min')}, min(f.value), sum(f.value)) AS side_v,"
        " 0 AS rough, 1 AS stored FROM @usage_facts AS f FINAL"
        " WHERE booked_minute >= {from:DateTime} AND booked_minute < {to:DateTime}"
        " AND meter IN {ids:Array(String)} GROUP BY meter, tenant, hour"
    )


def _event_side(stores: Stores, span: Span, revision: Revision, prefix: str, parameters: dict[str, Any]) -> str:
    """Return events by meter, tenant and hour as one revision reads them; values go into `parameters`."""
    meters = list(revision.meters.values())
    texts = EventTexts.of(meters)
    first, last = _arrives(stores, span)
    parameters |= texts.parameters | {"types": texts.types, "arrives_from": first, "arrives_to": last}
    columns, tuples = [], []
    for number, meter in enumerate(meters):
        sql = texts.meter(meter, f"{prefix}{number}_")
        parameters |= sql.parameters
        counts = f"{sql.applies} AND {sql.readable(meter)} AND {takes(meter, 'sign')}"
        value = {
            "sum": f"sumIf(sign * ifNull({sql.value}, {_ZERO}), c{number})",
            "max": f"maxIf(ifNull({sql.value}, {_ZERO}), c{number})",
            "min": f"minIf(ifNull({sql.value}, {_ZERO}), c{number})",
        }.get(_MERGED.get(meter.aggregation, ""), _ZERO)
        columns.append(f"countIf(({counts}) AS c{number}) AS seen{number}, sumIf(sign, c{number}) AS n{number}")
        columns.append(f"{value} AS v{number}, countIf(c{number} AND {sql.inexact}) > 0 AS x{number}")
        tuples.append(f"('{meter.id}', seen{number}, toInt64(n{number}), v{number}, x{number})")
    return (
        "SELECT m.1 AS meter, tenant, hour, m.3 AS side_n, m.4 AS side_v, m.5 AS rough, 0 AS stored FROM"  # noqa: S608
        f" (SELECT tenant, hour, {', '.join(columns)} FROM"
        f" (SELECT tenant, toStartOfHour(booked_minute) AS hour, {texts.columns} FROM @usage_events FINAL"
        " PREWHERE type IN {types:Array(String)}"
        " WHERE booked_minute >= {from:DateTime} AND booked_minute < {to:DateTime}"
        " AND ingest_time >= toDateTime64({arrives_from:DateTime}, 3, 'UTC')"
        " AND ingest_time < toDateTime64({arrives_to:DateTime}, 3, 'UTC')"
        # What a legal hold kept of expired months is in the kept totals.
        " AND ingest_time >= toDateTime64({events_from:DateTime}, 3, 'UTC')"
        f" AND ingest_time >= toDateTime64({{{prefix}from:DateTime}}, 3, 'UTC')"
        f" AND ingest_time < toDateTime64({{{prefix}to:DateTime}}, 3, 'UTC')) GROUP BY tenant, hour)"
        f" ARRAY JOIN arrayFilter(each -> each.2 > 0, [{', '.join(tuples)}]) AS m"
    )


def _arrives(stores: Stores, span: Span) -> tuple[datetime, datetime]:
    """Return when events booked in the span can have arrived: this is a range of the table's key, booking is not."""
    rules = [revision.rules for revision in stores.history.revisions]
    before = timedelta(seconds=max(rule.future_s for rule in rules)) + _ROUNDING
    after = timedelta(seconds=max(rule.grace_s for rule in rules)) + _ROUNDING
    return max(span.begins - before, datetime(1970, 1, 1, tzinfo=UTC)), span.ends + after


def _revisions(stores: Stores) -> Iterator[tuple[Revision, datetime, datetime]]:
    revisions = stores.history.revisions
    for number, revision in enumerate(revisions):
        known_to = _FOREVER
        if number + 1 < len(revisions):
            known_to = datetime.fromtimestamp(revisions[number + 1].known_from_ms / 1000, UTC)
        yield revision, datetime.fromtimestamp(revision.known_from_ms / 1000, UTC), known_to
