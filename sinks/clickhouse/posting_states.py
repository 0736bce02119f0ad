"""What became of each document in the ERP, for the document view. The poster alone writes it.

Guarantee: repeating a row replaces it; the larger version wins, so rows may come in any order.
Unit of parallelism: one poster. If it dies here, it writes the rows again at its next start.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import pyarrow as pa

from sinks.clickhouse.client import Client

_TIME: Final = pa.timestamp("ms", "UTC")


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
    rows = pa.table(
        {
            "key": pa.array([state.key for state in states], pa.string()),
            "posting_key": pa.array([state.posting_key for state in states], pa.string()),
            "state": pa.array([state.state for state in states], pa.string()),
            "reason": pa.array([state.reason for state in states], pa.string()),
            "erp_reference": pa.array([state.erp_reference for state in states], pa.string()),
            "changed_at": pa.array([state.changed_at for state in states], _TIME),
            "posted_at": pa.array([state.posted_at for state in states], _TIME),
            "version": pa.array([state.version for state in states], pa.uint64()),
        }
    )
    client.insert_arrow("posting_states", rows, {"async_insert": 0})
