"""One call of the producer: entries that wait, pipelines on their way, ids given, loading keys held."""

import contextlib
import zlib
from collections import defaultdict, deque
from dataclasses import dataclass, field
from typing import Final

from core.clock import Clock
from core.errors import InvalidRequest
from sources.entries import ID_PART_MAX
from sources.resp import ReplyError, RespConnection, pack
from sources.stream_commands import LOADING_PREFIX, parse_info, refused
from sources.stream_state import START, Id

PIPELINE_ENTRIES: Final = 1_000
PIPELINE_BYTES: Final = 1 << 20
PIPELINES_AHEAD: Final = 2
"""Pipelines sent before the replies of the first are read: the server works while we pack."""
BATCH_EVENTS_MAX: Final = 1_000
BATCH_BYTES_MAX: Final = 1 << 20
LOADING_TTL_MS: Final = 10_000
LOADING_RENEW_S: Final = 2.0

Record = tuple[int | None, str, bytes]
"""Arrival time in ms or None for the server's clock, subject, event."""


@dataclass(frozen=True, slots=True)
class StreamReport:
    """What went into one stream."""

    entries: int = 0
    events: int = 0
    first_id: str = ""
    last_id: str = ""


@dataclass(slots=True)
class SendReport:
    """What was sent. `fsynced`: the server confirmed that it is on its disk; None if not asked."""

    events: int = 0
    entries: int = 0
    payload_bytes: int = 0
    seconds: float = 0.0
    fsynced: bool | None = None
    streams: dict[str, StreamReport] = field(default_factory=dict)


@dataclass(slots=True)
class _Open:
    """Events of one stream and arrival time that wait to become one entry."""

    arrival_ms: int | None
    events: list[bytes] = field(default_factory=list)
    size_bytes: int = 0


@dataclass(slots=True)
class _Sent:
    entries: int = 0
    events: int = 0
    first_id: bytes = b""
    last_id: bytes = b""


@dataclass(frozen=True, slots=True)
class _InFlight:
    """A pipeline whose replies were not read yet: first those to renewals, then one per owner."""

    renewals: int
    owners: list[tuple[str, int]]
    payload_bytes: int


def stream_of(subject: str, streams: tuple[str, ...]) -> str:
    """Return the stream a subject's events go to."""
    return streams[zlib.crc32(subject.encode("utf-8", "surrogatepass")) % len(streams)]


class Sending:
    """Queues, joins and sends records; reports only what the server acknowledged."""

    def __init__(
        self,
        connection: RespConnection,
        streams: tuple[str, ...],
        batch: int,
        clock: Clock,
    ) -> None:
        self._connection, self._streams, self._batch, self._clock = connection, streams, batch, clock
        self._route: dict[str, str] = {}
        self._open: dict[str, _Open] = {}
        self._packed: list[bytes] = []
        self._owners: list[tuple[str, int]] = []
        self._packed_bytes = 0
        self._in_flight: deque[_InFlight] = deque()
        self._last: dict[str, Id] = {}
        self._is_loading = False
        self._renew_at_s = 0.0
        self._explicit: bool | None = None
        self._payload_bytes = 0
        self._sent: dict[str, _Sent] = defaultdict(_Sent)

    def add(self, records: list[Record]) -> None:
        """Queue records and send what is full."""
        for arrival_ms, subject, payload in records:
            name = self._route.get(subject) or self._routed(subject)
            if (arrival_ms is not None) is not self._explicit:
                self._begin(arrival_ms)
            if self._batch == 1:
                self._queue(name, arrival_ms, b"event", payload, 1)
            else:
                self._join(name, arrival_ms, payload)

    def _routed(self, subject: str) -> str:
        if len(self._route) > 100_000:
            self._route.clear()
        name = self._route[subject] = stream_of(subject, self._streams)
        return name

    def _begin(self, arrival_ms: int | None) -> None:
        """With the first record: if it is history, stop the clocks of all streams it may go to."""
        if self._explicit is not None:
            message = "records with and without an arrival time cannot be sent together"
            raise InvalidRequest(message)
        self._explicit = self._is_loading = arrival_ms is not None
        if self._is_loading:
            for name, reply in zip(self._streams, self._connection.call(self._renewals()), strict=True):
                if isinstance(reply, ReplyError):
                    raise refused(name, reply)

    def _join(self, name: str, arrival_ms: int | None, payload: bytes) -> None:
        if b"\n" in payload:
            payload = payload.strip(b"\r\n")
            if b"\n" in payload:
                message = (
                    f"stream {name}: an event with a line break inside cannot be sent in a batch, it would be cut in "
                    f"two: write it on one line, or send with batch 1"
                )
                raise InvalidRequest(message)
        waiting = self._open.get(name)
        if waiting is not None and (
            waiting.arrival_ms != arrival_ms or waiting.size_bytes + len(payload) + 1 > BATCH_BYTES_MAX
        ):
            self._close_batch(name)
            waiting = None
        if waiting is None:
            waiting = self._open[name] = _Open(arrival_ms)
        waiting.events.append(payload)
        waiting.size_bytes += len(payload) + 1
        if len(waiting.events) >= self._batch:
            self._close_batch(name)

    def _close_batch(self, name: str) -> None:
        waiting = self._open.pop(name)
        field_name = b"event" if len(waiting.events) == 1 else b"events"
        self._queue(name, waiting.arrival_ms, field_name, b"\n".join(waiting.events), len(waiting.events))

    def _queue(self, name: str, arrival_ms: int | None, field_name: bytes, payload: bytes, events: int) -> None:
        entry_id = b"*" if arrival_ms is None else self._explicit_id(name, arrival_ms)
        self._packed.append(pack("XADD", name, entry_id, field_name, payload))
        self._owners.append((name, events))
        self._packed_bytes += len(payload)
        if len(self._packed) >= PIPELINE_ENTRIES or self._packed_bytes >= PIPELINE_BYTES:
            self._send()

    def _explicit_id(self, name: str, arrival_ms: int) -> bytes:
        last = self._last.get(name)
        if last is None:
            last = self._last_id_below(name, arrival_ms)
        if not 0 < arrival_ms < ID_PART_MAX or arrival_ms < last[0]:
            message = (
                f"stream {name}: the arrival time {arrival_ms} ms comes after {last[0]} ms; entry ids only grow. "
                "Sort the events by time before sending them as history."
            )
            raise InvalidRequest(message)
        entry_seq = last[1] + 1 if arrival_ms == last[0] else 0
        self._last[name] = (arrival_ms, entry_seq)
        return b"%d-%d" % (arrival_ms, entry_seq)

    def _last_id_below(self, name: str, arrival_ms: int) -> Id:
        """Make sure that the stream, whose clock stands still now, has not passed the history already."""
        while self._in_flight:  # replies come in the order of the commands
            self._acknowledge()
        info = parse_info(name, self._connection.call([pack("XINFO", "STREAM", name)])[0])
        last = info.last_generated if info is not None else START
        if last >= (arrival_ms, 0):
            message = (
                f"stream {name} already has the id {last[0]}-{last[1]}, above the first event's time {arrival_ms} ms: "
                "ids only grow, so this history cannot be put below it. Load history before anything else is sent and "
                "before the flow first runs, or send without ids from time; then the events are booked as late ones."
            )
            raise InvalidRequest(message)
        return last

    def _send(self) -> None:
        """Send what is queued, and read the replies to what was sent before."""
        if not self._packed:
            return
        renewals = self._renewals()
        self._connection.send(b"".join([*renewals, *self._packed]))
        self._in_flight.append(_InFlight(len(renewals), self._owners, self._packed_bytes))
        self._packed, self._owners, self._packed_bytes = [], [], 0
        while len(self._in_flight) >= PIPELINES_AHEAD:
            self._acknowledge()

    def _acknowledge(self) -> None:
        """Read the replies of the oldest pipeline and note what was stored."""
        pipeline = self._in_flight.popleft()
        for _ in range(pipeline.renewals):
            self._connection.receive()
        rejected: Exception | None = None
        for name, events in pipeline.owners:
            reply = self._connection.receive()
            if isinstance(reply, ReplyError):
                rejected = rejected or self._rejected(name, reply)
                continue
            sent = self._sent[name]
            sent.entries += 1
            sent.events += events
            sent.first_id = sent.first_id or reply
            sent.last_id = reply
        if rejected is not None:
            raise rejected
        self._payload_bytes += pipeline.payload_bytes

    def _rejected(self, name: str, reply: ReplyError) -> Exception:
        if "equal or smaller" in str(reply):
            return InvalidRequest(
                f"stream {name} got newer entries while history was being loaded ({reply}): nothing else may write to "
                f"it meanwhile. {self.report().events} events were stored; sent again, they are not counted twice."
            )
        return refused(name, reply)

    def _renewals(self) -> list[bytes]:
        if not self._is_loading or self._clock.monotonic_s() < self._renew_at_s:
            return []
        self._renew_at_s = self._clock.monotonic_s() + LOADING_RENEW_S
        return [pack("SET", LOADING_PREFIX + name, b"1", "PX", LOADING_TTL_MS) for name in self._streams]

    def report(self) -> SendReport:
        """Return what was acknowledged so far."""
        streams = {
            name: StreamReport(sent.entries, sent.events, sent.first_id.decode("ascii"), sent.last_id.decode("ascii"))
            for name, sent in sorted(self._sent.items())
        }
        return SendReport(
            events=sum(sent.events for sent in streams.values()),
            entries=sum(sent.entries for sent in streams.values()),
            payload_bytes=self._payload_bytes,
            streams=streams,
        )

    def flush(self) -> None:
        """Send everything that waits, batches that are not full included, and see it stored."""
        for name in list(self._open):
            self._close_batch(name)
        self._send()
        while self._in_flight:
            self._acknowledge()

    def wait_aof(self, timeout_ms: int) -> bool:
        """Wait until the server has what was sent on its disk; False if it keeps no such file or takes too long."""
        reply = self._connection.call([pack("WAITAOF", 1, 0, timeout_ms)])[0]
        return not isinstance(reply, ReplyError) and int(reply[0]) >= 1

    def abandon(self) -> None:
        """After an error: see what was sent stored, then let the streams' clocks go on."""
        while self._in_flight:
            with contextlib.suppress(InvalidRequest):
                self._acknowledge()
        self.stop_loading()

    def stop_loading(self) -> None:
        """Let the streams' clocks go on."""
        if self._is_loading:
            self._connection.call([pack("DEL", *(LOADING_PREFIX + name for name in self._streams))])
            self._is_loading = False
