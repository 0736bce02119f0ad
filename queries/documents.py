"""Documents of the ledger as lists: what was made, what it comes to, and what became of it."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Select, and_, func, or_, select

from queries.stores import Row, Stores, minute_of, of_hour
from sinks.ledger import tables
from sinks.ledger.database import read

_DOCUMENTS: Final = tables.documents.c
_POSTINGS: Final = tables.postings.c


@dataclass(frozen=True, slots=True)
class DocumentQuestion:
    """Which documents. `customers`: only these, None for all; `state`: that of the posting, or of the document.

    `after`: booked hour and key of the last row of the page before; the newest come first.
    """

    customers: Collection[str] | None = None
    entity: str = ""
    customer: str = ""
    kind: str = ""
    state: str = ""
    accounting_period: str = ""
    begins: datetime | None = None
    ends: datetime | None = None
    after: tuple[Any, ...] | None = None
    limit: int = 1000


def documents(stores: Stores, question: DocumentQuestion) -> tuple[list[Row], tuple[int, str] | None]:
    """Return a page of documents, newest booked hour first, and where the next one begins."""
    if question.customers is not None and not question.customers:
        return [], None
    with read(stores.engine) as connection:
        found = connection.execute(documents_sql(question)).all()
    rows = [
        {
            "key": row.key,
            "kind": row.kind,
            "entity": row.entity,
            "customer": row.customer,
            "contract": row.contract,
            "currency": row.currency,
            "booked_hour": of_hour(row.booked_hour),
            "accounting_period": row.accounting_period,
            "posting_date": row.posting_date,
            "total": row.net,
            "debit_total": row.debit_total,
            "state": row.state_now,
            "reason": row.reason or "",
            "detail": row.detail or "",
            "posting_key": row.posting_key or "",
            "erp_number": row.erp_number or "",
            "approval": row.approval or "",
        }
        for row in found[: question.limit]
    ]
    full = len(found) > question.limit
    last = found[question.limit - 1] if full else None
    return rows, None if last is None else (last.booked_hour, last.key)


def documents_sql(question: DocumentQuestion) -> Select[Any]:
    """Return the query."""
    state = func.coalesce(_POSTINGS.state, _DOCUMENTS.state)
    query = select(
        _DOCUMENTS.key, _DOCUMENTS.kind, _DOCUMENTS.entity, _DOCUMENTS.customer, _DOCUMENTS.contract,
        _DOCUMENTS.currency, _DOCUMENTS.booked_hour, _DOCUMENTS.accounting_period, _DOCUMENTS.posting_date,
        _DOCUMENTS.net, _DOCUMENTS.debit_total, _DOCUMENTS.posting_key, state.label("state_now"), _POSTINGS.reason,
        _POSTINGS.detail, _POSTINGS.erp_number, _POSTINGS.approval,
    ).select_from(tables.documents.outerjoin(tables.postings, _POSTINGS.key == _DOCUMENTS.posting_key))  # fmt: skip
    if question.customers is not None:
        query = query.where(_DOCUMENTS.customer.in_(sorted(question.customers)))
    for name in ("entity", "customer", "kind", "accounting_period"):
        if value := getattr(question, name):
            query = query.where(tables.documents.c[name] == value)
    if question.state:
        query = query.where(state == question.state)
    if question.begins is not None:
        query = query.where(_DOCUMENTS.booked_hour >= -(-minute_of(question.begins) // 60))
    if question.ends is not None:
        query = query.where(_DOCUMENTS.booked_hour < -(-minute_of(question.ends) // 60))
    if question.after is not None:
        hour, key = question.after
        behind = and_(_DOCUMENTS.booked_hour == hour, _DOCUMENTS.key > key)
        query = query.where(or_(_DOCUMENTS.booked_hour < hour, behind))
    return query.order_by(_DOCUMENTS.booked_hour.desc(), _DOCUMENTS.key).limit(question.limit + 1)
