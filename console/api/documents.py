"""Documents and what they are made of: `GET /api/v1/documents`, `/documents/{key}`, `/documents/{key}/trace`."""

from dataclasses import asdict
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

import msgspec
from starlette.responses import Response

from console import scope
from console.answers import json_answer, rows_answer
from console.api.lists import CACHED, list_answers, one_answers
from console.endpoint import API, Call, Endpoint
from console.paging import cursor_of, position_of
from console.parameters import Cursor, Limit, Name, Time, time_of
from console.problems import Problem
from queries.document_events import summaries
from queries.document_list import DocumentFilter, DocumentPage, document_list
from queries.document_state import posting_of
from queries.document_trace import trace_document
from queries.stores import Stores, of_hour
from sinks.ledger import documents

COLUMNS = (
    "key", "kind", "entity", "customer", "contract", "currency", "booked_hour", "accounting_period", "posting_date",
    "total", "revenue", "state", "reason", "detail", "approval", "posting_key", "erp_number", "attempts", "changed_at",
)  # fmt: skip


class DocumentRow(msgspec.Struct):
    """A financial document. `state` is its posting's, or its own while it has none; `revenue` is what it earns."""

    key: str
    kind: str
    entity: str
    customer: str
    contract: str
    currency: str
    booked_hour: datetime
    accounting_period: str
    posting_date: str
    total: Decimal
    revenue: Decimal
    state: str
    reason: str
    detail: str
    approval: str
    posting_key: str
    erp_number: str
    attempts: int
    changed_at: datetime | None


class DocumentList(msgspec.Struct):
    """A page of documents."""

    items: list[DocumentRow]
    next: str | None


class Document(msgspec.Struct):
    """A document with its lines, its posting, attempts and ERP numbers."""

    key: str
    state: str
    booked_hour: datetime
    document: dict[str, Any]
    posting: dict[str, Any] | None


class DocumentTrace(msgspec.Struct):
    """The way back from a document: entries, rated rows and facts per charge, and the events behind them, counted."""

    key: str
    state: str
    charges: list[dict[str, Any]]
    events: list[dict[str, Any]]


class DocumentsParameters(msgspec.Struct, forbid_unknown_fields=True, rename={"from_": "from"}):
    """Which documents."""

    entity: Name = ""
    customer: Name = ""
    kind: Annotated[str, msgspec.Meta(max_length=64, description="Such as accrual, correction or reversal.")] = ""
    state: Annotated[str, msgspec.Meta(max_length=64, description="Such as PENDING, HELD or POSTED.")] = ""
    accounting_period: Annotated[str, msgspec.Meta(max_length=16, description="Such as 2026-11.")] = ""
    from_: Time = ""
    to: Time = ""
    limit: Limit = 1000
    cursor: Cursor = ""


async def list_documents(call: Call) -> Response:
    """List documents, the newest booked hour first."""
    asked: DocumentsParameters = call.parameters
    after = position_of(asked.cursor, (int, str))

    def ask(stores: Stores) -> DocumentPage:
        allowed = scope.customers_of(call.token, stores.history)
        wanted = DocumentFilter(
            customers=None if allowed is None else sorted(allowed),
            entity=asked.entity,
            customer=asked.customer,
            kind=asked.kind,
            state=asked.state,
            period=asked.accounting_period,
            begins=time_of("from", asked.from_),
            ends=time_of("to", asked.to),
        )
        return document_list(stores.engine, wanted, None if after is None else (after[0], after[1]), asked.limit)

    page = await call.services.pool.ask_books(ask)
    return rows_answer(call.request, page.rows, COLUMNS, cursor_of(page.next_after))


async def get_document(call: Call) -> Response:
    """Return one document with its lines, posting, attempts and ERP numbers."""
    key = call.path["key"]

    def ask(stores: Stores) -> dict[str, Any]:
        document = visible_document(call, stores, key)
        became = posting_of(stores, key)
        hour = of_hour(document["booked_hour"])
        return {"key": key, "state": became["state"], "booked_hour": hour, "document": document,
                "posting": became["posting"]}  # fmt: skip

    return json_answer(call.request, await call.services.pool.ask_books(ask))


async def get_document_trace(call: Call) -> Response:
    """Go back from a document to its entries, rated rows and facts, and count the events behind them."""
    key = call.path["key"]

    def ask(stores: Stores) -> dict[str, Any]:
        visible_document(call, stores, key)
        trace = trace_document(stores, key)
        if trace is None:  # pragma: no cover  it was there a moment ago, and documents are not deleted
            raise Problem("not_found", f"there is no document {key[:64]!r}")
        charges = [
            asdict(charge) | {"amounts_tie": charge.amounts_tie, "quantities_tie": charge.quantities_tie}
            for charge in trace.charges
        ]
        events = [asdict(summary) | {"ties": summary.ties} for summary in summaries(stores, trace)]
        return {"key": key, "state": trace.state, "charges": charges, "events": events}

    return json_answer(call.request, await call.services.pool.ask(ask))


def visible_document(call: Call, stores: Stores, key: str) -> dict[str, Any]:
    """Return the document.

    :raises Problem: 404 if there is none, or the token may not see its customer.
    """
    document = documents.load(stores.engine, key)
    if document is None or not scope.sees_customer(call.token, stores.history, document["customer"]):
        raise Problem("not_found", f"there is no document {key[:64]!r}: keys are 16 characters A-Z2-7")
    return document


ENDPOINTS = (
    Endpoint(
        "GET", f"{API}/documents", "read", list_documents, list_answers(DocumentList, "A page of documents."),
        parameters=DocumentsParameters, headers=CACHED,
    ),
    Endpoint(
        "GET", f"{API}/documents/{{key}}", "read", get_document, one_answers(Document, "The document."),
        headers=CACHED,
    ),
    Endpoint(
        "GET", f"{API}/documents/{{key}}/trace", "read", get_document_trace,
        one_answers(DocumentTrace, "What the document is made of."), headers=CACHED,
    ),
)  # fmt: skip
