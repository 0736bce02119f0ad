"""The events behind a point of the usage chart: one meter, one window, one tenant or all of them."""

from datetime import timedelta
from typing import Final

from starlette.responses import Response

from console.pages import asked, exporting
from console.pages.base import Page, Values, Visit
from console.paging import cursor_of, position_of
from console.problems import Problem
from console.scope import tenants_of
from queries.meter_events import EventsQuestion, meter_events
from queries.stores import Stores
from queries.windows import borders

ROWS_MAX: Final = 500
EXPORT_MAX: Final = 100_000
_COLUMNS: Final = (
    "tenant", "source", "id", "type", "event_time", "ingest_time", "booked_minute", "stream", "entry_id", "entry_index",
    "sign", "value", "dimensions",
)  # fmt: skip


async def show(visit: Visit) -> Values | Response:
    """Return a page of the events that were used in the window, in order of their time, or all of them as a file."""
    question, kind = _question(visit), exporting.wanted(visit.request)
    return await visit.services.pool.ask(lambda stores: _answer(visit, stores, question, kind))


def _question(visit: Visit) -> EventsQuestion:
    request = visit.request
    tenant, meter = asked.text(request, "tenant"), asked.text(request, "meter", 256)
    begins = asked.moment(request, "from")
    if not meter or begins is None:
        raise Problem("invalid_request", "meter and from: come here by a click on the usage chart")
    window, zone = asked.window(request) or "hour", asked.zone(request)
    found = borders(window, zone, begins, begins + timedelta(seconds=1))
    name, colon, value = asked.text(request, "dimension").partition(":")
    if name and not colon:
        raise Problem("invalid_request", "dimension: name:value, such as model:gpt-4")
    after = position_of(asked.text(request, "after", 1_000), (int, str, int, int, int))
    return EventsQuestion(
        meter=meter,
        begins=begins,
        ends=next(when for when in found if when > begins),
        tenants=tenants_of(visit.token, [tenant] if tenant else []),
        dimensions={name: value} if name else {},
        as_of=asked.moment(request, "as_of"),
        after=None if after is None else (after[0], after[1], after[2], after[3], after[4]),
        limit=ROWS_MAX,
    )


def _answer(visit: Visit, stores: Stores, question: EventsQuestion, kind: str) -> Values | Response:
    request = visit.request
    if question.meter not in stores.history.latest.meters:
        raise Problem("not_found", f"no meter {question.meter!r}")
    if kind:
        page = meter_events(stores, EventsQuestion(
            question.meter, question.begins, question.ends, question.tenants, question.dimensions, question.as_of,
            limit=EXPORT_MAX,
        ))  # fmt: skip
        if page.next is not None:
            detail = (
                f"a file holds at most {EXPORT_MAX:,} events, and there are more: choose a tenant or a shorter window"
            )
            raise Problem("invalid_request", detail)
        return exporting.file_of("events", kind, _COLUMNS, page.rows)
    page = meter_events(stores, question)
    following = cursor_of(page.next)
    older = request.url.include_query_params(after=following) if following else None
    newest = request.url.remove_query_params("after")
    return {
        "rows": page.rows,
        "older": f"{older.path}?{older.query}" if older else "",
        "first": "" if question.after is None else f"{newest.path}?{newest.query}",
        "export_max": EXPORT_MAX,
        "tenant": asked.text(request, "tenant"),
        "meter": question.meter,
        "dimensions": question.dimensions,
        "as_of": question.as_of,
        "zone": str(asked.zone(request)),
        "begins": question.begins,
        "ends": question.ends,
    }


PAGE = Page("/events", "events", "", "events.html", show)
