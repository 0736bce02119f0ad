"""Documents, newest first, by what a person looks for; from the ledger, which is their truth."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import orjson
from sqlalchemy import Engine, func, or_, select

from queries.stores import EPOCH, Row, of_hour
from sinks.ledger import audit, documents, tables
from sinks.ledger.database import read
from sinks.ledger.times import to_datetime

PAGE_MAX: Final = 10_000
_DOCUMENTS, _POSTINGS = tables.documents, tables.postings
_STATE: Final = func.coalesce(_POSTINGS.c.state, _DOCUMENTS.c.state)


@dataclass(frozen=True, slots=True)
class DocumentFilter:
    """Which documents. Empty fields mean all; `customers` None means all, and limits what a token may see."""

    customers: Sequence[str] | None = None
    customer: str = ""
    entity: str = ""
    state: str = ""
    kind: str = ""
    period: str = ""
    begins: datetime | None = None
    ends: datetime | None = None
    """Booked hours from `begins` to `ends`, exclusive."""


@dataclass(frozen=True, slots=True)
class DocumentPage:
    """Some documents, and where the next page begins: (booked hour, key) of the last one here, or None at the end."""

    rows: list[Row]
    next_after: tuple[int, str] | None


def document_list(
    engine: Engine, wanted: DocumentFilter, after: tuple[int, str] | None = None, limit: int = 100
) -> DocumentPage:
    """Return documents with their state, posting and ERP number: newest booked hour first, then by key."""
    limit = min(limit, PAGE_MAX)
    table = _DOCUMENTS.c
    query = _chosen(
        select(table.key, table.entity, table.customer, table.contract, table.currency, table.booked_hour,
               table.accounting_period, table.posting_date, table.kind, table.json, table.net, table.posting_key,
               _STATE.label("state"), _POSTINGS.c.reason, _POSTINGS.c.detail, _POSTINGS.c.approval,
               _POSTINGS.c.erp_number, _POSTINGS.c.attempts, _POSTINGS.c.changed_at_ms),
        wanted,
    )  # fmt: skip
    if after is not None:
        hour, key = after
        query = query.where(or_(table.booked_hour < hour, (table.booked_hour == hour) & (table.key > key)))
    query = query.order_by(table.booked_hour.desc(), table.key).limit(limit + 1)
    with read(engine) as connection:
        found = connection.execute(query).all()
    rows = [_row(one) for one in found[:limit]]
    last = found[limit - 1] if len(found) > limit else None
    return DocumentPage(rows, None if last is None else (last.booked_hour, last.key))


def counts(engine: Engine, wanted: DocumentFilter) -> dict[str, int]:
    """Return how many documents are in each state, whatever state was asked for."""
    query = _chosen(select(_STATE.label("state"), func.count()), wanted, with_state=False).group_by(_STATE)
    with read(engine) as connection:
        return {state: int(n) for state, n in connection.execute(query)}


def _chosen(query: Any, wanted: DocumentFilter, *, with_state: bool = True) -> Any:
    table = _DOCUMENTS.c
    query = query.select_from(_DOCUMENTS.outerjoin(_POSTINGS, _POSTINGS.c.key == table.posting_key))
    query = query.where(table.state != documents.STAGED)
    if wanted.customers is not None:
        query = query.where(table.customer.in_(list(wanted.customers)))
    named = {
        table.customer: wanted.customer,
        table.entity: wanted.entity,
        table.kind: wanted.kind,
        table.accounting_period: wanted.period,
    }
    for column, value in named.items():
        if value:
            query = query.where(column == value)
    if wanted.state and with_state:
        query = query.where(wanted.state == _STATE)
    if wanted.begins is not None:
        query = query.where(table.booked_hour >= _hour(wanted.begins))
    if wanted.ends is not None:
        query = query.where(table.booked_hour < _hour(wanted.ends))
    return query


def _hour(when: datetime) -> int:
    return int((when - EPOCH).total_seconds()) // 3600


def _row(one: Any) -> Row:
    return {
        "key": one.key,
        "entity": one.entity,
        "customer": one.customer,
        "contract": one.contract,
        "currency": one.currency,
        "booked_hour": of_hour(one.booked_hour),
        "accounting_period": one.accounting_period,
        "posting_date": one.posting_date,
        "kind": one.kind,
        "total": Decimal(orjson.loads(one.json)["total"]),
        "revenue": one.net if one.net is not None else Decimal(0),
        "posting_key": one.posting_key or "",
        "state": one.state,
        "reason": one.reason or "",
        "detail": one.detail or "",
        "approval": one.approval or "",
        "erp_number": one.erp_number or "",
        "attempts": one.attempts or 0,
        "changed_at": None if one.changed_at_ms is None else to_datetime(one.changed_at_ms),
    }


@dataclass(frozen=True, slots=True)
class Related:
    """What stands around a document: others in its posting, acts about either, and who did what."""

    same_posting: list[str]
    same_posting_total: int
    acts: list[Row]
    audit: list[Row]


def related(engine: Engine, key: str, limit: int = 50) -> Related:
    """Return what is linked to a document: other documents of the posting, acts about either, and the audit log."""
    table, acts = _DOCUMENTS.c, tables.acts
    with read(engine) as connection:
        posting = connection.execute(select(table.posting_key).where(table.key == key)).scalar()
        names = [key, *([posting] if posting else [])]
        same: list[str] = []
        total = 0
        if posting:
            chosen = (table.posting_key == posting) & (table.key != key)
            total = int(connection.execute(select(func.count()).where(chosen)).scalar() or 0)
            same = list(connection.execute(select(table.key).where(chosen).order_by(table.key).limit(limit)).scalars())
        done = connection.execute(
            select(acts).where(acts.c.subject.in_(names)).order_by(acts.c.recorded_at_ms).limit(limit)
        ).all()
        said = [row for name in names for row in audit.entries(connection, name, limit)]
    return Related(
        same,
        total,
        [
            {
                "key": row.key,
                "kind": row.kind,
                "actor": row.actor,
                "reason": row.reason,
                "at": to_datetime(row.recorded_at_ms),
                "plain": orjson.loads(row.json),
            }
            for row in done
        ],
        sorted(({**row, "at": to_datetime(row["at_ms"])} for row in said), key=lambda row: row["id"]),
    )
