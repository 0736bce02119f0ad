"""Reads several streams over one connection and merges them into position order. Free of the dataflow engine.

The caller calls `round()` (I/O) and `take()` (none) in turn. A failed round changes nothing but the connection: the
next one opens it again, checks that the streams are the same, and reads on where the last reply ended.
"""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import structlog

from config.settings import RedisSettings
from core.clock import Clock
from core.errors import InvalidRequest, Unreachable
from core.metrics import BYTES, ENTRIES
from core.redis_client import address
from operators.items import RawBatch
from sources import stream_commands as commands
from sources.entries import Chunk, parse, parse_id
from sources.merge import Merge
from sources.reading import FIRST_COUNT, Asked, Connection, Cursor, Reading
from sources.resp import ReplyTooLarge, pack
from sources.stream_checks import StreamChecks
from sources.stream_commands import Claim
from sources.stream_state import START, ReaderState

log = structlog.get_logger()

CHECK_INTERVAL_S: Final = 2.0
COUNT_GROWTH: Final = 4
REPLY_BYTES_TARGET: Final = 8 << 20
REPLY_BYTES_MAX: Final = 64 << 20
INCLUSIVE_BYTES_MAX: Final = 64 * 1024
AHEAD_MS_MAX: Final = 2_000
"""A drain waits for the server's clock to pass the last ids, but not longer than this."""


@contextmanager
def _without_cycle_search() -> Iterator[None]:
    """Keep the interpreter from searching for reference cycles: replies are thousands of lists without any.

    They are freed as always. With the search a reply costs three times as much.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@dataclass(slots=True)
class _Pending:
    """What was read since the last `take`."""

    events: int = 0
    size_bytes: int = 0


class MergedReader:
    """Reads the streams of `state` and hands out items in position order.

    Guarantee: hands out every entry of every stream once, in position order, from the state's positions on; stops
    with an error, before handing on anything behind it, where an entry was lost or a stream went backward.
    Unit of parallelism: one object per reader; not thread-safe.
    Dying here loses nothing: the state's snapshot names what left, everything else is read again.
    """

    def __init__(
        self,
        state: ReaderState,
        settings: RedisSettings,
        reading: Reading,
        *,
        open_connection: Callable[[], Connection],
        clock: Clock,
    ) -> None:
        if reading.read_only and reading.end_watermark_ms is None:
            message = "a read-only reader needs a watermark at which it ends"
            raise InvalidRequest(message)
        self._state, self._settings, self._reading = state, settings, reading
        self._open_connection, self._clock = open_connection, clock
        self._server = address(settings)
        self._checks = StreamChecks(settings, reading)
        is_resumed = any(stream.known for stream in state.streams)
        self.cursors = [
            Cursor(
                stream,
                reading.end_of(stream.name),
                count=min(FIRST_COUNT, settings.read_entries),
                is_new=is_resumed and not stream.known,
            )
            for stream in state.streams
        ]
        self._merge = Merge(state.streams, events_max=reading.item_events_max, bytes_max=reading.item_bytes_max)
        self._connection: Connection | None = None
        self._asked: list[Asked] = []
        self._check_at_s = 0.0
        self._ends_known = False
        self._claimed_all = False
        self._end_checked = False
        self._pending = _Pending()
        self.finished = not state.streams
        self.is_behind = False
        """The last round brought as many entries of a stream as it asked for: more are waiting."""
        self.watermark_ms = state.sent_ms
        """Every entry below it was taken."""

    # --- what the caller calls -------------------------------------------------------------------------

    def round(self) -> int:
        """Read once from every stream that may be read, claim for the idle ones; return how many entries came.

        :raises Unreachable: the server is away; call again later.
        :raises StreamGap: entries were lost. :raises StreamBackward: a stream lost its tail.
        :raises InvariantViolation: an entry arrived below its stream's watermark.
        """
        try:
            connection = self._opened()
            if not self._asked:
                if self._clock.monotonic_s() >= self._check_at_s:
                    self._check(connection)
                self._ask(connection)
            with _without_cycle_search():
                entries = self._read(connection)
            if not self._reading.read_only and not self._try_claim(connection, entries):
                return entries
            if entries and self._clock.monotonic_s() < self._check_at_s:
                self._ask(connection)  # the server works on the next replies while these go through the flow
        except ReplyTooLarge as error:
            log.warning("A reply was too large; fewer entries are read at a time.", cause=str(error))
            for cursor in self.cursors:
                cursor.count = 1
            self.disconnect()
            return 0
        except BaseException:
            self.disconnect()
            raise
        return entries

    def take(self) -> list[RawBatch]:
        """Return what can no longer be preceded by anything, as items in position order. No I/O."""
        if self.finished:
            return []
        self._pending = _Pending()
        watermark_ms = self._merge.watermark_ms()
        batches = list(self._merge.take())
        if self._reading.end_watermark_ms is not None:
            watermark_ms = min(watermark_ms, self._reading.end_watermark_ms)
        self.watermark_ms = max(self.watermark_ms, watermark_ms)
        self._finish()
        return batches

    @property
    def has_item(self) -> bool:
        """Tell whether enough was read for a full item."""
        return (
            self._pending.events >= self._reading.item_events_max
            or self._pending.size_bytes >= self._reading.item_bytes_max
        )

    @property
    def held_bytes(self) -> int:
        """Return the memory taken by entries read and not handed on."""
        return sum(held.size_bytes for held in self._merge.held)

    def disconnect(self) -> None:
        """Close the connection; the next round opens another."""
        self._asked = []
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # --- connecting and checking -----------------------------------------------------------------------

    def _opened(self) -> Connection:
        if self._connection is None:
            self._connection = self._open_connection()
            self._check(self._connection)
            self._checks.restore_fences(self._connection, self.cursors)
        return self._connection

    def _check(self, connection: Connection) -> None:
        """Compare every stream with what is known of it."""
        names = [cursor.state.name for cursor in self.cursors]
        replies = connection.call([commands.load_info(name) for name in names])
        for cursor, reply in zip(self.cursors, replies, strict=True):
            info = commands.parse_info(cursor.state.name, reply)
            if info is None:
                info = self._checks.create(connection, cursor)
            self._checks.check(connection, cursor, info)
            if not self._ends_known:
                cursor.drain_to = info.last_entry or START
                cursor.trimmed_at_start = info.entries_added - info.length
                cursor.first_ms = info.first_entry[0] if info.first_entry else None
            self._checks.report_lag(cursor, info)
        self._ends_known = True
        self._check_at_s = self._clock.monotonic_s() + CHECK_INTERVAL_S

    # --- reading ---------------------------------------------------------------------------------------

    def _ask(self, connection: Connection) -> None:
        """Send a read for every stream that may be read; nothing else may be called before `_read` took the replies."""
        behind = self._merge.behind()
        share = self._reading.held_bytes_max // max(1, len(self.cursors))
        requests: list[bytes] = []
        for place, held in enumerate(self._merge.held):
            if place != behind and held.size_bytes >= share:
                continue
            cursor = self.cursors[place]
            asked = Asked(place, cursor.last_size_bytes <= INCLUSIVE_BYTES_MAX, cursor.count)
            requests.append(
                commands.load_range(
                    cursor.state.name,
                    cursor.state.read,
                    cursor.end,
                    asked.count + asked.inclusive,
                    inclusive=asked.inclusive,
                )
            )
            self._asked.append(asked)
        connection.send(b"".join(requests))

    def _read(self, connection: Connection) -> int:
        """Take the replies to what was asked; return how many entries came."""
        asked, self._asked = self._asked, []
        self.is_behind = False
        limit = self._reply_limit(asked)
        replies = [connection.receive(limit) for _ in asked]
        return sum(self._receive(connection, one, reply) for one, reply in zip(asked, replies, strict=True))

    def _reply_limit(self, asked: list[Asked]) -> int | None:
        """Return the limit of a reply; one entry is never too large, since it cannot be asked for in parts."""
        return None if all(one.count == 1 for one in asked) else REPLY_BYTES_MAX

    def _receive(self, connection: Connection, asked: Asked, reply: Any) -> int:
        cursor = self.cursors[asked.place]
        if isinstance(reply, Exception):
            raise commands.refused(cursor.state.name, reply)
        if asked.inclusive and reply:
            if parse_id(reply[0][0]) == cursor.state.read:
                reply = reply[1:]  # our last entry is still there, so nothing behind it was trimmed
            else:
                reply = self._read_with_counts(connection, cursor)
        cursor.at_top = not reply
        if not reply:
            if self._reading.read_only:
                cursor.state.watermark_ms = max(cursor.state.watermark_ms, self._reading.end_ms)
            return 0
        chunk = parse(cursor.state.name, reply)
        self.is_behind |= len(chunk) >= asked.count
        self._accept(asked.place, cursor, chunk)
        return len(chunk)

    def _read_with_counts(self, connection: Connection, cursor: Cursor) -> list[Any]:
        """Read and count in one step: our last entry is gone, so what stood behind it may be gone as well."""
        name = cursor.state.name
        request = commands.load_range(name, cursor.state.read, cursor.end, cursor.count, inclusive=False)
        packed = [pack("MULTI"), commands.load_info(name), request, pack("EXEC")]
        result = connection.call(packed, reply_bytes_max=REPLY_BYTES_MAX if cursor.count > 1 else None)[-1]
        if isinstance(result, Exception):
            raise commands.refused(name, result)
        info = commands.parse_info(name, result[0])
        if info is None:
            info = self._checks.create(connection, cursor)
        self._checks.check(connection, cursor, info)
        entries: list[Any] = result[1]
        return entries

    def _accept(self, place: int, cursor: Cursor, chunk: Chunk) -> None:
        state, size_bytes = cursor.state, int(chunk.sizes.sum())
        state.check_order(int(chunk.entry_ms[0]))
        state.received(chunk.last, len(chunk))
        self._merge.add(place, chunk)
        self._pending.events += int(chunk.weights.sum())
        self._pending.size_bytes += size_bytes
        cursor.last_size_bytes = int(chunk.sizes[-1])
        largest = int(chunk.sizes.max()) + 1
        fitting = max(1, REPLY_BYTES_TARGET // largest)
        cursor.count = min(cursor.count * COUNT_GROWTH, fitting, self._settings.read_entries)
        ENTRIES.labels(state.name).inc(len(chunk))
        BYTES.labels(state.name).inc(size_bytes)

    # --- claiming --------------------------------------------------------------------------------------

    def _try_claim(self, connection: Connection, entries: int) -> bool:
        """Claim, and tell whether the connection is still there.

        A server that is full, or a replica, refuses what a claim writes and still lets us read. What comes is taken as
        long as something comes: the books have to go on for streams to be trimmed, which makes room again.
        """
        try:
            self._claim(connection)
        except Unreachable:
            if not entries:
                raise
            self.disconnect()
            return False
        return True

    def _claim(self, connection: Connection) -> None:
        """Advance the watermarks of streams at whose end we stand; in a drain, of all of them once it is over."""
        now_s = self._clock.monotonic_s()
        at_end = self._reading.drain and all(
            cursor.at_top or cursor.state.read >= cursor.drain_to for cursor in self.cursors
        )
        if at_end and self._reading.accept_gap and not self._end_checked:
            # A loss may show only now, as a lost tail that was sent again does. The next start would refuse it.
            self._check(connection)
            self._end_checked = True
        due = [cursor for cursor in self.cursors if at_end or (cursor.at_top and now_s >= cursor.claim_at_s)]
        replies = connection.call(
            [
                commands.claim(cursor.state.name, cursor.state.read, cursor.state.watermark_ms, self._settings.fence)
                for cursor in due
            ]
        )
        for cursor, reply in zip(due, replies, strict=True):
            if isinstance(reply, Exception) and "no such key" in str(reply):
                self._check_at_s = 0.0  # the check says whether that is a loss
                continue
            claim = commands.parse_claim(cursor.state.name, reply)
            if claim.verdict == "entry":
                cursor.state.watermark_ms = max(cursor.state.watermark_ms, claim.watermark_ms)
            else:
                cursor.state.claimed(claim.watermark_ms)
            cursor.at_top = claim.verdict != "entry"
            self._tell_if_ahead(cursor, claim)
            cursor.claim = claim
            cursor.claim_at_s = now_s + self._settings.idle_claim_ms / 1000
        self._claimed_all = at_end

    def _tell_if_ahead(self, cursor: Cursor, claim: Claim) -> None:
        """Warn once when a stream's ids have run ahead of the server's clock: what has them waits, unseen otherwise."""
        ahead_ms = claim.watermark_ms - claim.server_ms if claim.verdict == "ahead" else 0
        if ahead_ms <= AHEAD_MS_MAX:
            cursor.is_ahead = False
        elif not cursor.is_ahead:
            cursor.is_ahead = True
            log.warning(
                "A stream's ids are ahead of the server's clock; its newest entries may wait for it.",
                stream=cursor.state.name,
                ahead_s=ahead_ms // 1000,
                server=self._server,
            )

    # --- ending ----------------------------------------------------------------------------------------

    def _finish(self) -> None:
        if self._reading.read_only:
            self.finished = self._ends_known and all(
                cursor.state.watermark_ms >= self._reading.end_ms for cursor in self.cursors
            )
        elif self._reading.drain and self._claimed_all:
            self.finished = self._nothing_to_wait_for()

    def _nothing_to_wait_for(self) -> bool:
        """Tell whether a drain has handed on what it can: everything, or what loading or the clock allows."""
        claims = [cursor.claim for cursor in self.cursors if cursor.claim is not None]
        return (
            all(cursor.state.emitted >= min(cursor.drain_to, cursor.state.read) for cursor in self.cursors)
            or any(claim.verdict == "loading" for claim in claims)
            or any(claim.watermark_ms > claim.server_ms + AHEAD_MS_MAX for claim in claims if claim.server_ms)
        )
