"""What became of documents: their posting, its attempts and the ERP's numbers, from the ledger."""

from typing import Any, Final

from sqlalchemy import select

from queries.stores import Row, Stores
from sinks.ledger import tables
from sinks.ledger.database import read
from sinks.ledger.documents import ACT_KINDS
from sinks.ledger.times import to_datetime

_DOCUMENT_COLUMNS: Final = (
    "key, digest, entity, customer, contract, currency, booked_hour, accounting_period, kind, total"
)
"""`posting_state` is what the ledger says: the view that has it joins all states there are."""


def document_states(stores: Stores, rated: Row) -> list[Row]:
    """Return the documents that carry a rated row, with their postings."""
    if rated["status"] != "sealed":
        return []
    found = stores.rows(
        f"SELECT {_DOCUMENT_COLUMNS} FROM @financial_documents FINAL"  # noqa: S608
        f" WHERE kind NOT IN {ACT_KINDS}"  # they follow from other documents, not from rated rows
        " AND customer = {customer:String} AND contract = {contract:String} AND currency = {currency:String}"
        " AND booked_hour = {booked:DateTime} AND accounting_period = {period:String}",
        {
            "customer": rated["customer"],
            "contract": rated["contract"],
            "currency": rated["currency"],
            "booked": rated["booked_hour"],
            "period": rated["accounting_period"],
        },
    )
    became = [posting_of(stores, row["key"]) for row in found]
    return [row | own | {"posting_state": own["state"]} for row, own in zip(found, became, strict=True)]


def posting_of(stores: Stores, document_key: str) -> Row:
    """Return the document's own state and its posting with attempts and ERP numbers; empty parts if none yet."""
    documents, postings, attempts, entries = tables.documents, tables.postings, tables.attempts, tables.erp_entries
    with read(stores.engine) as connection:
        document = connection.execute(
            select(documents.c.state, documents.c.posting_key).where(documents.c.key == document_key)
        ).first()
        if document is None or not document.posting_key:
            return {"state": document.state if document else "NOT IN THE LEDGER", "posting": None}
        posting = connection.execute(select(postings).where(postings.c.key == document.posting_key)).one()
        tried = connection.execute(
            select(attempts).where(attempts.c.posting_key == posting.key).order_by(attempts.c.attempt)
        ).all()
        booked = connection.execute(select(entries).where(entries.c.posting_key == posting.key)).all()
    return {
        "state": posting.state,
        "posting": {
            "key": posting.key,
            "adapter": posting.adapter,
            "state": posting.state,
            "reason": posting.reason,
            "detail": posting.detail,
            "documents": posting.documents,
            "created_at": to_datetime(posting.created_at_ms),
            "changed_at": to_datetime(posting.changed_at_ms),
            "attempts": [_attempt(row) for row in tried],
            "erp_entries": [
                {"number": row.number, "reference": row.reference, "posted_at": to_datetime(row.posted_at_ms)}
                for row in booked
            ],
        },
    }


def _attempt(row: Any) -> Row:
    return {
        "attempt": row.attempt,
        "started_at": to_datetime(row.started_at_ms),
        "finished_at": None if row.finished_at_ms is None else to_datetime(row.finished_at_ms),
        "outcome": row.outcome,
        "detail": row.detail,
    }
