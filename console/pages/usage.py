"""Usage: a meter by window and dimension, beside the week before, as it is known now or was known at a booked time."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from starlette.responses import Response

from config.meters import Meter
from console.pages import asked, exporting
from console.pages.base import Page, Values, Visit
from console.problems import Problem
from console.scope import tenants_of
from queries.stores import Row, Stores
from queries.usage import TENANT, UsageQuestion, usage
from queries.windows import Window

_WEEK: Final = timedelta(days=7)
_SPANS: Final[dict[str, timedelta]] = {
    "hour": timedelta(hours=2),
    "day": timedelta(days=1),
    "week": timedelta(days=7),
    "month": timedelta(days=31),
    "quarter": timedelta(days=92),
}
_LONGEST: Final = timedelta(days=800)
_SERIES_MAX: Final = 6
_ROWS_MAX: Final = 20_000
_SHOWN_MAX: Final = 400
_TENANTS_MAX: Final = 1_000
_SLIDER_HOURS: Final = 24 * 35
_COLUMNS: Final = ("window_start", "window_end", "group", "value", "events", "late_events", "open", "week_before")


async def show(visit: Visit) -> Values | Response:
    """Return usage of one meter; the first meter and the last day with usage, if nothing is asked for."""
    kind = exporting.wanted(visit.request)
    return await visit.services.pool.ask(lambda stores: _answer(visit, stores, kind))


def _answer(visit: Visit, stores: Stores, kind: str) -> Values | Response:
    request, now = visit.request, visit.services.clock.now()
    meters = stores.history.latest.meters
    if not meters:
        return {"meters": []}
    name = asked.text(request, "meter", 256) or next(iter(meters))
    meter = meters.get(name)
    if meter is None:
        raise Problem("not_found", f"no meter {name!r}: known are {', '.join(meters)}")
    tenant = asked.text(request, "tenant")
    tenants = tenants_of(visit.token, [tenant] if tenant else [])
    zone = asked.zone(request)
    span_name = asked.choice(request, "span", tuple(_SPANS), "day")
    newest = _newest(stores) or now
    begins, ends = asked.span(request, _next_hour(min(newest, now)), _SPANS[span_name], _LONGEST)
    window = asked.window(request) or _fitting(ends - begins)
    by = asked.choice(request, "by", (TENANT, *meter.group_by))
    as_of = asked.moment(request, "as_of")
    question = UsageQuestion(
        meter=meter.id,
        window=window,
        begins=begins,
        ends=ends,
        zone=str(zone),
        tenants=tenants,
        group_by=(by,) if by else (),
        as_of=as_of,
        limit=_ROWS_MAX,
    )
    rows, before = _all(stores, question), _all(stores, _week_before(question, zone))
    named = _rows(rows, before, by, lambda when: _moved(when, _WEEK, window, zone))
    link = _link(visit, question, tenant)
    if kind:
        return exporting.file_of(f"usage-{meter.id}", kind, _COLUMNS, named)
    return {
        "meters": list(meters.values()),
        "meter": meter,
        "tenants": _tenants(stores, tenants_of(visit.token, [])),
        "tenant": tenant,
        "zone": str(zone),
        "spans": tuple(_SPANS),
        "span_name": span_name,
        "begins": begins,
        "ends": ends,
        "windows": asked.WINDOWS,
        "window": window,
        "by": by,
        "as_of": as_of,
        "rows": sorted(named, key=lambda row: row["window_start"], reverse=True)[:_SHOWN_MAX],
        "rows_in_all": len(named),
        "totals": totals(named, meter),
        "chart": chart_of(named, by, str(zone), link),
        "link": link,
        "slider": _slider(ends, as_of, now),
        "now": now,
    }


def _fitting(span: timedelta) -> Window:
    """Return the window of which some dozens fit into the span."""
    return "minute" if span <= _SPANS["hour"] else "hour" if span <= timedelta(days=4) else "day"


def _next_hour(when: datetime) -> datetime:
    return when.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)


def _all(stores: Stores, question: UsageQuestion) -> list[Row]:
    """Return all rows: totals and charts of a part of them would be wrong without anybody seeing it.

    :raises Problem: there are more than a page can hold.
    """
    page = usage(stores, question)
    if page.next is not None:
        detail = f"more than {_ROWS_MAX:,} rows: choose a larger window, a shorter time, one tenant or another split"
        raise Problem("invalid_request", detail)
    return page.rows


def _week_before(question: UsageQuestion, zone: ZoneInfo) -> UsageQuestion:
    begins, ends = (_moved(when, -_WEEK, question.window, zone) for when in (question.begins, question.ends))
    return replace(question, begins=begins, ends=ends)


def _moved(when: datetime, by: timedelta, window: Window, zone: ZoneInfo) -> datetime:
    """Return the moment moved by whole days: days and months of a time zone by its calendar, the rest by the clock.

    A week over a change to or from daylight saving has an hour less or more, and its days still begin at midnight.
    """
    return when + by if window in ("minute", "hour") else (when.astimezone(zone) + by).astimezone(UTC)


def _newest(stores: Stores) -> datetime | None:
    """Return the newest booked minute, so that a page is not empty because events are a month old.

    Told by the parts' own minima and maxima, without reading rows: it is the column of the partitions.
    """
    found = stores.rows("SELECT max(booked_minute) AS newest, count() AS n FROM @usage_facts")
    return found[0]["newest"].replace(tzinfo=UTC) if int(found[0]["n"]) else None


def _tenants(stores: Stores, allowed: Sequence[str] | None) -> list[str]:
    if allowed is not None:
        return sorted(allowed)
    rows = stores.rows(
        "SELECT DISTINCT tenant FROM @usage_facts ORDER BY tenant LIMIT {n:UInt32}"
        " SETTINGS optimize_distinct_in_order = 1, optimize_read_in_order = 1",
        {"n": _TENANTS_MAX},
    )
    return [row["tenant"] for row in rows]


def _rows(rows: Sequence[Row], before: Sequence[Row], by: str, week_later: Callable[[datetime], datetime]) -> list[Row]:
    """Name each row's group, and put the same window of the week before beside it."""
    past = {(week_later(row["window_start"]), _group(row, by)): row["value"] for row in before}
    return [
        {
            **row,
            "group": _group(row, by),
            "week_before": past.get((row["window_start"], _group(row, by))),
            "events_link": group_parameter(by, _group(row, by)),
        }
        for row in rows
    ]


def _group(row: Row, by: str) -> str:
    if not by:
        return ""
    return str(row["tenant"] if by == TENANT else row["dimensions"][by])


def totals(rows: Sequence[Row], meter: Meter) -> dict[str, Any]:
    """Return what the rows come to: a sum where values add up over time, the largest window where they do not."""
    adds = meter.aggregation in ("sum", "count", "unique_count", "weighted_sum")
    values = [row["value"] for row in rows]
    past = [row["week_before"] for row in rows if row["week_before"] is not None]
    events = sum(row["events"] for row in rows)
    late = sum(row["late_events"] for row in rows)
    total = sum(values, Decimal(0)) if adds else max(values, default=Decimal(0))
    earlier = (sum(past, Decimal(0)) if adds else max(past)) if past else None
    return {
        "adds": adds,
        "value": total,
        "week_before": earlier,
        "change": None if earlier is None else total - earlier,
        "events": events,
        "late": late,
        "open": any(row["open"] for row in rows),
    }


def chart_of(rows: Sequence[Row], by: str, zone: str, link: str) -> dict[str, Any]:
    """Return the chart: the largest groups as bars or lines; without groups also the week before, dashed."""
    times = sorted({row["window_start"] for row in rows})
    sizes: dict[str, Decimal] = {}
    for row in rows:
        sizes[row["group"]] = sizes.get(row["group"], Decimal(0)) + abs(row["value"])
    shown = sorted(sizes, key=lambda group: (-sizes[group], group))[:_SERIES_MAX]
    place = {when: index for index, when in enumerate(times)}
    series: list[dict[str, Any]] = []
    for group in shown:
        values: list[float | None] = [None] * len(times)
        past: list[float | None] = [None] * len(times)
        for row in rows:
            if row["group"] == group:
                values[place[row["window_start"]]] = float(row["value"])
                past[place[row["window_start"]]] = None if row["week_before"] is None else float(row["week_before"])
        kind = "line" if by else "area"
        name = (group or "(none)") if by else "usage"
        series.append({"name": name, "values": values, "kind": kind, "link": group_parameter(by, group)})
        if not by and any(value is not None for value in past):
            series.append({"name": "a week before", "values": past, "kind": "line", "dashed": True})
    return {
        "times": [int(when.timestamp()) for when in times],
        "zone": zone,
        "unit": "",
        "series": series,
        "link": link,
        "hidden": len(sizes) - len(shown),
    }


def _link(visit: Visit, question: UsageQuestion, tenant: str) -> str:
    """Return the address of the events behind a point, its time left open; a split adds which of its groups."""
    asked_for = {"meter": question.meter, "window": question.window, "zone": question.zone}
    if tenant:
        asked_for["tenant"] = tenant
    if question.as_of is not None:
        asked_for["as_of"] = question.as_of.isoformat()
    url = visit.request.url_for("events").include_query_params(**asked_for)
    return f"{url.path}?{url.query}&from={{time}}"


def group_parameter(by: str, group: str) -> str:
    """Return what to add to the address of events for one group of a split."""
    if not by:
        return ""
    return "&" + urlencode({"tenant": group} if by == TENANT else {"dimension": f"{by}:{group}"})


def _slider(ends: datetime, as_of: datetime | None, now: datetime) -> dict[str, int]:
    """Return the slider of booked time in hours since 1970: from the span's begin to now, five weeks at most."""
    last = int(now.timestamp()) // 3600 + 1
    first = max(int((ends - timedelta(days=7)).timestamp()) // 3600, last - _SLIDER_HOURS)
    at = last if as_of is None else int(as_of.timestamp()) // 3600
    return {"first": first, "length": last - first, "at": min(max(at - first, 0), last - first)}


PAGE = Page("/usage", "usage", "Usage", "usage.html", show)
