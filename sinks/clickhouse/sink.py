"""The engine's sink for one ClickHouse table: rows go to a writer thread, `snapshot()` waits for all of them.

Guarantee: an epoch commits only after its rows are in the table. What was written of an epoch that did not commit
is written again by its replay and replaces itself, since every row is keyed by its identity: effectively once
through the views `<table>_current`. If the process dies in `write_batch` or in `snapshot`, the epoch is replayed.
Unit of parallelism: one partition, with one thread and one connection, per table and worker that has rows.
"""

import threading
import zlib
from typing import Any, Final

from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition

from config.settings import Settings
from core import faults
from core.errors import InvalidRequest
from sinks.clickhouse.tables import TABLES, Item
from sinks.clickhouse.writer import TableWriter

STATE: dict[str, int] = {"version": 1}
"""The state of a partition: nothing is kept, what a table holds is in the table."""


PARTITIONS: Final = 8
"""Names of partitions per table: as many as there may be workers, whatever their number is now.

The engine keeps a state for each name and does not start where one has gone, as with fewer workers than before.
"""


class ClickHousePartition(StatefulSinkPartition[Item, dict[str, int]]):
    """One table in one worker."""

    def __init__(self, writer: TableWriter) -> None:
        self._writer = writer

    def write_batch(self, values: list[Item]) -> None:
        """Hand rows to the writer; waits while its queue is full.

        :raises StopRequested: asked to stop while ClickHouse does not answer.
        :raises FatalError: an insert failed for good.
        """
        self._writer.write(values)

    def snapshot(self) -> dict[str, int]:
        """Wait until all rows of the epoch are in the table; raises as `write_batch` does."""
        faults.reach("table.snapshot")
        self._writer.flush()
        faults.reach("table.flushed")
        return dict(STATE)

    def close(self) -> None:
        """End the writer; the last flush was in `snapshot`."""
        self._writer.close()


class ClickHouseSink(FixedPartitionedSink[Item, dict[str, int]]):
    """Sink for one table. Items are (key, frame) or, for `financial_documents`, (key, document).

    :param stop: when set, waiting for an absent server ends with StopRequested.
    :param partitions: how many get rows, one per worker; the engine deals them out to workers in turn.
    """

    def __init__(self, table: str, settings: Settings, stop: threading.Event, partitions: int) -> None:
        if table not in TABLES:
            message = f"there is no table {table}: known are {', '.join(TABLES)}"
            raise InvalidRequest(message)
        self._table = table
        self._settings = settings
        self._stop = stop
        self._partitions = partitions

    def list_parts(self) -> list[str]:
        """Return the names of all partitions, used or not."""
        return [f"{self._table}-{index:02d}" for index in range(max(PARTITIONS, self._partitions))]

    def part_fn(self, item_key: str) -> int:
        """Return the partition of a key; pinned, since the interpreter's own hash changes from run to run."""
        return zlib.crc32(item_key.encode()) % self._partitions

    def build_part(self, step_id: str, for_part: str, resume_state: Any | None) -> ClickHousePartition:
        """Return the partition; there is nothing to resume, a replay replaces what was written."""
        writer = TableWriter(
            TABLES[self._table],
            self._settings.clickhouse,
            self._settings.redis.streams,
            stop=self._stop,
            epoch_s=self._settings.flow.epoch_s,
        )
        return ClickHousePartition(writer)
