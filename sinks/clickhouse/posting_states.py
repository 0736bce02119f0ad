"""What became of each document in the ERP, and the documents of acts, for the document view. The poster writes them.

Guarantee: repeating a row replaces it; the larger version wins, so rows may come in any order.
Unit of parallelism: one poster. If it dies here, it writes the rows again at its next start.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Final

import polars as pl

from sinks.clickhouse.client import Client
from sinks.clickhouse.tables import TABLES, StoredDocument

_SCHEMA: Final[dict[str, pl.DataType | type[pl.DataType]]] = {
    **dict.fromkeys(("key", "posting_key", "state", "reason", "erp_reference"), pl.String),
    "changed_at": pl.Datetime("ms", "UTC"),
    "posted_at": pl.Datetime("ms", "UTC"),
    "version": pl.UInt64,
}


@dataclass(frozen=True, slots=True)
class PostingState:
    """The state of one document. Times are aware UTC; `version` grows with every change."""

    key: str
    posting_key: str
    state: str
    reason: str
    erp_reference: str
    changed_at: datetime
    posted_at: datetime | None
    version: int


def write_posting_states(client: Client, states: Sequence[PostingState]) -> None:
    """Write the states of documents. Raises RetryableError or FatalError as the client does."""
    if not states:
        return
    frame = pl.DataFrame([asdict(state) for state in states], schema=_SCHEMA)
    client.insert_arrow("posting_states", frame.to_arrow(), {"async_insert": 0})


def write_act_documents(client: Client, made: Sequence[StoredDocument]) -> None:
    """Write documents that follow from acts: reversals, invoices, adjustments. The flow writes all others."""
    if made:
        client.insert_arrow("financial_documents", TABLES["financial_documents"].convert(made, ()), {"async_insert": 0})
