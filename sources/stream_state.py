"""What the reader knows about one stream: how far it read, how far it handed on, what it claimed. Pure.

Everything is counted, so that a loss shows: the server says how many entries were ever added, we say how many we
read, and whatever is neither read nor there any more is lost.
"""

from dataclasses import dataclass, field
from typing import Any, Final

from core.errors import InvariantViolation, StateMismatch, StreamBackward

SNAPSHOT_VERSION: Final = 1

Id = tuple[int, int]
START: Final[Id] = (0, 0)


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """What the server says about a stream (XINFO STREAM)."""

    length: int
    entries_added: int
    last_generated: Id
    first_entry: Id | None
    last_entry: Id | None


@dataclass(slots=True)
class StreamState:
    """One stream, by its name and its index in the settings.

    `read` and `emitted` are ids of the last entry read and handed on; what lies between is held back in memory and
    read again after a restart. The counts include the entries trimmed before the first start. `watermark_ms`: every
    entry with ms below it was read. `fence_ms`: the highest time claimed while the stream was idle; the server was
    told to give no id below it. `lost`: entries lost and accepted as lost.
    """

    name: str
    index: int
    read: Id = START
    read_count: int = 0
    emitted: Id = START
    emitted_count: int = 0
    watermark_ms: int = 0
    fence_ms: int = 0
    lost: int = 0
    known: bool = False
    """False until the server's own count was taken as the baseline."""

    def begin(self, info: StreamInfo) -> None:
        """Take the entries trimmed before the first start as the baseline of the counts."""
        if not self.known:
            self.read_count = self.emitted_count = info.entries_added - info.length
            self.known = True

    def received(self, last: Id, count: int) -> None:
        """Note that `count` entries up to `last` were read."""
        self.read = last
        self.read_count += count
        self.watermark_ms = max(self.watermark_ms, last[0])

    def handed_on(self, last: Id, count: int) -> None:
        """Note that `count` entries up to `last` left the reader."""
        self.emitted = last
        self.emitted_count += count

    def claimed(self, claim_ms: int) -> None:
        """Note that the server gives no id below `claim_ms` any more."""
        self.fence_ms = max(self.fence_ms, claim_ms)
        self.watermark_ms = max(self.watermark_ms, claim_ms)

    def check_order(self, first_ms: int) -> None:
        """Stop if an entry arrived below the watermark.

        :raises InvariantViolation: it did; what was booked on the promise of the watermark would be wrong.
        """
        if first_ms < self.watermark_ms:
            message = (
                f"stream {self.name}: an entry with time {first_ms} arrived after everything below "
                f"{self.watermark_ms} was counted as read. Its hour may be sealed. Was the stream restored from a "
                f"backup, or written with explicit ids? Add the entries again with new ids."
            )
            raise InvariantViolation(message)

    def lose(self, lost: int) -> None:
        """Take lost entries as read, once they are accepted as lost."""
        self.read_count += lost
        self.emitted_count += lost
        self.lost += lost

    def restart(self, read_count: int, at_least_ms: int) -> None:
        """Go on with a stream whose tail was lost: the server counts anew, and gives no id below what was promised.

        What was read of the lost tail stays read; the fence, to be set again, keeps new entries above it.
        """
        self.emitted_count += read_count - self.read_count
        self.read_count = read_count
        self.fence_ms = max(self.fence_ms, self.watermark_ms, self.read[0] + 1, at_least_ms)


def gap(state: StreamState, info: StreamInfo) -> int:
    """Return how many entries were trimmed or deleted before they were read.

    Exact where it can be known: when nothing that is left is unread, and when all that is left is. Between the two
    it is 0, and shows later.
    """
    return max(0, _unaccounted(state, info) or 0)


def _unaccounted(state: StreamState, info: StreamInfo) -> int | None:
    """Return the entries ever added that are neither read nor still to be read; None if it cannot be known now."""
    if info.last_entry is None or info.last_entry <= state.read:
        return info.entries_added - state.read_count
    if info.first_entry is None or info.first_entry > state.read:
        return info.entries_added - state.read_count - info.length
    return None


def backward(state: StreamState, info: StreamInfo, high_water_ms: int) -> str | None:
    """Return why the stream has lost its tail, or None.

    A fence above the stream's last id is no loss by itself: it may not have reached the disk before a crash, and is
    set again. Entries below it would show as out of order.
    """
    last_id = f"{info.last_generated[0]}-{info.last_generated[1]}"
    if info.last_generated < state.read:
        return f"its last id is {last_id}, but {state.read[0]}-{state.read[1]} was read from it"
    if max(info.last_generated[0], state.fence_ms) < high_water_ms:
        return f"its last id is {last_id}, but books go up to time {high_water_ms}"
    if (_unaccounted(state, info) or 0) < 0 or info.entries_added < state.read_count:
        return f"{info.entries_added} entries were ever added to it, but {state.read_count} had been read"
    return None


def raise_backward(state: StreamState, why: str, server: str) -> None:
    """Stop because of a stream that went backward.

    :raises StreamBackward: always; says what to do.
    """
    message = (
        f"stream {state.name} on {server} went backward: {why}. The server lost its end (a crash without "
        f"fsync, a failover, an old backup, a deleted key), or this is another server. Events read from the lost part "
        f"are booked and stay booked. Restore the stream; or, if it is the right server and its end is gone for good, "
        f"let producers send again everything since shortly before that, also what the server took since (ids seen "
        f"before are not counted twice), and start with `run --accept-gap`, which records it and goes on."
    )
    raise StreamBackward(message)


@dataclass(slots=True)
class ReaderState:
    """All streams of one reader, and the watermark it has promised."""

    streams: list[StreamState] = field(default_factory=list)
    sent_ms: int = 0
    """Watermark of the last marker: nothing below it is ever handed on again."""

    def snapshot(self) -> dict[str, Any]:
        """Return plain values that `restore` takes."""
        return {
            "version": SNAPSHOT_VERSION,
            "sent_ms": self.sent_ms,
            "total": sum(stream.emitted_count for stream in self.streams),
            "streams": {
                stream.name: {
                    "index": stream.index,
                    "ms": stream.emitted[0],
                    "seq": stream.emitted[1],
                    "count": stream.emitted_count,
                    "fence_ms": stream.fence_ms,
                    "lost": stream.lost,
                }
                for stream in self.streams
                if stream.known
            },
        }


def restore(names: list[tuple[int, str]], snapshot: dict[str, Any] | None) -> ReaderState:
    """Return the state of a reader of these streams (index, name); entries held back then are read again.

    :raises StateMismatch: the snapshot is of a newer version, or of other streams.
    """
    if snapshot is None:
        return ReaderState([StreamState(name, index) for index, name in names])
    if snapshot["version"] != SNAPSHOT_VERSION:
        message = (
            f"the reader's state has version {snapshot['version']}, this program reads version {SNAPSHOT_VERSION}: "
            "start the version that wrote it"
        )
        raise StateMismatch(message)
    saved, sent_ms = snapshot["streams"], snapshot["sent_ms"]
    by_name = {name: index for index, name in names}
    for name, values in saved.items():
        if by_name.get(name) != values["index"]:
            message = (
                f"stream {name} was number {values['index']} of METERBRIDGE_REDIS__STREAMS of this reader and is not "
                f"any more. The list only ever grows at its end, and flow.readers is fixed: put it back in its place."
            )
            raise StateMismatch(message)
    streams = []
    for index, name in names:
        state = StreamState(name, index, watermark_ms=sent_ms)
        if values := saved.get(name):
            position = (values["ms"], values["seq"])
            state.read = state.emitted = position
            state.read_count = state.emitted_count = values["count"]
            state.watermark_ms = max(sent_ms, position[0])
            state.fence_ms, state.lost, state.known = values["fence_ms"], values["lost"], True
        streams.append(state)
    return ReaderState(streams, sent_ms)
