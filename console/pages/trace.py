"""Trace: type an event's id or a document's key, and see its life as a timeline."""

import re
from typing import Any, Final

from starlette.responses import RedirectResponse, Response

from console import scope
from console.pages import asked, exporting
from console.pages.base import Page, Values, Visit
from console.scope import tenants_of
from console.timeline import STEP_COLUMNS, step_rows, steps_of
from queries.event_trace import EventTrace, trace_event
from queries.stores import Row, Stores
from sinks.ledger import documents

FOUND_MAX: Final = 50
_FOUND_COLUMNS: Final = ("source", "type", "tenant", "event_time", "outcome")
_KEY: Final = re.compile(r"[A-Z2-7]{16}\Z")


async def show(visit: Visit) -> Values | Response:
    """Return what an event went through, the events that have the id typed, or the document that was meant."""
    query = asked.text(visit.request, "q")
    source = asked.text(visit.request, "source")
    event_id = asked.text(visit.request, "id") or query
    kind = exporting.wanted(visit.request)
    empty: dict[str, Any] = {"query": query, "source": source, "found": [], "trace": None, "steps": [], "many": False}
    if not event_id:
        return empty
    if query and _KEY.match(query):
        known = await visit.services.pool.ask_ledger(lambda engine: documents.load(engine, query) is not None)
        if known:
            return RedirectResponse(f"/documents/{query}", status_code=303)
    tenants = tenants_of(visit.token, [])
    if not source:
        found = await visit.services.pool.ask(lambda stores: with_id(stores, event_id, tenants))
        if kind and len(found) != 1:
            return exporting.file_of("events-with-the-id", kind, _FOUND_COLUMNS, found)
        if len(found) != 1:
            return empty | {"query": event_id, "found": found, "many": len(found) > 1}
        source = found[0]["source"]
    trace = await visit.services.pool.ask(lambda stores: _trace(stores, visit, source, event_id))
    if trace is None:
        return empty | {"query": event_id}
    steps = steps_of(trace)
    if kind:
        return exporting.file_of("trace", kind, STEP_COLUMNS, list(step_rows(steps)))
    return {
        "query": event_id,
        "source": source,
        "found": [],
        "many": False,
        "trace": trace,
        "steps": steps,
    }


def with_id(stores: Stores, event_id: str, tenants: list[str] | None) -> list[Row]:
    """Return the events that have that id, of any source: accepted ones by the index on ids, and refused ones."""
    accepted = stores.rows(
        "SELECT DISTINCT source, type, tenant, event_time, 'accepted' AS outcome FROM @usage_events"  # noqa: S608
        " WHERE id = {id:String}"
        + (" AND tenant IN {tenants:Array(String)}" if tenants is not None else "")
        + " ORDER BY event_time LIMIT {limit:UInt32}",
        {"id": event_id, "limit": FOUND_MAX} | ({"tenants": tenants} if tenants is not None else {}),
    )
    if accepted or tenants is not None:
        return accepted
    return stores.rows(
        "SELECT DISTINCT JSONExtractString(raw, 'source') AS source, JSONExtractString(raw, 'type') AS type,"
        " JSONExtractString(raw, 'subject') AS tenant, ingest_time AS event_time, 'rejected' AS outcome"
        " FROM @usage_rejects_current WHERE position(raw, {id:String}) > 0"
        " AND JSONExtractString(raw, 'id') = {id:String}"
        " ORDER BY event_time LIMIT {limit:UInt32}",
        {"id": event_id, "limit": FOUND_MAX},
    )


def _trace(stores: Stores, visit: Visit, source: str, event_id: str) -> EventTrace | None:
    trace = trace_event(stores, source, event_id)
    if visit.token.tenants and (trace.accepted is None or trace.accepted["tenant"] not in visit.token.tenants):
        return None  # another tenant's event does not exist for this token
    if visit.token.tenants:
        for meter in trace.meters:
            meter.rated = [row for row in meter.rated if _sees(visit, stores, row["customer"])]
            meter.documents = [row for row in meter.documents if _sees(visit, stores, row["customer"])]
        trace.refused = []
    return None if trace.outcome == "unknown" else trace


def _sees(visit: Visit, stores: Stores, customer: str) -> bool:
    return scope.sees_customer(visit.token, stores.history, customer)


PAGE = Page("/trace", "trace", "Trace", "trace.html", show)
