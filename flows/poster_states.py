"""Tells ClickHouse the state of each document's posting, and documents of acts: copies for readers of the ledger's.

ClickHouse may be down for days: posting goes on, and what was not told is told later. A row replaces itself by
document key and version, so that telling it twice is harmless.
"""

from collections.abc import Sequence
from typing import Final, Protocol

import orjson
import structlog
from sqlalchemy import Engine, bindparam, func, select, update

from config.settings import ClickHouseSettings
from core.clock import Clock
from sinks.clickhouse.client import connect
from sinks.clickhouse.posting_states import PostingState, write_act_documents, write_posting_states
from sinks.ledger import documents, tables
from sinks.ledger.act_documents import ActDocument
from sinks.ledger.database import read, write
from sinks.ledger.times import to_datetime

log = structlog.get_logger()

POSTINGS_PER_RUN_MAX: Final = 200
ROWS_PER_INSERT_MAX: Final = 20_000
ACTS_PER_RUN_MAX: Final = 1_000
RETRY_S: Final = 10.0


class PostingStateWriter(Protocol):
    """Writes rows of `posting_states`; called by the poster alone."""

    def write(self, rows: Sequence[PostingState]) -> None:
        """Write rows; any exception means that they are written again later."""
        ...

    def write_documents(self, made: Sequence[ActDocument]) -> None:
        """Write documents of acts into `financial_documents`; the same rule."""
        ...


class ClickHouseStateWriter:
    """Writes the rows into ClickHouse, with one connection per call."""

    def __init__(self, settings: ClickHouseSettings) -> None:
        self._settings = settings

    def write(self, rows: Sequence[PostingState]) -> None:
        """Insert the rows."""
        with connect(self._settings) as client:
            write_posting_states(client, rows)

    def write_documents(self, made: Sequence[ActDocument]) -> None:
        """Insert the documents."""
        with connect(self._settings) as client:
            write_act_documents(client, made)


class StateFeed:
    """Finds what changed since it was last told, and tells it."""

    def __init__(self, engine: Engine, writer: PostingStateWriter | None, clock: Clock) -> None:
        self._engine = engine
        self._writer = writer
        self._clock = clock
        self._retry_at_s = 0.0
        self._failing = False

    def run(self) -> int:
        """Tell documents of acts, up to POSTINGS_PER_RUN_MAX postings and zero documents; return how many rows."""
        if self._writer is None or self._clock.monotonic_s() < self._retry_at_s:
            return 0
        try:
            written = self._tell_acts(self._writer)
            written += self._tell_postings(self._writer) + self._tell_zeros(self._writer)
        except Exception as error:
            # Whatever it is, it must not stop posting: the rows stay marked as not written.
            if not self._failing:
                log.warning("Posting states cannot be written to ClickHouse; trying again.", cause=str(error)[:500])
            self._failing = True
            self._retry_at_s = self._clock.monotonic_s() + RETRY_S
            return 0
        self._failing = False
        return written

    def waiting(self) -> int:
        """Return how many postings have a state that was not told yet."""
        changed = tables.postings.c.version_written < tables.postings.c.version
        with read(self._engine) as connection:
            return int(connection.execute(select(func.count()).where(changed)).scalar() or 0)

    def _tell_postings(self, writer: PostingStateWriter) -> int:
        table = tables.postings
        query = (
            select(table)
            .where(table.c.version_written < table.c.version)
            .order_by(table.c.changed_at_ms)
            .limit(POSTINGS_PER_RUN_MAX)
        )
        with read(self._engine) as connection:
            changed = connection.execute(query).all()
            members = select(tables.posting_documents).where(
                tables.posting_documents.c.posting_key.in_([row.key for row in changed])
            )
            by_posting = {row.key: row for row in changed}
            entries = tables.erp_entries
            query = select(entries.c.posting_key, func.min(entries.c.posted_at_ms)).group_by(entries.c.posting_key)
            found = connection.execute(query.where(entries.c.posting_key.in_(list(by_posting))))
            posted = {key: to_datetime(at_ms) for key, at_ms in found}
            rows = []
            for document_key, posting_key in connection.execute(members):
                row = by_posting[posting_key]
                at = to_datetime(row.changed_at_ms)
                posted_at = posted.get(posting_key)
                rows.append(
                    PostingState(
                        document_key, row.key, row.state, row.reason, row.erp_number, at, posted_at, row.version
                    )
                )
        if not changed:
            return 0
        self._write(writer, rows)
        told = update(table).where(table.c.key == bindparam("posting"), table.c.version_written < bindparam("told"))
        with write(self._engine) as connection:
            parameters = [{"posting": row.key, "told": row.version} for row in changed]
            connection.execute(told.values(version_written=bindparam("told")), parameters)
        return len(rows)

    def _tell_acts(self, writer: PostingStateWriter) -> int:
        table = tables.documents
        waiting = (table.c.origin == documents.ACT) & (table.c.state_written == 0)
        with read(self._engine) as connection:
            found = connection.execute(select(table.c.json).where(waiting).limit(ACTS_PER_RUN_MAX))
            made = [ActDocument(orjson.loads(text)) for text in found.scalars()]
        if not made:
            return 0
        writer.write_documents(made)
        self._mark_written([one.key for one in made])
        return len(made)

    def _mark_written(self, keys: Sequence[str]) -> None:
        table = tables.documents
        with write(self._engine) as connection:
            change = update(table).where(table.c.key == bindparam("document")).values(state_written=1)
            connection.execute(change, [{"document": key} for key in keys])

    def _tell_zeros(self, writer: PostingStateWriter) -> int:
        table = tables.documents
        waiting = (table.c.state == documents.NOT_POSTED_ZERO) & (table.c.state_written == 0)
        with read(self._engine) as connection:
            keys = list(connection.execute(select(table.c.key).where(waiting).limit(ROWS_PER_INSERT_MAX)).scalars())
        if not keys:
            return 0
        now = self._clock.now()
        self._write(writer, [PostingState(key, "", documents.NOT_POSTED_ZERO, "", "", now, None, 1) for key in keys])
        self._mark_written(keys)
        return len(keys)

    def _write(self, writer: PostingStateWriter, rows: list[PostingState]) -> None:
        for start in range(0, len(rows), ROWS_PER_INSERT_MAX):
            writer.write(rows[start : start + ROWS_PER_INSERT_MAX])
