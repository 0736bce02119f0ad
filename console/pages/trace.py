"""Trace: type an event's id or a document's key, and see its life as a timeline."""

import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import urlencode

from starlette.responses import RedirectResponse, Response

from console import scope
from console.pages import asked
from console.pages.base import Page, Values, Visit
from console.pages.formats import money
from console.scope import tenants_of
from queries.event_trace import EventTrace, trace_event
from queries.stores import Row, Stores
from sinks.ledger import documents

FOUND_MAX: Final = 50
_KEY: Final = re.compile(r"[A-Z2-7]{16}\Z")
_MINUTE: Final = timedelta(minutes=1)


@dataclass(slots=True)
class Step:
    """One step of an event's life. `state`: good, bad, none or empty; `parts` are short facts, `link` leads on."""

    title: str
    at: datetime | None
    state: str
    text: str = ""
    parts: dict[str, Any] = field(default_factory=dict)
    link: str = ""
    took: timedelta | None = None


async def show(visit: Visit) -> Values | Response:
    """Return what an event went through, the events that have the id typed, or the document that was meant."""
    query = asked.text(visit.request, "q")
    source = asked.text(visit.request, "source")
    event_id = asked.text(visit.request, "id") or query
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
        if len(found) != 1:
            return empty | {"query": event_id, "found": found, "many": len(found) > 1}
        source = found[0]["source"]
    trace = await visit.services.pool.ask(lambda stores: _trace(stores, visit, source, event_id))
    if trace is None:
        return empty | {"query": event_id}
    return {
        "query": event_id,
        "source": source,
        "found": [],
        "many": False,
        "trace": trace,
        "steps": steps_of(trace),
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


def steps_of(trace: EventTrace) -> list[Step]:
    """Return the event's life in order, with how long each step took where both ends are known."""
    steps: list[Step] = []
    row = trace.accepted
    if row is not None:
        steps.append(Step("Used", row["event_time"], "good", "the time the event itself tells"))
        position = {"stream": row["stream"], "entry": row["entry_id"], "index": row["entry_index"]}
        arrived = Step("Arrived", row["ingest_time"], "good", "the id of its stream entry is its arrival", position)
        arrived.took = row["ingest_time"] - row["event_time"]
        late = row["booked_minute"] - row["event_time"].replace(second=0, microsecond=0)
        text = f"late: its own minute was sealed {late} before" if late >= _MINUTE else "in its own minute"
        steps += [arrived, Step("Accepted and booked", row["booked_minute"], "good", text)]
    steps.extend(
        Step(
            "Refused" if one["counted"] else "Not usable by a meter",
            one["ingest_time"],
            "bad",
            one["detail"],
            {"reason": one["reason"], "stream": one["stream"], "entry": one["entry_id"]},
        )
        for one in trace.refused
    )
    documents: dict[str, Row] = {}
    for meter in trace.meters:
        steps += _meter_steps(meter)
        documents |= {row["key"]: row for row in meter.documents}
    for row in documents.values():  # one document carries several meters
        steps += _document_steps(row)
    steps.extend(
        Step("Taken back", one["ingest_time"], "bad", "by a void", {"source": one["source"], "id": one["id"]})
        for one in trace.voids
    )
    return steps


def _meter_steps(meter: Any) -> list[Step]:
    steps = []
    for fact in meter.facts:
        parts = {
            "value": f"{fact['value'].normalize():f}",
            "events": fact["events"],
            "version": fact["version"],
            **meter.dimensions,
        }
        text = "sealed: it never changes again" if fact["sealed"] else "open: more may come"
        state = "good" if fact["sealed"] else "none"
        steps.append(Step(f"In usage of {meter.meter}", fact["usage_minute"], state, text, parts))
    for row in meter.rated:
        parts = {"plan": f"{row['plan']} v{row['plan_version']}", "kind": row["line_kind"], "status": row["status"]}
        text = f"{row['quantity'].normalize():,f} in the hour are {row['amount'].normalize():,f} {row['currency']}"
        asks = {"customer": row["customer"], "charge": row["charge"], "booked": f"{row['booked_hour']:%Y-%m-%dT%H:%M}"}
        link = f"/explain?{urlencode(asks)}"
        state = "good" if row["status"] == "sealed" else "none"
        steps.append(Step(f"Rated by {row['charge'] or 'no charge'}", row["booked_hour"], state, text, parts, link))
    return steps


def _document_steps(row: Row) -> list[Step]:
    amount = money(row["total"], row["currency"])
    steps = [Step(f"In document {row['key']}", row["booked_hour"], "good", amount, {}, f"/documents/{row['key']}")]
    posting = row["posting"]
    if posting is None:
        return steps
    for attempt in posting["attempts"]:
        took = None if attempt["finished_at"] is None else attempt["finished_at"] - attempt["started_at"]
        good = attempt["outcome"] in ("posted", "accepted", "Posted", "Accepted")
        steps.append(
            Step(
                f"Sent to {posting['adapter']}",
                attempt["started_at"],
                "good" if good else "none",
                f"{attempt['outcome'] or 'no answer yet'} {attempt['detail']}".strip(),
                {"posting": posting["key"], "attempt": attempt["attempt"]},
                took=took,
            )
        )
    steps.extend(
        Step("Booked in the ERP", entry["posted_at"], "good", f"number {entry['number']}", {"posting": posting["key"]})
        for entry in posting["erp_entries"]
    )
    if posting["state"] == "RECONCILED":
        steps.append(Step("Reconciled", posting["changed_at"], "good", "read back from the ERP and found equal"))
    elif posting["reason"]:
        steps.append(
            Step(posting["state"].lower(), posting["changed_at"], "bad", f"{posting['reason']}: {posting['detail']}")
        )
    return steps


PAGE = Page("/trace", "trace", "Trace", "trace.html", show)
