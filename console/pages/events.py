"""The events behind a point of the usage chart: one tenant, one meter, one window."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from starlette.responses import Response

from console.pages import asked, exporting
from console.pages.base import Page, Values, Visit
from console.problems import Problem
from console.scope import check_tenant
from queries.meter_sql import MeterSql
from queries.stores import Row, Stores
from queries.windows import borders

ROWS_MAX: Final = 500
_EXPORT_MAX: Final = 100_000
_COLUMNS: Final = (
    "source", "id", "type", "event_time", "ingest_time", "booked_minute", "stream", "entry_id", "entry_index", "sign",
    "value", "dimensions",
)  # fmt: skip


async def show(visit: Visit) -> Values | Response:
    """Return the events that were used in the window, in order of their time."""
    request = visit.request
    tenant, meter = asked.text(request, "tenant"), asked.text(request, "meter", 256)
    begins = asked.moment(request, "from")
    if not tenant or not meter or begins is None:
        raise Problem("invalid_request", "tenant, meter and from: come here by a click on the usage chart")
    check_tenant(visit.token, tenant)
    window = asked.window(request) or "hour"
    zone = asked.zone(request)
    ends = next(when for when in borders(window, zone, begins, begins + timedelta(seconds=1)) if when > begins)
    kind = exporting.wanted(request)

    def work(stores: Stores) -> Values | Response:
        rows = events(stores, tenant, meter, begins, ends, _EXPORT_MAX if kind else ROWS_MAX + 1)
        if kind:
            return exporting.file_of("events", kind, _COLUMNS, rows)
        return {
            "rows": rows[:ROWS_MAX],
            "is_cut": len(rows) > ROWS_MAX,
            "tenant": tenant,
            "meter": meter,
            "begins": begins,
            "ends": ends,
        }

    return await visit.services.pool.ask(work)


def events(stores: Stores, tenant: str, meter_id: str, begins: datetime, ends: datetime, limit: int) -> list[Row]:
    """Return the accepted events and voids of a tenant that the meter counts in the span, with what each brings."""
    meter = stores.history.latest.meters.get(meter_id)
    if meter is None:
        raise Problem("not_found", f"no meter {meter_id!r}")
    sql = MeterSql.of(meter)
    rules = stores.history.latest.rules
    used = (
        f"if({sql.sign} = 1, event_time, ifNull(parseDateTime64BestEffortOrNull("
        "JSONExtractString(data, 'data', 'time'), 6, 'UTC'), event_time))"
    )
    parameters: dict[str, Any] = sql.parameters | {
        "tenant": tenant,
        "from": begins,
        "to": ends,
        "first": begins - timedelta(seconds=rules.future_s),
        "last": min(ends + timedelta(days=rules.too_old_days) + timedelta(days=1), datetime(2100, 1, 1, tzinfo=UTC)),
        "limit": limit,
    }
    return stores.rows(
        "SELECT source, id, type, event_time, ingest_time, booked_minute, stream, entry_id, entry_index,"  # noqa: S608
        f" {sql.sign} AS sign, {sql.text} AS value, {sql.dimensions} AS dimensions FROM @usage_events_current"
        " WHERE ingest_time >= {first:DateTime64(3)} AND ingest_time < {last:DateTime64(3)}"
        f" AND tenant = {{tenant:String}} AND {sql.applies}"
        f" AND {used} >= {{from:DateTime64(6)}} AND {used} < {{to:DateTime64(6)}}"
        " ORDER BY event_time, stream, ingest_time, entry_index LIMIT {limit:UInt32}",
        parameters,
    )


PAGE = Page("/events", "events", "", "events.html", show)
