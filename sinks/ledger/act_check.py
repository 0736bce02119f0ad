"""Makes the documents of all acts again and compares: they must follow from the acts and the flow's documents alone."""

from collections.abc import Iterator
from typing import Any, Final

import orjson
from sqlalchemy import Connection, Engine, select

from sinks.ledger import acts, documents, tables
from sinks.ledger.act_documents import ActDocument, When, reversal_of
from sinks.ledger.adjustments import AdjustmentAct, adjustment_of
from sinks.ledger.database import read
from sinks.ledger.invoice_lines import InvoiceAct, invoice_of
from sinks.ledger.invoicing import counted, documents_of
from sinks.ledger.reversal import REASON_CODE

_DOCUMENTS = tables.documents
_INVOICE_EXTRA: Final = ("posting", "document", "after")


def stored_and_made(engine: Engine) -> tuple[dict[str, str], dict[str, str]]:
    """Return the digests by key of the act documents in the ledger, and of those made again from the acts."""
    with read(engine) as connection:
        query = select(_DOCUMENTS.c.key, _DOCUMENTS.c.digest).where(_DOCUMENTS.c.origin == documents.ACT)
        stored = {row.key: row.digest for row in connection.execute(query)}
        made = {one.key: one.digest for one in _made(connection)}
    return stored, made


def _made(connection: Connection) -> Iterator[ActDocument]:
    for act in acts.of_kind(connection, acts.REVERSAL):
        when = When(act.booked_hour, act.content["accounting_period"], act.content["posting_date"])
        for original in _load(connection, act.content["of"]):
            yield reversal_of(original, when, REASON_CODE)
    for act in acts.of_kind(connection, acts.INVOICE):
        parameters = InvoiceAct(**{name: value for name, value in act.content.items() if name not in _INVOICE_EXTRA})
        known = [*_flow(connection, parameters), *_load(connection, act.content["after"])]
        again = invoice_of(parameters, known, counted(connection, parameters))
        if again is not None:
            yield again
    for act in acts.of_kind(connection, acts.ADJUSTMENT):
        edited = AdjustmentAct(**act.content)
        adjusted = adjustment_of(edited, _load(connection, list(edited.documents)))
        if adjusted is not None:
            yield adjusted


def _load(connection: Connection, keys: list[str]) -> list[dict[str, Any]]:
    query = select(_DOCUMENTS.c.json).where(_DOCUMENTS.c.key.in_(keys)).order_by(_DOCUMENTS.c.key)
    return [orjson.loads(text) for text in connection.execute(query).scalars()]


def _flow(connection: Connection, act: InvoiceAct) -> list[dict[str, Any]]:
    """Return the flow's documents that were complete at the cut-off: later ones make no difference."""
    found = documents_of(connection, act)
    return [one for one in found if one["kind"] not in documents.ACT_KINDS and one["booked_hour"] < act.cutoff_hour]
