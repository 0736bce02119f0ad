"""One document: its lines, what they were made of, what became of it in the ERP, and what may be done about it."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from starlette.responses import RedirectResponse, Response

from console import acts
from console.acts import REASON_CHARACTERS_MAX, Acting
from console.pages import asked, exporting
from console.pages.base import Page, Values, Visit
from console.problems import Problem, of_error
from console.scope import sees_customer
from core.errors import MeterbridgeError
from queries.document_events import charge_events, summaries
from queries.document_list import related
from queries.document_trace import DocumentTrace, trace_document
from queries.stores import Row, Stores, of_hour
from sinks.ledger import documents, held
from sinks.ledger.postings import BOOKED, HELD

_ROWS_SHOWN_MAX: Final = 200
EVENTS_MAX: Final = 500
EXPORT_MAX: Final = 100_000
_EVENT_COLUMNS: Final = (
    "charge", "meter", "tenant", "source", "id", "type", "event_time", "ingest_time", "stream", "entry_id",
    "entry_index", "usage_minute", "booked_minute", "dimensions", "sign", "value",
)  # fmt: skip
_ACTS: Final[Mapping[str, Callable[[Acting, str], Row]]] = {
    "approve": acts.approve,
    "reverse": acts.reverse,
    "release": acts.release,
}
_RATED: Final = (
    "plan", "plan_version", "charge", "price_row", "meter", "period_start", "usage_hour", "booked_hour", "line_kind",
    "quantity", "events", "amount", "revenue_amount", "amount_before", "amount_after", "currency",
)  # fmt: skip


async def show(visit: Visit) -> Values | Response:
    """Return the document with what is behind it; a format gives its rated rows as a file."""
    return await visit.services.pool.ask(lambda stores: _values(visit, stores, None))


def _values(visit: Visit, stores: Stores, result: Mapping[str, Any] | None) -> Values | Response:
    key = str(visit.request.path_params["key"])
    trace = _seen(visit, stores, key)
    file = exporting.wanted(visit.request)
    if file:
        return _file(stores, trace, key, file)
    booked = of_hour(trace.document["booked_hour"])
    is_made_of_rows = bool(trace.charges)
    state = trace.posting["state"] if trace.posting else trace.state
    return {
        "trace": trace,
        "document": trace.document,
        "booked": booked,
        "lines": _lines(stores, key),
        "summaries": {(one.charge, one.meter): one for one in summaries(stores, trace)} if is_made_of_rows else {},
        "rows_shown_max": _ROWS_SHOWN_MAX,
        "related": related(stores.engine, key),
        "may_approve": "approve" in visit.permissions and state == HELD and _reason(trace) == held.APPROVAL_REQUIRED,
        "may_release": "operate" in visit.permissions and state == HELD and _reason(trace) != held.APPROVAL_REQUIRED,
        "may_reverse": "approve" in visit.permissions and state in BOOKED,
        "result": result,
    }


def _reason(trace: DocumentTrace) -> str:
    return str(trace.posting["reason"]) if trace.posting else ""


def _seen(visit: Visit, stores: Stores, key: str) -> DocumentTrace:
    """Return the document if the visitor may see it.

    :raises Problem: there is none, or none for this token; the two look alike.
    """
    trace = trace_document(stores, key)
    if trace is None or not sees_customer(visit.token, stores.history, trace.document["customer"]):
        raise Problem("not_found", f"no document {key!r}: keys are 16 characters A to Z and 2 to 7")
    return trace


def _lines(stores: Stores, key: str) -> list[dict[str, Any]]:
    document = documents.load(stores.engine, key)
    return [] if document is None else list(document["lines"])


def _file(stores: Stores, trace: DocumentTrace, key: str, kind: str) -> Response:
    rated = [row for charge in trace.charges for row in charge.rated]
    return exporting.file_of(f"document-{key}", kind, _RATED, rated)


async def act(visit: Visit) -> Values | Response:
    """Approve, release or reverse, for who may; a preview changes nothing and says what would be done."""
    form = await visit.form()
    reason = str(form.get("reason", "")).strip()
    wanted = str(form.get("act", ""))
    dry_run = form.get("dry_run") == "1"
    permission = {"approve": "approve", "reverse": "approve", "release": "operate"}.get(wanted)
    if permission is None:
        raise Problem("invalid_request", "act: approve, release or reverse")
    if permission not in visit.permissions:
        raise Problem("forbidden", f"the role {visit.token.role} may not {wanted} documents")
    if not reason or len(reason) > REASON_CHARACTERS_MAX:
        raise Problem("invalid_request", f"reason: needed, at most {REASON_CHARACTERS_MAX} characters")

    def work(stores: Stores) -> Values | Response:
        key = str(visit.request.path_params["key"])
        _seen(visit, stores, key)
        acting = Acting(stores, visit.token, visit.services.clock, reason, dry_run)
        try:
            done = _ACTS[wanted](acting, key)
        except MeterbridgeError as error:
            problem = of_error(error)
            return _values(visit, stores, {"state": "bad", "title": problem.title, "text": problem.detail, "lines": []})
        said = {"text": f"{done['said']}.", "lines": []}
        if dry_run:
            return _values(visit, stores, said | {"state": "warn", "title": "Preview: nothing was changed"})
        if wanted == "reverse":
            return RedirectResponse(f"/documents/{done['documents'][0]}", status_code=303)
        return _values(visit, stores, said | {"state": "good", "title": "Done"})

    return await visit.services.pool.ask(work)


async def show_events(visit: Visit) -> Values | Response:
    """Return the events behind one charge of the document: those its facts count; a format gives all of them."""
    return await visit.services.pool.ask(lambda stores: _events(visit, stores))


def _events(visit: Visit, stores: Stores) -> Values | Response:
    request, key = visit.request, str(visit.request.path_params["key"])
    trace = _seen(visit, stores, key)
    charge, meter = asked.text(request, "charge"), asked.text(request, "meter", 256)
    price_row = asked.text(request, "price_row")
    chosen = [one for one in trace.charges if one.name[2:5] == (charge, price_row, meter)]
    if not chosen:
        raise Problem("not_found", f"document {key} has no charge {charge!r} of meter {meter!r}")
    if kind := exporting.wanted(request):
        rows = charge_events(stores, chosen, EXPORT_MAX + 1)
        if len(rows) > EXPORT_MAX:
            detail = f"a file holds at most {EXPORT_MAX:,} events: use `meterbridge trace document {key} --events FILE`"
            raise Problem("invalid_request", detail)
        return exporting.file_of(f"events-{key}", kind, _EVENT_COLUMNS, rows)
    rows = charge_events(stores, chosen, EVENTS_MAX + 1)
    return {
        "key": key,
        "document": trace.document,
        "charge": charge,
        "price_row": price_row,
        "meter": meter,
        "rows": rows[:EVENTS_MAX],
        "is_cut": len(rows) > EVENTS_MAX,
        "export_max": EXPORT_MAX,
    }


PAGE = Page("/documents/{key}", "document", "", "document.html", show, act=act)
EVENTS = Page("/documents/{key}/events", "document_events", "", "document_events.html", show_events)
