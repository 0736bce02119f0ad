"""Appends events for callers who wait for the answer, as the API does: many requests in one pipeline.

An entry holds the events of one request and stream, and beside them the field `request` with the request's id, so that
an entry can be traced to the call that made it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from config.settings import RedisSettings
from core.errors import Unreachable
from core.redis_client import unreachable
from sources.entries import REQUEST_FIELD
from sources.resp import ReplyError, RespConnection, pack
from sources.sending import BATCH_BYTES_MAX, BATCH_EVENTS_MAX, stream_of

Durability = Literal["memory", "disk", "replicas"]


@dataclass(frozen=True, slots=True)
class NewEntry:
    """One entry to append: `events` events of one request that share a stream."""

    stream: str
    payload: bytes
    events: int
    request_id: str

    def packed(self) -> bytes:
        """Return the command."""
        field = b"event" if self.events == 1 else b"events"
        if not self.request_id:
            return pack("XADD", self.stream, "*", field, self.payload)
        return pack("XADD", self.stream, "*", field, self.payload, REQUEST_FIELD, self.request_id)


def entries_of(
    events: Iterable[tuple[str, bytes]],
    streams: tuple[str, ...],
    request_id: str,
    *,
    events_max: int = BATCH_EVENTS_MAX,
    bytes_max: int = BATCH_BYTES_MAX,
) -> list[NewEntry]:
    """Return the entries for (subject, event) pairs, as few as the limits allow; order is kept within a stream.

    Every event must be valid JSON: a line break in it is then insignificant whitespace, and becomes a space.
    """
    waiting: dict[str, list[bytes]] = {}
    sizes: dict[str, int] = {}
    made: list[NewEntry] = []

    def close(stream: str) -> None:
        lines = waiting.pop(stream)
        made.append(NewEntry(stream, b"\n".join(lines), len(lines), request_id))

    route: dict[str, str] = {}
    for subject, raw in events:
        stream = route.get(subject)
        if stream is None:
            stream = route[subject] = stream_of(subject, streams)
        line = raw.replace(b"\n", b" ") if b"\n" in raw else raw
        lines = waiting.get(stream)
        if lines is not None and (len(lines) >= events_max or sizes[stream] + len(line) + 1 > bytes_max):
            close(stream)
            lines = None
        if lines is None:
            waiting[stream], sizes[stream] = [line], len(line)
        else:
            lines.append(line)
            sizes[stream] += len(line) + 1
    for stream in list(waiting):
        close(stream)
    return made


class Appender:
    """Appends over one connection, which is made when it is needed.

    Guarantee: an id in the answer was given by the server, and is as durable as asked for. After `Unreachable` it is
    unknown what arrived: the same events sent again are counted once.
    Unit of parallelism: one object per thread.
    """

    def __init__(self, settings: RedisSettings, durability: Durability, replicas: int, wait_ms_max: int) -> None:
        self._settings = settings
        self._durability, self._replicas, self._wait_ms_max = durability, replicas, wait_ms_max
        self._connection: RespConnection | None = None

    def append(self, entries: Sequence[NewEntry]) -> list[str]:
        """Append entries in order and return their ids.

        :raises Unreachable: the server is away or cannot store now, or did not confirm the durability in time.
        """
        if not entries:
            return []
        if self._connection is None:
            self._connection = RespConnection(self._settings)
        commands = [entry.packed() for entry in entries]
        waiting = self._waiting()
        try:
            replies = self._connection.call([*commands, *waiting])
        except BaseException:
            self.close()
            raise
        for entry, reply in zip(entries, replies, strict=False):
            if isinstance(reply, ReplyError):
                raise unreachable(self._settings, f"stream {entry.stream} took no entry: {reply}")
        if waiting:
            self._check_durable(replies[-1])
        return [reply.decode("ascii") for reply in replies[: len(entries)]]

    def _waiting(self) -> list[bytes]:
        if self._durability == "disk":
            return [pack("WAITAOF", 1, 0, self._wait_ms_max)]
        if self._durability == "replicas":
            return [pack("WAIT", self._replicas, self._wait_ms_max)]
        return []

    def _check_durable(self, reply: Any) -> None:
        if isinstance(reply, ReplyError):
            raise unreachable(self._settings, f"it cannot confirm durability: {reply}")
        done, wanted = (reply[0], 1) if self._durability == "disk" else (reply, self._replicas)
        if int(done) < wanted:
            where = "on its disk" if self._durability == "disk" else f"on {wanted} replica(s)"
            message = (
                f"Redis did not confirm within {self._wait_ms_max} ms that the events are {where}. They may be counted"
                " all the same: send them again with the same ids"
            )
            raise Unreachable(message)

    def close(self) -> None:
        """Close the connection; another `append` opens a new one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
