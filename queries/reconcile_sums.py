"""Facts against their sums by hour, as far as there are any: pages and dashboards must show what the books say."""

from collections.abc import Iterator
from typing import Final

from queries.reconcile import BREAKS_KEPT_MAX, Check, Span
from queries.stores import Stores
from sinks.clickhouse.usage_hours import STEP_MAX, SUMS, functions, summed_until

_CAUSE: Final = (
    "facts were changed after they were summed, or sums were edited: `meterbridge sums --again-from` makes them again"
)
_HOURS: Final = "booked_hour >= {begins:DateTime} AND booked_hour < {ends:DateTime}"
# Rows are weighed with their place, so that a value under another hour of use or series shows.
_BY_SERIES: Final = (
    "SELECT toString(meter) AS meter, hour, toUInt64(1) AS rows, merged AS v, n, late, 0 AS side,"  # noqa: S608
    " cityHash64(tenant, texts, used, merged, n, late, late_hour) AS mark"
    f" FROM (SELECT * REPLACE (toJSONString(mapSort(texts)) AS texts) FROM ({SUMS}))"
    " UNION ALL"
    " SELECT toString(meter) AS meter, booked_hour AS hour, toUInt64(1) AS rows, value AS v, events AS n,"
    " late_events AS late, 1 AS side, cityHash64(tenant, series, usage_hour, value, events, late_events,"
    f" late_hour_events) AS mark FROM @usage_hours FINAL WHERE {_HOURS}"
)
_ADDS: Final = "NOT has(arrayConcat({max:Array(String)}, {min:Array(String)}, {latest:Array(String)}), meter)"
_OVER_TENANTS: Final = (
    "SELECT toString(meter) AS meter, toStartOfHour(booked_minute) AS hour, toUInt64(0) AS rows,"  # noqa: S608
    f" if({_ADDS}, value, toDecimal128(0, 12)) AS v, events AS n, if(booked_minute > usage_minute, events, 0) AS late,"
    " 0 AS side, toUInt64(0) AS mark FROM @usage_facts FINAL"
    " WHERE booked_minute >= {begins:DateTime} AND booked_minute < {ends:DateTime}"
    " UNION ALL"
    " SELECT toString(meter) AS meter, booked_hour AS hour, toUInt64(0) AS rows, value AS v, events AS n,"
    f" late_events AS late, 1 AS side, toUInt64(0) AS mark FROM @usage_totals FINAL WHERE {_HOURS}"
)
_SETTINGS: Final = {"do_not_merge_across_partitions_select_final": 1, "optimize_move_to_prewhere_if_final": 1}


def checks(stores: Stores, span: Span) -> Iterator[Check]:
    """Yield a check of the sums by series and one of those over all tenants; none where nothing is summed."""
    until = summed_until(stores.client)
    if until is None or until <= span.begins:
        return
    summed = Span(span.begins, min(until, span.ends))
    for name, table, sides in (
        ("facts are in the sums by hour", "usage_hours", _BY_SERIES),
        ("facts are in the sums over all tenants", "usage_totals", _OVER_TENANTS),
    ):
        check = Check(name, "usage_facts", table)
        for part in _parts(stores, summed):
            _compare(stores, check, sides, part)
        yield check


def _parts(stores: Stores, span: Span) -> Iterator[Span]:
    """Yield the span in pieces of a week, from the first fact on."""
    first = stores.rows("SELECT toStartOfHour(min(booked_minute)) AS hour FROM @usage_facts")[0]["hour"]
    begins = max(first, span.begins)
    while begins < span.ends:
        ends = min(begins + STEP_MAX, span.ends)
        yield Span(begins, ends)
        begins = ends


def _compare(stores: Stores, check: Check, sides: str, part: Span) -> None:
    text = (
        "SELECT count() AS compared, countIf(differs) AS broken,"  # noqa: S608
        f" groupArrayIf({BREAKS_KEPT_MAX})((meter, hour, events, events_summed, amount, amount_summed), differs)"
        " AS found"
        " FROM (SELECT meter, hour, sumIf(s.n, side = 0) AS events, sumIf(s.n, side = 1) AS events_summed,"
        " sumIf(s.v, side = 0) AS amount, sumIf(s.v, side = 1) AS amount_summed,"
        " events != events_summed OR amount != amount_summed"
        " OR sumIf(s.late, side = 0) != sumIf(s.late, side = 1) OR sumIf(s.rows, side = 0) != sumIf(s.rows, side = 1)"
        " OR sumIf(s.mark, side = 0) != sumIf(s.mark, side = 1) AS differs"
        f" FROM ({sides}) AS s GROUP BY meter, hour)"
    )
    parameters = {"begins": part.begins, "ends": part.ends, **functions(stores.history.meters)}
    rows = stores.client.query(stores.resolved(text), parameters, _SETTINGS).result_rows
    ((compared, broken, found),) = rows
    check.groups += int(compared)
    check.broken += int(broken)
    for meter, hour, *numbers in sorted(found):
        _keep(check, {"meter": meter, "booked_hour": hour}, numbers)


def _keep(check: Check, where: dict[str, object], numbers: list[object]) -> None:
    """Keep what differs in a group; it was counted already."""
    events, events_summed, amount, amount_summed = numbers
    seen = Check("", "", "")
    seen.compare(where | {"compared": "events"}, events, events_summed, _CAUSE)
    seen.compare(where | {"compared": "value"}, amount, amount_summed, _CAUSE)
    if seen.holds:
        seen.compare(where | {"compared": "rows"}, "facts", "other rows, or late events", _CAUSE)
    check.breaks.extend(seen.breaks[: BREAKS_KEPT_MAX - len(check.breaks)])
