"""Which item goes to which shard or table: small functions from a list of items to keyed items.

Markers take the same way as the data and leave in the same list behind it: nothing on that path branches,
merges or redistributes, so a marker never overtakes what it speaks for.
"""

from collections.abc import Callable, Iterable
from typing import Any

import polars as pl

from config.revision import History
from core.shard_keys import CUSTOMER_KEYS, ID_KEYS, TENANT_KEYS
from flows.keyed import Routed
from operators.decode import Decoder
from operators.document import Document, documents
from operators.items import (
    Accepted,
    Counts,
    Exceptions,
    Facts,
    Marker,
    Partials,
    RatedRows,
    RawBatch,
    Rejects,
)
from operators.rate import customer_shards

Batch = Callable[[list[Any]], Iterable[Any]]

MS_PER_HOUR = 3_600_000


def _broadcast(keys: tuple[str, ...], shards: int, item: Any) -> list[Routed]:
    return [(keys[shard], (shard, item)) for shard in range(shards)]


def decode_to_id_shards(decoder: Decoder, id_shards: int) -> Batch:
    """Decode raw batches and send each shard its part; markers go to all."""

    def run(items: list[RawBatch | Marker]) -> list[Routed]:
        out: list[Routed] = []
        for item in items:
            if isinstance(item, Marker):
                out.extend(_broadcast(ID_KEYS, id_shards, item))
            else:
                out.extend((ID_KEYS[shard], (shard, batch)) for shard, batch in decoder.decode(item))
        return out

    return run


def to_tenant_shards(tenant_shards: int) -> Batch:
    """Send partial sums to their tenant shard; markers go to all."""

    def run(items: list[tuple[str, Any]]) -> list[Routed]:
        out: list[Routed] = []
        for _, item in items:
            if isinstance(item, Partials):
                out.append((TENANT_KEYS[item.tenant_shard], (item.tenant_shard, item)))
            elif isinstance(item, Marker):
                out.extend(_broadcast(TENANT_KEYS, tenant_shards, item))
        return out

    return run


def to_customer_shards(history: History, shards: int) -> Batch:
    """Send facts to the shard of their customer, as known at the booked hour; markers go to all."""

    def run(items: list[tuple[str, Any]]) -> list[Routed]:
        out: list[Routed] = []
        for _, item in items:
            if isinstance(item, Facts):
                for revision_ms, frame in _by_revision(item.frame, history):
                    parts = customer_shards(frame, history.at(revision_ms), shards)
                    out.extend((CUSTOMER_KEYS[shard], (shard, Facts(part))) for shard, part in parts)
            elif isinstance(item, Marker):
                out.extend(_broadcast(CUSTOMER_KEYS, shards, item))
        return out

    return run


def _by_revision(facts: pl.DataFrame, history: History) -> list[tuple[int, pl.DataFrame]]:
    """Split facts where the revision known at their booked hour changes; one part in the usual case."""
    if len(history.revisions) == 1 or facts.is_empty():
        return [(0, facts)]
    hours = facts.get_column("booked_minute") // 60
    known_from: dict[int, list[int]] = {}
    for hour in hours.unique().to_list():
        known_from.setdefault(history.at(hour * MS_PER_HOUR).known_from_ms, []).append(hour)
    return [(start_ms, facts.filter(hours.is_in(part))) for start_ms, part in sorted(known_from.items())]


def to_documents(history: History) -> Batch:
    """Make the documents of sealed hours; each rate shard's marker follows its documents."""

    def run(items: list[tuple[str, Any]]) -> list[tuple[str, Document | Marker]]:
        out: list[tuple[str, Document | Marker]] = []
        for _, item in items:
            if isinstance(item, RatedRows) and item.watermark_ms:
                out.extend(("outbox", document) for document in documents(item.frame, history))
            elif isinstance(item, Marker):
                out.append(("outbox", item))
        return out

    return run


_TABLE_OF = {
    Accepted: "usage_events",
    Rejects: "usage_rejects",
    Counts: "intake_counts",
    Facts: "usage_facts",
    RatedRows: "rated_usage",
    Exceptions: "exceptions",
}


def to_table(table: str) -> Batch:
    """Pick the frames of one table, keyed by the shard that made them."""
    kind: Any = next(kind for kind, name in _TABLE_OF.items() if name == table)

    def run(items: list[tuple[str, Any]]) -> list[tuple[str, pl.DataFrame]]:
        return [(key, item.frame) for key, item in items if isinstance(item, kind) and len(item.frame)]

    return run


def to_document_table(items: list[tuple[str, Any]]) -> list[tuple[str, Document]]:
    """Pick the documents for `financial_documents`."""
    return [(item.key, item) for _, item in items if isinstance(item, Document)]
