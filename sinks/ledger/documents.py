"""Documents in the outbox: staged with an epoch, promoted once it is durable, then grouped into postings.

A document's own states: STAGED (its epoch may still be replayed), PENDING (may be grouped), IN_POSTING (the
posting's state tells the rest) and NOT_POSTED_ZERO (all amounts zero: kept so that quantities tie).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, Protocol

import orjson
from sqlalchemy import Connection, Engine, Text, delete, func, insert, select, type_coerce, update

from sinks.ledger import tables
from sinks.ledger.amounts import exact
from sinks.ledger.approval_policy import net
from sinks.ledger.database import read

STAGED: Final = "STAGED"
PENDING: Final = "PENDING"
IN_POSTING: Final = "IN_POSTING"
NOT_POSTED_ZERO: Final = "NOT_POSTED_ZERO"

FLOW: Final = "flow"
"""Origin of documents the metering flow made: a replay of the streams makes them again."""
ACT: Final = "act"
"""Origin of documents that follow from a recorded act: a reversal, an invoice run, an edited draft."""
ACT_KINDS: Final = ("reversal", "invoice", "credit_note", "adjustment")
"""Kinds of such documents: what is in them is in other documents already, not in rated rows."""

_TABLE = tables.documents
_KEYS_PER_QUERY: Final = 500


class LedgerDocument(Protocol):
    """What the ledger needs of a document (`operators.document.Document` is one)."""

    @property
    def key(self) -> str: ...  # noqa: D102
    @property
    def digest(self) -> str: ...  # noqa: D102
    @property
    def entity(self) -> str: ...  # noqa: D102
    @property
    def customer(self) -> str: ...  # noqa: D102
    @property
    def contract(self) -> str: ...  # noqa: D102
    @property
    def currency(self) -> str: ...  # noqa: D102
    @property
    def booked_hour(self) -> int: ...  # noqa: D102
    @property
    def accounting_period(self) -> str: ...  # noqa: D102
    @property
    def kind(self) -> str: ...  # noqa: D102
    def to_json(self) -> bytes | str: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Refused:
    """A document that must not be stored: `kind` is `digest_conflict` or `hour_already_posted`."""

    key: str
    kind: str
    detail: str


def stage(connection: Connection, documents: Sequence[LedgerDocument], sequence: int) -> list[Refused]:
    """Insert documents as STAGED; those already there with the same digest are left as they are.

    If any is refused nothing is inserted: the caller records the refusals and stops.
    """
    fresh: dict[str, LedgerDocument] = {}
    refused: list[Refused] = []
    known = _digests(connection, [document.key for document in documents])
    for document in documents:
        digest, came = known.get(document.key), document.digest
        if digest is None:
            known[document.key] = came
            fresh[document.key] = document
        elif digest != came:
            detail = f"stored with digest {digest}, came again with digest {came}"
            refused.append(Refused(document.key, "digest_conflict", detail))
    rows: list[dict[str, Any]] = []
    lines: list[dict[str, Any]] = []
    for document in fresh.values():
        text = _text(document)
        plain = orjson.loads(text)
        rows.append(_row(document, known[document.key], text, plain, sequence))
        lines.extend(_line_rows(document.key, plain["lines"]))
    refused.extend(_late(connection, rows))
    if refused or not rows:
        return refused
    connection.execute(insert(_TABLE), rows)
    if lines:
        connection.execute(insert(tables.document_lines), lines)
    return []


def insert_acts(connection: Connection, made: Sequence[LedgerDocument]) -> None:
    """Insert documents that follow from an act, in its transaction; the caller puts them into a posting."""
    for document in made:
        text = _text(document)
        plain = orjson.loads(text)
        row = _row(document, document.digest, text, plain, 0) | {"origin": ACT, "state": PENDING}
        connection.execute(insert(_TABLE).values(row))
        connection.execute(insert(tables.document_lines), list(_line_rows(document.key, plain["lines"])))


def _digests(connection: Connection, keys: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for start in range(0, len(keys), _KEYS_PER_QUERY):
        part = keys[start : start + _KEYS_PER_QUERY]
        query = select(_TABLE.c.key, _TABLE.c.digest).where(_TABLE.c.key.in_(part))
        found.update((key, digest) for key, digest in connection.execute(query))
    return found


def _late(connection: Connection, rows: list[dict[str, Any]]) -> list[Refused]:
    """Find new documents of an hour that was already grouped: sealed hours never change."""
    groups = {(row["entity"], row["booked_hour"], row["currency"], row["accounting_period"]) for row in rows}
    closed = set()
    for entity, hour, currency, period in groups:
        query = select(_TABLE.c.key).where(
            _TABLE.c.entity == entity,
            _TABLE.c.booked_hour == hour,
            _TABLE.c.currency == currency,
            _TABLE.c.accounting_period == period,
            _TABLE.c.state == IN_POSTING,
            _TABLE.c.origin == FLOW,
        )
        if connection.execute(query.limit(1)).first() is not None:
            closed.add((entity, hour, currency, period))
    return [
        Refused(row["key"], "hour_already_posted", f"booked hour {row['booked_hour']} of {row['entity']} has postings")
        for row in rows
        if (row["entity"], row["booked_hour"], row["currency"], row["accounting_period"]) in closed
    ]


def _row(document: LedgerDocument, digest: str, text: str, plain: dict[str, Any], sequence: int) -> dict[str, Any]:
    with exact():
        debit = sum((Decimal(line["amount"]) for line in plain["lines"] if line["side"] == "debit"), Decimal(0))
        charged = net(plain["lines"])
    return {
        "key": document.key,
        "digest": digest,
        "entity": document.entity,
        "customer": document.customer,
        "contract": document.contract,
        "currency": document.currency,
        "booked_hour": document.booked_hour,
        "accounting_period": document.accounting_period,
        "posting_date": plain.get("posting_date") or "",
        "kind": document.kind,
        "debit_total": debit,
        "json": text,
        "state": STAGED,
        "staged_sequence": sequence,
        "origin": FLOW,
        "net": charged,
    }


def _text(document: LedgerDocument) -> str:
    encoded = document.to_json()
    return encoded.decode() if isinstance(encoded, bytes) else encoded


def _line_rows(key: str, lines: list[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    for number, line in enumerate(lines):
        yield {
            "document_key": key,
            "line": number,
            "kind": line["kind"],
            "account_role": line["account_role"],
            "side": line["side"],
            "amount": Decimal(line["amount"]),
            "charge": line.get("charge") or "",
            "json": orjson.dumps(line, option=orjson.OPT_SORT_KEYS).decode(),
        }


def promote(connection: Connection, sequence: int | None) -> int:
    """Make STAGED documents up to that sequence (None: all) ready, and return how many became PENDING.

    A document in which every amount is zero becomes NOT_POSTED_ZERO.
    """
    due = _TABLE.c.state == STAGED
    if sequence is not None:
        due = due & (_TABLE.c.staged_sequence <= sequence)
    lines = tables.document_lines
    nonzero = select(lines.c.document_key).where(
        lines.c.document_key == _TABLE.c.key, _nonzero(connection, lines.c.amount)
    )
    pending = connection.execute(update(_TABLE).where(due, nonzero.exists()).values(state=PENDING))
    connection.execute(update(_TABLE).where(due).values(state=NOT_POSTED_ZERO))
    return int(pending.rowcount)


def _nonzero(connection: Connection, amount: Any) -> Any:
    """Tell zero from nonzero exactly: where amounts are text, a nonzero one has a digit 1 to 9."""
    if connection.dialect.name == "sqlite":
        return type_coerce(amount, Text()).op("GLOB")("*[1-9]*")
    return amount != Decimal(0)


def discard(connection: Connection, sequence: int) -> int:
    """Delete STAGED documents after that sequence: their epoch is replayed. Return how many."""
    gone = delete(_TABLE).where(_TABLE.c.state == STAGED, _TABLE.c.staged_sequence > sequence)
    return int(connection.execute(gone).rowcount)


def digests_before(engine: Engine, hour: int) -> dict[str, str]:
    """Return the digest by key of every promoted document of the flow booked before that hour (since the epoch)."""
    query = select(_TABLE.c.key, _TABLE.c.digest).where(
        _TABLE.c.booked_hour < hour, _TABLE.c.state != STAGED, _TABLE.c.origin == FLOW
    )
    with read(engine) as connection:
        return {row.key: row.digest for row in connection.execute(query)}


def load(engine: Engine, key: str) -> dict[str, Any] | None:
    """Return one document's JSON as plain values, or None."""
    with read(engine) as connection:
        text = connection.execute(select(_TABLE.c.json).where(_TABLE.c.key == key)).scalar()
    return None if text is None else dict(orjson.loads(text))


def count_by_state(engine: Engine) -> dict[str, int]:
    """Return how many documents are in each state; for grouped ones it is their posting's state."""
    state = func.coalesce(tables.postings.c.state, _TABLE.c.state)
    joined = _TABLE.outerjoin(tables.postings, tables.postings.c.key == _TABLE.c.posting_key)
    with read(engine) as connection:
        rows = connection.execute(select(state, func.count()).select_from(joined).group_by(state))
        return {row[0]: row[1] for row in rows}


def net_totals(engine: Engine) -> dict[str, Decimal]:
    """Return per currency the revenue of the flow's promoted documents: debits less credits of all other lines."""
    lines = tables.document_lines
    query = (
        select(_TABLE.c.currency, lines.c.side, lines.c.amount)
        .join(_TABLE, _TABLE.c.key == lines.c.document_key)
        .where(
            _TABLE.c.state != STAGED,
            _TABLE.c.origin == FLOW,
            ~lines.c.account_role.endswith("_revenue", autoescape=True),
        )
    )
    totals: dict[str, Decimal] = {}
    with read(engine) as connection, exact():
        for currency, side, amount in connection.execution_options(yield_per=10_000).execute(query):
            totals[currency] = totals.get(currency, Decimal(0)) + (amount if side == "debit" else -amount)
    return totals
