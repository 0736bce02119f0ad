"""Documents as the control reports read them: their lines, their place in the books, and whether the ERP has them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import Connection, FromClause, Join, and_, outerjoin, select

from sinks.ledger import documents, tables
from sinks.ledger.postings import BOOKED

_DOCUMENTS, _POSTINGS, _ENTRIES = tables.documents, tables.postings, tables.erp_entries


@dataclass(frozen=True, slots=True)
class Booked:
    """One document of the subledger with its lines."""

    entity: str
    customer: str
    currency: str
    period: str
    booked_hour: int
    kind: str
    lines: list[dict[str, Any]]
    posting: str
    """Key of its posting, or empty."""
    in_erp: bool
    """Whether the ERP's balances have it: a draft is in none."""

    @property
    def place(self) -> tuple[str, str, str]:
        """Return whose it is: entity, customer, currency."""
        return self.entity, self.customer, self.currency


def with_entry(joined: FromClause) -> Join:
    """Join to postings the entry that each is in the ERP's books by."""
    entry, posting = _ENTRIES.c, _POSTINGS.c
    same = and_(entry.adapter == posting.adapter, entry.posting_key == posting.key, entry.number == posting.erp_number)
    return outerjoin(joined, _ENTRIES, same)


def booked_documents(
    connection: Connection, entity: str = "", customer: str = "", *, by_posting: bool = False
) -> Iterator[Booked]:
    """Yield every document that counts, in order of the booked hour, or of the posting."""
    table = _DOCUMENTS.c
    joined = with_entry(_DOCUMENTS.outerjoin(_POSTINGS, _POSTINGS.c.key == table.posting_key))
    query = (
        select(table.entity, table.customer, table.currency, table.accounting_period, table.booked_hour, table.kind,
               table.json, table.posting_key, _POSTINGS.c.state, _ENTRIES.c.draft)
        .select_from(joined)
        .where(table.state.in_((documents.PENDING, documents.IN_POSTING)))
        .order_by(table.posting_key if by_posting else table.booked_hour, table.key)
    )  # fmt: skip
    if entity:
        query = query.where(table.entity == entity)
    if customer:
        query = query.where(table.customer == customer)
    for row in connection.execute(query.execution_options(yield_per=1_000)):
        yield Booked(
            row.entity, row.customer, row.currency, row.accounting_period, row.booked_hour, row.kind,
            orjson.loads(row.json)["lines"], row.posting_key or "", row.state in BOOKED and not row.draft,
        )  # fmt: skip
