"""A stream server in memory that speaks the commands of the reader, and a connection to it that fails."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import hiredis

from core.clock import ManualClock
from core.errors import Unreachable
from sources.resp import ReplyError
from tests.flows.oracle import Entry
from tests.simulation.fate import Fate

Id = tuple[int, int]
Fields = list[bytes]


@dataclass
class Stream:
    """One stream. `length` of what is kept may be less than `added`: old entries are trimmed."""

    entries: list[tuple[Id, Fields]] = field(default_factory=list)
    last: Id = (0, 0)
    added: int = 0
    trimmed: list[tuple[Id, Fields]] = field(default_factory=list)


class Server:
    """Streams, durable as far as entries go; a restart loses the fences that were set since the last entry."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self.streams: dict[str, Stream] = {}
        self.life = 0
        self.skew_ms = 0
        """How far the server's clock is from the others'; it may be set back or forward at any time."""

    @property
    def now_ms(self) -> int:
        """Return the server's time."""
        return int(self._clock.now().timestamp() * 1000) + self.skew_ms

    def add(self, name: str, fields: Fields) -> Id:
        """Add an entry with the next id."""
        stream = self.streams.setdefault(name, Stream())
        ms = max(self.now_ms, stream.last[0])
        stream.last = (ms, stream.last[1] + 1 if ms == stream.last[0] else 0)
        stream.entries.append((stream.last, fields))
        stream.added += 1
        return stream.last

    def restart(self) -> None:
        """Come back with all entries and every connection gone; fences that the clock has passed may be lost.

        A lost fence with a clock set back would let an entry come below a watermark; the reader stops at that, so a
        run could not go on. `tests/sources` has that case.
        """
        self.life += 1
        for stream in self.streams.values():
            if stream.entries and stream.last[0] <= self.now_ms:
                stream.last = stream.entries[-1][0]

    def trim(self, name: str, before: Id) -> None:
        """Trim what lies below an id, as an operator does below the durable position."""
        stream = self.streams[name]
        stream.trimmed += [entry for entry in stream.entries if entry[0] < before]
        stream.entries = [entry for entry in stream.entries if entry[0] >= before]

    def all_entries(self, names: Iterable[str]) -> list[Entry]:
        """Return every entry ever added, for the oracle."""
        found = []
        for index, name in enumerate(names):
            stream = self.streams.get(name, Stream())
            for (ms, seq), fields in [*stream.trimmed, *stream.entries]:
                if fields[0] == b"tick":
                    continue
                found.append(Entry(index, ms, seq, dict(zip(fields[::2], fields[1::2], strict=True))))
        return found

    # --- commands ----------------------------------------------------------------------------------------

    def answer(self, command: list[bytes]) -> Any:
        """Return the reply to one command."""
        name = command[0].decode()
        if name == "XGROUP":
            if command[1] == b"CREATE":
                self.streams.setdefault(command[2].decode(), Stream())
            return b"OK"
        if name == "EVAL":
            key, by_tick = command[3].decode(), b"'XADD'" in command[1]
            if command[2] == b"2":
                return self._claim(key, _id(command[5]), int(command[6]), by_tick=by_tick)
            return self._restore_fence(key, int(command[4]), by_tick=by_tick)
        stream = self.streams.get(command[2 if name == "XINFO" else 1].decode())
        if name == "XINFO":
            return ReplyError("ERR no such key") if stream is None else _info(stream)
        if name == "XRANGE":
            return _range(stream or Stream(), command[2], command[3], int(command[5]))
        raise NotImplementedError(name)

    def _claim(self, key: str, read: Id, at_least_ms: int, *, by_tick: bool) -> Any:
        stream = self.streams.get(key)
        if stream is None:
            return ReplyError("ERR no such key")
        following = next((entry_id for entry_id, _ in stream.entries if entry_id > read), None)
        if following is not None:
            return [b"entry", b"%d-%d" % following, 0]
        claim_ms = max(self.now_ms, at_least_ms)
        if stream.last[0] >= claim_ms:
            return [b"ahead", b"%d-%d" % stream.last, self.now_ms]
        if by_tick and claim_ms == self.now_ms:
            return [b"claimed", b"%d-%d" % self.add(key, [b"tick", b"1"]), self.now_ms]
        self._set_last(stream, (claim_ms, 0), by_tick=by_tick)
        return [b"claimed", b"%d-0" % claim_ms, self.now_ms]

    def _restore_fence(self, key: str, fence_ms: int, *, by_tick: bool) -> int:
        stream = self.streams[key]
        if stream.last[0] >= fence_ms:
            return 0
        self._set_last(stream, (fence_ms, 0), by_tick=by_tick)
        return 1

    @staticmethod
    def _set_last(stream: Stream, last: Id, *, by_tick: bool) -> None:
        stream.last = last
        if by_tick:
            stream.entries.append((last, [b"tick", b"1"]))
            stream.added += 1


def _id(text: bytes) -> Id:
    ms, _, seq = text.partition(b"-")
    return int(ms), int(seq or 0)


def _info(stream: Stream) -> list[Any]:
    ends = [stream.entries[0], stream.entries[-1]] if stream.entries else [None, None]
    first, last = ([b"%d-%d" % entry[0], entry[1]] if entry else None for entry in ends)
    return [
        b"length", len(stream.entries), b"last-generated-id", b"%d-%d" % stream.last,
        b"entries-added", stream.added, b"first-entry", first, b"last-entry", last,
    ]  # fmt: skip


def _range(stream: Stream, start: bytes, end: bytes, count: int) -> list[Any]:
    exclusive = start.startswith(b"(")
    low = _id(start.lstrip(b"("))
    high = (1 << 62, 0) if end == b"+" else _id(end)
    found = [
        (at, fields)
        for at, fields in stream.entries
        if low < at <= high or (at == low and not exclusive and at <= high)
    ]
    return [[b"%d-%d" % at, fields] for at, fields in found[:count]]


class FaultyConnection:
    """One connection: a call may be lost before it arrives, or its reply on the way back; each takes some time.

    What was sent is worked on at once or only when a reply is waited for, in order, as the server pleases.
    """

    def __init__(self, server: Server, fate: Fate, clock: ManualClock) -> None:
        self._server, self._fate, self._clock = server, fate, clock
        self._life = server.life
        self._parser = hiredis.Reader()
        self._replies: deque[Any] = deque()
        if fate.fails():
            raise Unreachable("connection refused")

    def call(self, packed: list[bytes], *, reply_bytes_max: int | None = None) -> list[Any]:
        """Answer the commands in order, or fail."""
        self.send(b"".join(packed))
        return [self.receive(reply_bytes_max) for _ in packed]

    def send(self, data: bytes) -> None:
        """Take commands, or fail before they arrive."""
        self._fate.step("redis.send")
        self._pass()
        self._parser.feed(data)
        if self._fate.random.random() < 0.5:
            self._work()

    def receive(self, reply_bytes_max: int | None = None) -> Any:
        """Return the next reply, or fail although the command was done."""
        if not self._replies:
            self._fate.step("redis.receive")
            self._pass()
            self._work()
        return self._replies.popleft()

    def _pass(self) -> None:
        self._clock.sleep(self._fate.random.choice((0.0, 0.001, 0.02)))
        if self._life != self._server.life or self._fate.fails():
            if self._life == self._server.life and self._fate.random.random() < 0.5:
                self._work()
            raise Unreachable("connection reset")

    def _work(self) -> None:
        gathered: list[Any] | None = None
        while (command := self._parser.gets()) is not False:
            if command == [b"MULTI"]:
                gathered = []
                self._replies.append(b"OK")
            elif command == [b"EXEC"]:
                self._replies.append(gathered)
                gathered = None
            elif gathered is not None:
                gathered.append(self._server.answer(command))
                self._replies.append(b"QUEUED")
            else:
                self._replies.append(self._server.answer(command))

    def close(self) -> None:
        """Close it."""
