"""Writes one table from a thread of its own, so that inserts run beside the epoch's work.

Guarantee: after `flush` returned, everything handed over before is in the table. An insert whose outcome is
unknown is repeated; rows carry their identity, so a repeated one replaces itself. If the process dies, what was
not flushed belongs to an epoch that was not committed and is written again by its replay.
Unit of parallelism: one thread and one connection per table and worker.
"""

import random
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Final

import pyarrow as pa
import structlog

from config.settings import ClickHouseSettings
from core import faults
from core.errors import RetryableError, StopRequested
from core.logging import without_password
from core.metrics import FLUSH_RATIO, QUEUE_RATIO, SINK_RETRIES, SINK_ROWS, SINK_SECONDS, WAITING_SINCE
from sinks.clickhouse.client import Client, connect
from sinks.clickhouse.tables import Item, TableSpec, rows_in, size_bytes

POLL_S: Final = 0.1
STOP_S_MAX: Final = 5.0
"""How long a flush goes on after the stop flag while the server answers; without an answer it ends at once."""
BACKOFF_S_MIN: Final = 0.1
BACKOFF_S_MAX: Final = 5.0

INSERT_SETTINGS: Final[dict[str, int]] = {
    "async_insert": 0,  # the answer means that the rows are there
    "insert_deduplicate": 0,  # rows replace by identity; a block must never be dropped for looking known
    "input_format_null_as_default": 0,  # a null where none belongs is a defect, not a default
    "input_format_arrow_allow_missing_columns": 0,
    "max_partitions_per_insert_block": 1000,  # history spans many months
}

log = structlog.get_logger()


class _Waiting:
    """Keeps the metric of how long writers have been waiting for the server; the first to wait sets it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since_s: dict[int, float] = {}

    def begin(self, writer: int) -> None:
        with self._lock:
            self._since_s.setdefault(writer, time.time())
            WAITING_SINCE.labels("clickhouse").set(min(self._since_s.values()))

    def end(self, writer: int) -> None:
        with self._lock:
            self._since_s.pop(writer, None)
            WAITING_SINCE.labels("clickhouse").set(min(self._since_s.values(), default=0))


_WAITING: Final = _Waiting()
_WRITERS: Final["weakref.WeakSet[TableWriter]"] = weakref.WeakSet()


class TableWriter:
    """A bounded queue in front of one table. `write` and `flush` are called by one worker thread.

    Errors that no waiting can cure are raised by the next `write` or `flush`.
    """

    def __init__(
        self,
        spec: TableSpec,
        settings: ClickHouseSettings,
        streams: tuple[str, ...],
        *,
        stop: threading.Event,
        epoch_s: float,
        connector: Callable[[ClickHouseSettings], Client] = connect,
    ) -> None:
        self._spec = spec
        self._settings = settings
        self._streams = streams
        self._stop = stop
        self._epoch_s = epoch_s
        self._connector = connector
        self._client: Client | None = None
        self._changed = threading.Condition()
        self._queue: deque[tuple[Item, int, int]] = deque()
        self._queued_rows = 0
        self._queued_bytes = 0
        self._taken_bytes = 0
        self._taken = 0
        self._flush_wanted = False
        self._waiting = False
        self._closed = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"write-{spec.name}", daemon=True)
        self._insert_bytes = min(settings.insert_bytes_max, settings.queue_bytes_max // 2)
        SINK_RETRIES.labels(spec.name)  # from 0, so that the first one shows as an increase
        self._queue_ratio = QUEUE_RATIO.labels(spec.name)
        _WRITERS.add(self)

    # --- called by the worker ----------------------------------------------------------------------------

    def write(self, items: list[Item]) -> None:
        """Hand items over; waits while the queue is full.

        :raises StopRequested: the stop flag was set while waiting for room.
        :raises FatalError: an earlier insert failed for good.
        """
        for item in items:
            for part in self._parts(self._spec.trim(item)):
                self._put(part)

    def flush(self) -> None:
        """Wait until everything handed over is in the table.

        :raises StopRequested: the stop flag is set and the server does not answer; the epoch is replayed.
        :raises FatalError: an insert failed for good.
        """
        began_s = time.monotonic()
        for writer in list(_WRITERS):
            writer._want_flush()  # the other tables write while this one waits
        with self._changed:
            self._wait(lambda: not self._queue and not self._taken)
        FLUSH_RATIO.labels(self._spec.name).set((time.monotonic() - began_s) / self._epoch_s)

    def close(self) -> None:
        """End the thread. What was not flushed is dropped; its epoch is not committed."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout=POLL_S * 2)

    # --- inside ------------------------------------------------------------------------------------------

    def _parts(self, item: Item) -> list[Item]:
        rows, size = rows_in(item), size_bytes(item)
        rows_max = min(self._settings.insert_rows_max, max(1, rows * self._insert_bytes // size))
        if rows <= rows_max:
            return [item] if rows else []
        return [item.slice(start, rows_max) for start in range(0, rows, rows_max)]

    def _put(self, item: Item) -> None:
        size = size_bytes(item)
        with self._changed:
            if not self._thread.is_alive() and self._error is None and not self._closed:
                self._thread.start()
            self._wait(lambda: self._has_room(size))
            self._queue.append((item, rows_in(item), size))
            self._queued_rows += rows_in(item)
            self._queued_bytes += size
            self._tell_queue()
            if self._due():
                self._changed.notify_all()

    def _has_room(self, size: int) -> bool:
        held = self._queued_bytes + self._taken_bytes
        if held == 0 or held + size <= self._settings.queue_bytes_max:
            return True
        self._flush_wanted = bool(self._queue)
        self._changed.notify_all()
        return False

    def _tell_queue(self) -> None:
        self._queue_ratio.set((self._queued_bytes + self._taken_bytes) / self._settings.queue_bytes_max)

    def _want_flush(self) -> None:
        with self._changed:
            if self._queue:
                self._flush_wanted = True
                self._changed.notify_all()

    def _wait(self, reached: Callable[[], bool]) -> None:
        """Wait with the lock held; raise what the thread raised, and end when asked to stop in an outage."""
        stop_seen_s: float | None = None
        while True:
            if self._error is not None:
                raise self._error
            if reached():
                return
            if self._stop.is_set():
                stop_seen_s = stop_seen_s or time.monotonic()
                if self._waiting or time.monotonic() - stop_seen_s > STOP_S_MAX:
                    raise self._stopped()
            self._changed.wait(POLL_S)

    def _stopped(self) -> StopRequested:
        return StopRequested(
            f"stopped while waiting for ClickHouse at {without_password(self._settings.url)} to take "
            f"{self._spec.name}; the epoch is replayed at the next start"
        )

    def _due(self) -> bool:
        return bool(self._queue) and (
            self._flush_wanted
            or self._queued_rows >= self._settings.insert_rows_max
            or self._queued_bytes >= self._insert_bytes
        )

    def _take(self) -> list[Item]:
        """Take items for one insert, within its limits; at least one."""
        items: list[Item] = []
        rows = size = 0
        while self._queue:
            item, item_rows, item_bytes = self._queue[0]
            full = rows + item_rows > self._settings.insert_rows_max or size + item_bytes > self._insert_bytes
            if items and full:
                break
            self._queue.popleft()
            items.append(item)
            rows += item_rows
            size += item_bytes
        self._queued_rows -= rows
        self._queued_bytes -= size
        self._taken_bytes, self._taken = size, len(items)
        if not self._queue:
            self._flush_wanted = False
        return items

    def _run(self) -> None:
        try:
            while True:
                with self._changed:
                    while not self._due() and not self._closed:
                        self._changed.wait()
                    if self._closed:
                        return
                    items = self._take()
                self._insert(self._spec.convert(items, self._streams))
                del items
                with self._changed:
                    self._taken_bytes = self._taken = 0
                    self._tell_queue()
                    self._changed.notify_all()
        except BaseException as error:  # handed to the worker, which raises it
            with self._changed:
                self._error = error
                self._changed.notify_all()
        finally:
            _WAITING.end(id(self))
            self._disconnect()

    def _insert(self, rows: pa.Table) -> None:
        """Insert, and repeat for ever what waiting can cure.

        :raises StopRequested: the stop flag was set, or the writer closed, while the server did not answer.
        :raises FatalError: the insert can never succeed as it is.
        """
        backoff_s = BACKOFF_S_MIN
        while True:
            began_s = time.monotonic()
            try:
                self._insert_once(rows)
            except RetryableError as error:
                self._disconnect()
                SINK_RETRIES.labels(self._spec.name).inc()
                if not self._waiting:
                    log.warning("ClickHouse did not take rows; repeating until it does.", error=str(error))
                self._set_waiting(waiting=True)
                pause_s = backoff_s * (0.5 + random.random() / 2)  # noqa: S311  # spreads repeats, nothing stored
                if self._stop.wait(pause_s) or self._closed:
                    raise self._stopped() from error
                backoff_s = min(backoff_s * 2, BACKOFF_S_MAX)
                continue
            if self._waiting:
                log.info("ClickHouse takes rows again.", table=self._spec.name)
            self._set_waiting(waiting=False)
            SINK_SECONDS.labels(self._spec.name).observe(time.monotonic() - began_s)
            SINK_ROWS.labels(self._spec.name).inc(rows.num_rows)
            return

    def _insert_once(self, rows: pa.Table) -> None:
        if self._client is None:
            self._client = self._connector(self._settings)
        client = self._client
        wanted = {**INSERT_SETTINGS, **self._spec.insert_settings}
        known = {name: value for name, value in wanted.items() if client.knows_setting(name)}
        faults.reach("table.insert")
        client.insert_arrow(self._spec.name, rows, known)
        faults.reach("table.inserted")

    def _set_waiting(self, *, waiting: bool) -> None:
        with self._changed:
            if waiting == self._waiting:
                return
            self._waiting = waiting
            self._changed.notify_all()
        (_WAITING.begin if waiting else _WAITING.end)(id(self))

    def _disconnect(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()
