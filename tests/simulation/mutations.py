"""Defects put into the product on purpose, one rule broken each: the simulation must find every one of them."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Final
from unittest.mock import patch

from flows import poster_delivery, poster_outcomes
from operators import book_time, dedupe_open
from operators.book import BookLogic
from operators.dedupe_log import IdLog
from operators.rate import RateLogic
from sinks import outbox
from sinks.ledger import database, documents, leases, postings
from sources.merge import Merge
from sources.stream_state import ReaderState
from tests.simulation.disk import FaultyDisk
from tests.simulation.warehouse import TableSink

Mutation = Callable[[], AbstractContextManager[Any]]


@contextmanager
def skip_sync() -> Iterator[None]:
    """Hand out a snapshot of a log whose tail was not synced."""
    original = IdLog.snapshot

    def snapshot(self: IdLog) -> dict[str, Any]:
        with patch.object(FaultyDisk, "sync", lambda _self, _path: None):
            return original(self)

    with patch.object(IdLog, "snapshot", snapshot):
        yield


@contextmanager
def skip_directory_sync() -> Iterator[None]:
    """Forget that names have to be synced as well."""
    with patch.object(FaultyDisk, "sync_directory", lambda _self, _path: None):
        yield


@contextmanager
def seal_before_durable() -> Iterator[None]:
    """Seal at the snapshot, before the epoch is durable everywhere."""
    original = IdLog.snapshot

    def snapshot(self: IdLog) -> dict[str, Any]:
        state = original(self)
        self.committed()
        return state

    with patch.object(IdLog, "snapshot", snapshot):
        yield


@contextmanager
def keep_uncommitted_ids() -> Iterator[None]:
    """Resume a log at its end instead of at the state's length: events of the lost epoch look like duplicates."""
    original = dedupe_open.open_log

    def open_log(*arguments: Any) -> Any:
        with patch.object(FaultyDisk, "cut", lambda _self, _path, _length: None):
            return original(*arguments)

    with patch.object(dedupe_open, "open_log", open_log):
        yield


@contextmanager
def promote_early() -> Iterator[None]:
    """Promote documents as soon as they are staged, before their epoch is durable."""
    original = outbox.OutboxPartition.snapshot

    def snapshot(self: outbox.OutboxPartition) -> dict[str, Any]:
        state = original(self)
        with database.write(self._engine) as connection:
            documents.promote(connection, None)
        return state

    with patch.object(outbox.OutboxPartition, "snapshot", snapshot):
        yield


@contextmanager
def keep_staged() -> Iterator[None]:
    """Leave documents of a lost epoch staged at a restart."""
    with patch.object(documents, "discard", lambda _connection, _sequence: 0):
        yield


@contextmanager
def unknown_is_success() -> Iterator[None]:
    """Call a posting posted although nobody knows."""
    original = poster_outcomes.after_submit

    def after_submit(row: Any, outcome: Any, now: Any, wait_s: float) -> postings.Change:
        change = original(row, outcome, now, wait_s)
        if change.state == postings.UNKNOWN:
            return postings.Change(row.key, postings.POSTED, number="?", digest=row.posting.digest, outcome="posted")
        return change

    with patch.object(poster_delivery, "after_submit", after_submit):
        yield


@contextmanager
def resend_unknown() -> Iterator[None]:
    """Send again without a look whether it arrived."""

    def after_lookup(row: Any, *_: Any) -> postings.Change:
        return postings.Change(row.key, postings.PENDING)

    with patch.object(poster_delivery, "after_lookup", after_lookup):
        yield


@contextmanager
def submit_unrecorded() -> Iterator[None]:
    """Take what a dead poster had submitted for not sent."""

    def recover(self: poster_delivery.Delivery) -> int:
        rows = self._due(postings.SUBMITTED, 1000)
        self._apply(postings.SUBMITTED, [postings.Change(row.key, postings.PENDING) for row in rows])
        return len(rows)

    with patch.object(poster_delivery.Delivery, "_recover", recover):
        yield


@contextmanager
def no_fencing() -> Iterator[None]:
    """Let a poster whose lease was taken go on writing to the ledger."""
    with patch.object(postings, "check", lambda _connection, _lease: None), patch.object(leases, "check", _allow):
        yield


def _allow(_connection: Any, _lease: Any) -> None:
    return None


@contextmanager
def seal_without_grace() -> Iterator[None]:
    """Seal a minute at its end, although events in time may still come."""

    def point_ms(_self: Any, minute: int) -> int:
        return (minute + 1) * book_time.MS_PER_MINUTE

    with patch.object(book_time.SealPoints, "point_ms", point_ms):
        yield


@contextmanager
def fastest_sender_seals() -> Iterator[None]:
    """Seal by the highest watermark of all senders instead of the lowest."""

    def complete_tick(self: BookLogic) -> int | None:
        heard = [value for value in self._watermarks.values() if value is not None]
        self._forwarded_ms = max(heard, default=None)
        return self._forwarded_ms

    with patch.object(BookLogic, "_complete_tick", complete_tick):
        yield


@contextmanager
def rate_forgets_chains() -> Iterator[None]:
    """Leave the cumulative amounts out of the rate step's snapshot."""
    original = RateLogic.snapshot

    def snapshot(self: RateLogic) -> dict[str, Any]:
        return original(self) | {"rater": None}

    with patch.object(RateLogic, "snapshot", snapshot):
        yield


@contextmanager
def snapshot_read_position() -> Iterator[None]:
    """Remember how far was read instead of how far was handed on: what was held back is lost."""
    original = ReaderState.snapshot

    def snapshot(self: ReaderState) -> dict[str, Any]:
        plain = original(self)
        for stream in self.streams:
            if stream.name in plain["streams"]:
                values = plain["streams"][stream.name]
                values["ms"], values["seq"], values["count"] = *stream.read, stream.read_count
        return plain

    with patch.object(ReaderState, "snapshot", snapshot):
        yield


@contextmanager
def watermark_of_fastest_stream() -> Iterator[None]:
    """Send the highest watermark of the streams instead of the lowest."""

    def watermark_ms(self: Merge) -> int:
        return max(state.watermark_ms for state in self._states)

    with patch.object(Merge, "watermark_ms", watermark_ms):
        yield


@contextmanager
def snapshot_before_insert() -> Iterator[None]:
    """Let a table's snapshot not wait for its inserts."""
    with patch.object(TableSink, "snapshot", lambda _self: {"version": 1}):
        yield


MUTATIONS: Final[dict[str, Mutation]] = {"": nullcontext} | {
    one.__name__: one
    for one in (
        skip_sync,
        skip_directory_sync,
        seal_before_durable,
        keep_uncommitted_ids,
        promote_early,
        keep_staged,
        unknown_is_success,
        resend_unknown,
        submit_unrecorded,
        no_fencing,
        seal_without_grace,
        fastest_sender_seals,
        rate_forgets_chains,
        snapshot_read_position,
        watermark_of_fastest_stream,
        snapshot_before_insert,
    )
}
"""By name; the empty name is the product as it is."""
WORLD_OF: Final[dict[str, str]] = {
    "skip_sync": "log",
    "skip_directory_sync": "log",
    "seal_before_durable": "log",
    "keep_uncommitted_ids": "log",
    "promote_early": "posting",
    "keep_staged": "posting",
    "unknown_is_success": "posting",
    "resend_unknown": "posting",
    "submit_unrecorded": "posting",
    "no_fencing": "posting",
    "seal_without_grace": "flow",
    "fastest_sender_seals": "flow",
    "rate_forgets_chains": "flow",
    "snapshot_read_position": "reader",
    "watermark_of_fastest_stream": "reader",
    "snapshot_before_insert": "flow",
}
"""The smallest world in which each defect shows."""
