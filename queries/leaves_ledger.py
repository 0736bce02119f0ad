"""Leaves of the ledger: one per document and one per posting, from what is in the books and never changes."""

import hashlib
from collections.abc import Iterator
from decimal import Decimal
from itertools import groupby
from typing import Any, Final

import orjson
from sqlalchemy import Connection, Engine, select

from queries.leaves import Leaf, exact_text
from queries.leaves_clickhouse import Scope
from sinks.ledger import tables
from sinks.ledger.amounts import exact
from sinks.ledger.database import read

DOCUMENTS: Final = "documents"
POSTINGS: Final = "postings"

_KEYS_PER_QUERY: Final = 500
_ROWS_PER_READ: Final = 1_000


def document_leaves(engine: Engine, scope: Scope) -> Iterator[Leaf]:
    """Yield a leaf per document of the period, acts' documents included, in order; staged ones are left out.

    Its state and posting are no part of it: they go on changing.
    """
    table = tables.documents
    query = select(table).where(
        table.c.entity == scope.entity, table.c.accounting_period == scope.period, table.c.state != "STAGED"
    )
    with read(engine) as connection, engine.connect() as other:
        rows = connection.execution_options(yield_per=_ROWS_PER_READ).execute(query.order_by(table.c.booked_hour))
        # Databases order text in their own ways, so within an hour it is done here.
        for _, members in groupby(rows, key=lambda row: row.booked_hour):
            found = list(members)
            lines = _lines(other, [row.key for row in found])
            yield from sorted((_document(row, lines.get(row.key, [])) for row in found), key=lambda leaf: leaf.place)


def _document(row: Any, lines: list[Any]) -> Leaf:
    content = [
        *(getattr(row, name) for name in ("key", "digest", "customer", "contract", "currency", "booked_hour")),
        *(getattr(row, name) for name in ("accounting_period", "posting_date", "kind", "origin", "json")),
        exact_text(row.debit_total),
        exact_text(row.net),
        [[line.line, line.kind, line.account_role, line.side, exact_text(line.amount), line.json] for line in lines],
    ]
    total = exact_text(row.net) or "0"
    events = int(orjson.loads(row.json).get("events") or 0)
    return Leaf(row.booked_hour, row.customer, row.key, 1, events, total, _digest(content))


def _lines(connection: Connection, keys: list[str]) -> dict[str, list[Any]]:
    table = tables.document_lines
    found: dict[str, list[Any]] = {}
    for start in range(0, len(keys), _KEYS_PER_QUERY):
        query = select(table).where(table.c.document_key.in_(keys[start : start + _KEYS_PER_QUERY]))
        for row in connection.execute(query.order_by(table.c.document_key, table.c.line)):
            found.setdefault(row.document_key, []).append(row)
    return found


def posting_leaves(engine: Engine, scope: Scope) -> Iterator[Leaf]:
    """Yield a leaf per posting of the period, in order: its content, not what became of it in the ERP."""
    table = tables.postings
    query = select(table).where(table.c.entity == scope.entity, table.c.accounting_period == scope.period)
    with read(engine) as connection:
        rows = connection.execution_options(yield_per=_ROWS_PER_READ).execute(query.order_by(table.c.booked_hour))
        for _, members in groupby(rows, key=lambda row: row.booked_hour):
            yield from sorted(map(_posting, members), key=lambda leaf: leaf.place)


def _posting(row: Any) -> Leaf:
    names = ("key", "digest", "adapter", "currency", "accounting_period", "bucket", "booked_hour", "documents")
    content = [*(getattr(row, name) for name in names), row.kind, row.reverses, row.supersedes, row.json]
    with exact():
        debits = (Decimal(line["amount"]) for line in orjson.loads(row.json)["lines"] if line["side"] == "debit")
        total = exact_text(sum(debits, Decimal(0)))
    return Leaf(row.booked_hour, row.currency, row.key, row.documents, 0, total, _digest(content))


def _digest(content: list[Any]) -> str:
    return hashlib.sha256(orjson.dumps(content)).hexdigest()
