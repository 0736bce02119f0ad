"""The outbox: documents enter the ledger with the epoch that made them, and are delivered only once it is durable.

What happens if the process dies, step by step:
 1. in `write_batch`, documents in memory or inserted early as STAGED: the epoch is replayed; on resume STAGED rows
    after the snapshot's sequence number are deleted.
 2. in `snapshot`, before or after its transaction commits: the same, the sequence number was not made durable.
 3. after the epoch is durable, before the next `write_batch`: rows stay STAGED; `build_part` promotes them.
 4. after the promotion: a replay from an older snapshot finds every key with the same digest, and changes nothing.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import structlog
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from sqlalchemy import Connection, Engine

from config.settings import Settings
from core import faults, metrics
from core.errors import InvariantViolation, StateMismatch, StopRequested
from operators.items import Marker
from sinks.ledger import database, documents, exceptions, flow_fence, progress
from sinks.ledger.documents import LedgerDocument
from sinks.ledger.progress import Progress

log = structlog.get_logger()

PARTITION: Final = "outbox"
FORMAT: Final = 1
BUFFER_DOCUMENTS_MAX: Final = 5_000
"""Documents held in memory; more are inserted early as STAGED, which is harmless."""
RETRY_S_MAX: Final = 5.0
STOP_POLL_S: Final = 0.1

T = TypeVar("T")


def promote_all(engine: Engine, fence: int | None = None) -> int:
    """Promote every staged document after a clean end, when the last epoch is durable. Return how many.

    :raises LockHeld: another flow was started on this ledger since that number was taken.
    """
    with database.write(engine) as connection:
        if fence is not None:
            flow_fence.check(connection, fence)
        return _promote(connection, None)


def take_back(engine: Engine) -> int:
    """Delete every staged document, since the state that calls its epoch durable is given up. Return how many.

    A flow that has that state all the same, on another host, ends at its next transaction.
    """
    with database.write(engine) as connection:
        flow_fence.take(connection)
        progress.forget(connection, progress.STAGED)
        return documents.discard(connection, 0)


def high_water_ms(engine: Engine) -> int:
    """Return the highest watermark ever staged: a stream that ends below it went backward."""
    return progress.high_water_ms(engine)


def _promote(connection: Any, sequence: int | None) -> int:
    count = documents.promote(connection, sequence)
    staged = progress.get(connection, progress.STAGED)
    if staged.sequence and (sequence is None or staged.sequence <= sequence):
        promoted = progress.get(connection, progress.PROMOTED)
        watermark_ms = max(staged.watermark_ms, promoted.watermark_ms)  # never back: a replay from an old snapshot
        progress.put(connection, progress.PROMOTED, Progress(staged.sequence, watermark_ms, staged.senders))
        progress.forget(connection, progress.STAGED)
        metrics.WATERMARK.labels("durable").set(watermark_ms / 1000)
    return count


class OutboxPartition(StatefulSinkPartition[Any, dict[str, Any]]):
    """The one partition: buffers an epoch's documents and hands them to the ledger in `snapshot`."""

    def __init__(
        self,
        engine: Engine,
        senders: Sequence[str],
        stop: threading.Event,
        resume_state: dict[str, Any] | None,
    ) -> None:
        self._engine = engine
        self._stop = stop
        self.fence = 0
        if resume_state is not None and resume_state["format"] != FORMAT:
            message = f"the outbox snapshot has format {resume_state['format']}, this version reads {FORMAT}"
            raise InvariantViolation(message)
        if resume_state is None:
            self._retrying(self._refuse_to_begin_again)
        state = resume_state or {"sequence": 0, "watermarks": {}}
        self._sequence: int = state["sequence"]
        self._watermarks: dict[str, int] = {sender: state["watermarks"].get(sender, 0) for sender in senders}
        self._buffer: list[LedgerDocument] = []
        self._dirty = False
        self._unpromoted = False
        self._retrying(self._resume)

    def _refuse_to_begin_again(self) -> None:
        """Refuse an empty state where books exist: counting would begin again at whatever the streams still hold."""
        with database.read(self._engine) as connection:
            promoted = progress.get(connection, progress.PROMOTED)
        if promoted.sequence:
            until = datetime.fromtimestamp(promoted.watermark_ms / 1000, UTC)
            message = (
                f"the ledger has books up to {until:%Y-%m-%d %H:%M:%S} UTC, but the recovery directory has no state: it"
                " was lost, or this is another state directory (METERBRIDGE_STATE_DIR). Restore recovery, dedupe and"
                " unique together from one backup, or make them again from the events with `meterbridge rebuild`"
            )
            raise StateMismatch(message)

    def _resume(self) -> None:
        with database.write(self._engine) as connection:
            self.fence = flow_fence.take(connection)
            gone = documents.discard(connection, self._sequence)
            if progress.get(connection, progress.STAGED).sequence > self._sequence:
                progress.forget(connection, progress.STAGED)
            _promote(connection, self._sequence)
            self._refuse_an_older_ledger(progress.get(connection, progress.PROMOTED).watermark_ms)
        if gone:
            log.info("Documents of an epoch that did not end are taken back; they will be made again.", documents=gone)

    def _refuse_an_older_ledger(self, promoted_ms: int) -> None:
        """Refuse to go on behind documents that the ledger does not have: they would never be made again."""
        own_ms = min(self._watermarks.values(), default=0)
        if own_ms > promoted_ms:
            ours, theirs = (
                f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M:%S}" for ms in (own_ms, promoted_ms)
            )
            message = (
                f"the recovery directory goes up to {ours} UTC, but the ledger has books up to {theirs} UTC only: it is"
                " an older copy, or another one (METERBRIDGE_LEDGER__URL), and the documents between would be missing"
                " for good. Restore the newest ledger; if it is lost, make recovery, dedupe and unique again as of this"
                " one with `meterbridge rebuild`, and the flow makes the documents again"
            )
            raise StateMismatch(message)

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """Run a transaction as the flow of this ledger.

        :raises LockHeld: another flow was started on it.
        """
        with database.write(self._engine) as connection:
            flow_fence.check(connection, self.fence)
            yield connection

    def write_batch(self, items: list[LedgerDocument | Marker]) -> None:
        """Take documents and watermarks; promote what an earlier epoch staged, which is durable now."""
        if self._unpromoted:
            sequence = self._sequence
            self._retrying(lambda: self._promote(sequence))
            faults.reach("outbox.promoted")
            self._unpromoted = False
        for item in items:
            if isinstance(item, Marker):
                self._advance(item)
            else:
                self._buffer.append(item)
                self._dirty = True
        if len(self._buffer) >= BUFFER_DOCUMENTS_MAX:
            self._retrying(self._stage_buffer)
            self._buffer.clear()

    def _promote(self, sequence: int) -> None:
        with self._writing() as connection:
            _promote(connection, sequence)

    def _advance(self, marker: Marker) -> None:
        if marker.sender not in self._watermarks:
            message = f"a watermark came from the unknown sender {marker.sender!r}; known: {sorted(self._watermarks)}"
            raise InvariantViolation(message)
        if marker.watermark_ms > self._watermarks[marker.sender]:
            self._watermarks[marker.sender] = marker.watermark_ms
            self._dirty = True

    def snapshot(self) -> dict[str, Any]:
        """Insert the epoch's documents as STAGED with the next sequence number and the watermark.

        :raises StopRequested: the ledger did not answer and the process is to stop; the epoch is replayed.
        :raises LockHeld: another flow was started on this ledger.
        :raises InvariantViolation: a key came with another digest, or for an hour already posted.
        """
        if self._dirty:
            faults.reach("outbox.stage")
            self._retrying(self._stage_epoch)
            faults.reach("outbox.staged")
            self._sequence += 1
            self._buffer.clear()
            self._dirty = False
            self._unpromoted = True
        return {"format": FORMAT, "sequence": self._sequence, "watermarks": dict(self._watermarks)}

    def _stage_buffer(self) -> None:
        with self._writing() as connection:
            refused = documents.stage(connection, self._buffer, self._sequence + 1)
        self._refuse(refused)

    def _stage_epoch(self) -> None:
        with self._writing() as connection:
            refused = documents.stage(connection, self._buffer, self._sequence + 1)
            if not refused:
                mark = Progress(self._sequence + 1, min(self._watermarks.values(), default=0), self._watermarks)
                progress.put(connection, progress.STAGED, mark)
                if mark.watermark_ms > progress.get(connection, progress.HIGH_WATER).watermark_ms:
                    progress.put(connection, progress.HIGH_WATER, mark)
        self._refuse(refused)

    def _refuse(self, refused: list[documents.Refused]) -> None:
        """Record refused documents as exceptions and stop: going on would change what is booked."""
        if not refused:
            return
        with database.write(self._engine) as connection:
            for one in refused:
                exceptions.raise_exception(connection, one.kind, one.key, one.detail, datetime.now(UTC))
        first = refused[0]
        message = (
            f"{len(refused)} document(s) would change what is booked; the first is {first.key}: {first.detail}."
            " Nothing was overwritten. The same input gave another result: look at `meterbridge exceptions`, compare"
            " the versions of program and configuration, and run `meterbridge verify`"
        )
        raise InvariantViolation(message)

    def _retrying(self, action: Callable[[], T]) -> T:
        """Repeat an idempotent ledger transaction until the ledger answers or the process is to stop."""
        delay_s = 0.1
        waiting = metrics.WAITING_SINCE.labels(server="ledger")
        while True:
            try:
                result = action()
            except Exception as error:
                if not database.unreachable(error):
                    raise
                if delay_s == 0.1:
                    waiting.set(time.time())
                log.warning(
                    "The ledger database does not answer; the flow waits.",
                    cause=str(getattr(error, "orig", error))[:300],
                )
                self._wait(delay_s)
                delay_s = min(delay_s * 2, RETRY_S_MAX)
            else:
                waiting.set(0)
                return result

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self._stop.wait(STOP_POLL_S):
                message = "stopped while waiting for the ledger database; the epoch is replayed at the next start"
                raise StopRequested(message)

    def close(self) -> None:
        """Close the connections; called only at a clean end."""
        self._engine.dispose()


class OutboxSink(FixedPartitionedSink[Any, dict[str, Any]]):
    """Writes documents into the ledger database.

    Guarantee: every document of a durable epoch is in the ledger exactly once, PENDING only after its epoch is
    durable; the same key with another digest stops the flow and overwrites nothing.
    Unit of parallelism: none, one partition in the whole cluster (documents are few).
    """

    def __init__(self, settings: Settings, *, senders: Sequence[str], stop: threading.Event) -> None:
        self._url = settings.ledger_url
        self._senders = tuple(senders)
        self._stop = stop
        self.fence: int | None = None
        """What proves that our partition writes to the ledger; None where another process of the cluster has it."""

    def list_parts(self) -> list[str]:
        """Return the one partition."""
        return [PARTITION]

    def part_fn(self, item_key: str) -> int:
        """Route everything to the one partition."""
        return 0

    def build_part(self, step_id: str, for_part: str, resume_state: dict[str, Any] | None) -> OutboxPartition:
        """Open the ledger as its flow, take back what was not durable, promote what was.

        :raises StateMismatch: the ledger and the state are not of one time.
        """
        partition = OutboxPartition(database.connect(self._url), self._senders, self._stop, resume_state)
        self.fence = partition.fence
        return partition
