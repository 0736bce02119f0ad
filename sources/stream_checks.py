"""Compares streams with what is known of them: stops at a gap or a lost tail, creates and fences what is missing."""

from typing import Final

import structlog

from config.settings import RedisSettings
from core.errors import StreamGap
from core.metrics import LAG_ENTRIES, LAG_SECONDS
from core.redis_client import address
from sources import stream_commands as commands
from sources.entries import parse_id
from sources.reading import Connection, Cursor, Reading
from sources.resp import ReplyError
from sources.stream_state import START, Id, StreamInfo, backward, gap, raise_backward

log = structlog.get_logger()

COUNTED_ENTRIES: Final = 100
"""Entries of one reply while counting: few, since they come with their payloads."""


class StreamChecks:
    """The checks of one reader."""

    def __init__(self, settings: RedisSettings, reading: Reading) -> None:
        self._settings, self._reading = settings, reading
        self._server = address(settings)

    def create(self, connection: Connection, cursor: Cursor) -> StreamInfo:
        """Create a stream nothing was ever added to."""
        state = cursor.state
        if state.read_count and not self._reading.accept_gap:
            why = f"it does not exist any more, but {state.read_count} entries had been read"
            raise_backward(state, why, self._server)
        empty = StreamInfo(0, 0, START, None, None)
        if self._reading.read_only:
            return empty
        for reply in connection.call(commands.create(state.name)):
            if isinstance(reply, ReplyError) and not str(reply).startswith("BUSYGROUP"):
                raise commands.refused(state.name, reply)
        reply = connection.call([commands.load_info(state.name)])[0]
        return commands.parse_info(state.name, reply) or empty

    def check(self, connection: Connection, cursor: Cursor, info: StreamInfo) -> None:
        """Compare one stream with its state.

        :raises StreamBackward: it lost its tail, and that is not accepted.
        :raises StreamGap: entries were lost, and that is not accepted.
        """
        state = cursor.state
        state.begin(info)
        why = backward(state, info, 0 if cursor.is_new else self._reading.high_water_ms)
        if why is not None:
            if not self._reading.accept_gap:
                raise_backward(state, why, self._server)
            self._accept_backward(connection, cursor, info, why)
        lost = gap(state, info)
        if not lost:
            return
        after = f"{state.read[0]}-{state.read[1]}"
        if not self._reading.accept_gap:
            message = (
                f"stream {state.name} on {self._server}: {lost} entries after {after} were trimmed or deleted before "
                f"they were read; their events are not in the books. Have the producers send them again (ids seen "
                f"before are not counted twice) and start with `run --accept-gap`, which records the gap and goes on."
            )
            raise StreamGap(message)
        log.warning("A gap was accepted.", stream=state.name, entries_lost=lost, after=after)
        self._reading.on_loss(state.name, after, f"{lost} entries after {after} were lost before they were read")
        state.lose(lost)

    def _accept_backward(self, connection: Connection, cursor: Cursor, info: StreamInfo, why: str) -> None:
        """Take the stream as it is now. The record comes first: dying behind it, it is accepted again."""
        state = cursor.state
        after = f"{state.read[0]}-{state.read[1]}"
        log.warning("A lost tail was accepted.", stream=state.name, after=after, why=why)
        self._reading.on_loss(state.name, after, f"the stream went backward: {why}")
        unread = self._count_unread(connection, state.name, state.read, info.last_generated)
        state.restart(info.entries_added - unread, 0 if cursor.is_new else self._reading.high_water_ms)
        self.restore_fences(connection, [cursor])

    @staticmethod
    def _count_unread(connection: Connection, stream: str, after: Id, last: Id) -> int:
        """Count the entries behind `after` up to the last one the server's numbers speak of."""
        count = 0
        while after < last:
            end = b"%d-%d" % last
            reply = connection.call([commands.load_range(stream, after, end, COUNTED_ENTRIES, inclusive=False)])[0]
            if isinstance(reply, Exception):
                raise commands.refused(stream, reply)
            if not reply:
                break
            count, after = count + len(reply), parse_id(reply[-1][0])
        return count

    def restore_fences(self, connection: Connection, cursors: list[Cursor]) -> None:
        """Set claims again that the server has lost, so that what was promised stays true."""
        if self._reading.read_only:
            return
        fenced = [cursor.state for cursor in cursors if cursor.state.fence_ms]
        replies = connection.call(
            [commands.restore_fence(state.name, state.fence_ms, self._settings.fence) for state in fenced]
        )
        for state, reply in zip(fenced, replies, strict=True):
            if isinstance(reply, Exception):
                raise commands.refused(state.name, reply)
            if reply:
                log.warning("A fence was set again.", stream=state.name, fence_ms=state.fence_ms)

    def report_lag(self, cursor: Cursor, info: StreamInfo) -> None:
        """Set the lag metrics of one stream."""
        state = cursor.state
        LAG_ENTRIES.labels(state.name).set(max(0, info.entries_added - state.read_count))
        last = info.last_entry
        behind_ms = max(0, last[0] - state.read[0]) if last and state.read != START else 0
        LAG_SECONDS.labels(state.name).set(behind_ms / 1000)
