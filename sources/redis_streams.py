"""The source of the metering flow: Redis streams, one merged reader per process. Wiring of `MergedReader`."""

import random
import threading
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

import structlog
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition

from config.settings import Settings
from core import faults
from core.clock import Clock, SystemClock
from core.errors import InvalidRequest, StopRequested, Unreachable
from core.metrics import BATCH_EVENTS, EPOCH_STARTED, WAITING_SINCE, WATERMARK
from operators.items import Marker, RawBatch
from sources.merged_reader import MergedReader
from sources.reading import OnLoss, Reading
from sources.resp import RespConnection
from sources.stream_state import Id, ReaderState, restore

log = structlog.get_logger()

WORK_S: Final = 0.15
"""How long one call may work; longer when much is waiting, and when the epoch is overdue, since it gets no other."""
WORK_LOADED_S: Final = 0.5
"""How long it may work towards a full item while whole reads come back: every item costs the steps behind it the same
few tens of milliseconds, however many events it has."""
AWAKE_S_MAX: Final = 1.0
BACKOFF_FIRST_S: Final = 0.05
BACKOFF_S_MAX: Final = 5.0
CAP_WAIT_S: Final = 0.02
MS_PER_MINUTE: Final = 60_000
POSITIONS_SHOWN_MAX: Final = 16
"""Streams in one line of the log."""
ITEM_BYTES_PER_EVENT: Final = 512
ITEM_BYTES_MIN: Final = 1 << 20
ITEM_BYTES_MAX: Final = 32 << 20

Item = RawBatch | Marker


def item_bytes_max(events_max: int) -> int:
    """Return the byte limit of an item that goes with its limit of events."""
    return min(ITEM_BYTES_MAX, max(ITEM_BYTES_MIN, events_max * ITEM_BYTES_PER_EVENT))


class ReaderPartition(StatefulSourcePartition[Item, dict[str, Any]]):
    """One reader as the engine calls it.

    Guarantee: a marker goes out in every epoch and behind every seal point (a minute's end plus the grace), after
    all data below it; never lower than one before, over restarts as well. While Redis is away nothing is read, the
    last watermark is repeated, and the process stays responsive.
    Unit of parallelism: the reader. Dying here loses nothing: the engine's snapshot holds positions that left.
    """

    def __init__(
        self,
        name: str,
        state: ReaderState,
        reader: MergedReader,
        *,
        settings: Settings,
        stop: threading.Event,
        grace_s: int,
        end_watermark_ms: int | None,
        clock: Clock,
    ) -> None:
        self._name, self._state, self._reader = name, state, reader
        self._flow, self._stop, self._clock = settings.flow, stop, clock
        self._poll_s = min(self._flow.item_ms_max / 1000, AWAKE_S_MAX)
        self._grace_ms = grace_s * 1000
        self._end_watermark_ms = end_watermark_ms
        self._ended = False
        self._epoch_bytes = 0
        self._epoch_began_s = clock.monotonic_s()
        self._marked = False
        self._awake: datetime | None = None
        self._called_at = clock.now()
        self._retry_at_s = 0.0
        self._attempts = 0
        self._jitter = random.Random(name)  # noqa: S311  # spreads retries, decides nothing
        EPOCH_STARTED.set(clock.now().timestamp())

    def next_batch(self) -> list[Item]:
        """Read for a while and return items, a marker last; ends when drained or stopped."""
        if self._ended or self._stop.is_set():
            self._reader.disconnect()
            raise StopIteration
        items: list[Item] = []
        self._awake = None
        self._called_at = self._clock.now()
        if self._epoch_bytes >= self._flow.epoch_bytes_max:
            self._sleep(CAP_WAIT_S)
        elif self._clock.monotonic_s() < self._retry_at_s:
            self._sleep(self._retry_at_s - self._clock.monotonic_s())
        else:
            self._work(items)
        self._ended = self._reader.finished
        self._mark(items)
        return items

    def _work(self, items: list[Item]) -> None:
        """Append what can be read within this call's time."""
        began_s = taken_s = self._clock.monotonic_s()
        overdue_s = 0.0 if self._marked else began_s - self._epoch_began_s
        work_s = min(max(WORK_S, overdue_s), self._flow.epoch_s)
        work_loaded_s = min(max(WORK_LOADED_S, overdue_s), self._flow.epoch_s)
        try:
            while not self._stop.is_set():
                entries = self._reader.round()
                if entries:
                    faults.reach("source.read")
                self._recovered()
                now_s = self._clock.monotonic_s()
                is_loaded = self._reader.is_behind
                over = entries == 0 or now_s - began_s >= (work_loaded_s if is_loaded else work_s)
                is_due = not is_loaded and (now_s - taken_s) * 1000 >= self._flow.item_ms_max
                if over or is_due or self._reader.has_item:
                    self._collect(items)
                    taken_s = now_s
                over |= bool(items) and now_s - began_s >= work_s
                if over or self._reader.finished or self._epoch_bytes >= self._flow.epoch_bytes_max:
                    break
            if entries == 0 or not items:
                self._sleep(self._poll_s)
        except Unreachable as error:
            self._collect(items)  # what was read before may go on all the same
            self._lost(error)
        except StopRequested:
            log.info("Stopped while waiting for Redis.", reader=self._name)

    def _collect(self, items: list[Item]) -> None:
        for batch in self._reader.take():
            items.append(batch)
            self._epoch_bytes += sum(map(len, batch.payloads))
            BATCH_EVENTS.observe(len(batch.payloads))

    def _mark(self, items: list[Item]) -> None:
        """Append a marker where one is due: once an epoch, and where a minute can seal."""
        watermark_ms = max(self._state.sent_ms, self._reader.watermark_ms)
        if self._ended and self._end_watermark_ms is not None:
            watermark_ms = max(self._state.sent_ms, self._end_watermark_ms)
        crossed = self._seal_point(watermark_ms) > self._seal_point(self._state.sent_ms)
        if self._marked and not crossed and not self._ended:
            return
        self._marked = True
        self._state.sent_ms = watermark_ms
        items.append(Marker(self._name, watermark_ms))
        WATERMARK.labels("reader").set(watermark_ms / 1000)

    def _seal_point(self, watermark_ms: int) -> int:
        return (watermark_ms - self._grace_ms) // MS_PER_MINUTE

    def _sleep(self, seconds: float) -> None:
        """Ask to be called again in a while.

        The engine takes the time at which it began this call for the present. Counted from anything later, a call
        that hung on the server for 30 s would be followed by 30 s in which nothing happens, not even an ending.
        """
        self._awake = self._called_at + timedelta(seconds=min(seconds, AWAKE_S_MAX))

    def _lost(self, error: Unreachable) -> None:
        """Wait before the next attempt, longer each time."""
        if not self._attempts:
            WAITING_SINCE.labels("redis").set(self._clock.now().timestamp())
            log.warning("Waiting for Redis; reading goes on by itself.", reader=self._name, cause=str(error))
        pause_s = min(BACKOFF_S_MAX, BACKOFF_FIRST_S * 2 ** min(self._attempts, 10))
        pause_s *= self._jitter.uniform(0.5, 1.0)
        self._attempts += 1
        self._retry_at_s = self._clock.monotonic_s() + pause_s
        self._sleep(pause_s)

    def _recovered(self) -> None:
        if self._attempts:
            self._attempts = 0
            WAITING_SINCE.labels("redis").set(0)
            log.info("Redis is back; reading went on where it was.", reader=self._name)

    def next_awake(self) -> datetime | None:
        """Return when to call again; None is at once after data."""
        return self._awake

    def snapshot(self) -> dict[str, Any]:
        """Return the positions handed on so far; a new epoch begins."""
        faults.reach("source.snapshot")
        self._epoch_bytes, self._marked = 0, False
        self._epoch_began_s = self._clock.monotonic_s()
        EPOCH_STARTED.set(self._clock.now().timestamp())
        return self._state.snapshot()

    def close(self) -> None:
        """Close the connection."""
        self._reader.disconnect()


class RedisStreamSource(FixedPartitionedSource[Item, dict[str, Any]]):
    """Usage events from Redis streams, merged into position order per reader, with watermarks.

    Guarantee: every entry is handed on in position order, at least once per recovery and exactly once in state; an
    entry lost by trimming, a stream that went backward or an entry below a watermark stops the flow.
    Unit of parallelism: the reader (`settings.flow.readers`); stream i belongs to reader i % readers.
    What happens if the process dies: the next start reads on from the engine's last snapshot.

    `drain` ends at the last ids seen at the start. `read_only` never writes and ends at `end_ids` or before
    `end_watermark_ms`, which is its last marker. `high_water_ms`: books exist up to there.
    `accept_gap` goes on where entries or a stream's tail were lost, once `on_loss` has recorded it.

    :raises InvalidRequest: there are more readers than streams, or a read-only source has no end.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        stop: threading.Event,
        drain: bool = False,
        end_ids: Mapping[str, Id] | None = None,
        read_only: bool = False,
        end_watermark_ms: int | None = None,
        grace_s: int = 60,
        high_water_ms: int = 0,
        accept_gap: bool = False,
        on_loss: OnLoss = lambda _stream, _after, _detail: None,
        clock: Clock | None = None,
    ) -> None:
        readers, streams = settings.flow.readers, settings.redis.streams
        if readers > len(streams):
            message = (
                f"{readers} readers share {len(streams)} streams, so some would read nothing and hold back the "
                "watermark for ever: lower METERBRIDGE_FLOW__READERS, or add streams to METERBRIDGE_REDIS__STREAMS"
            )
            raise InvalidRequest(message)
        self._settings, self._stop, self._grace_s = settings, stop, grace_s
        self._clock = clock or SystemClock()
        events_max = settings.flow.item_events_max
        self._reading = Reading(
            drain=drain,
            read_only=read_only,
            accept_gap=accept_gap,
            on_loss=on_loss,
            end_ids=end_ids,
            end_watermark_ms=end_watermark_ms,
            high_water_ms=high_water_ms,
            item_events_max=events_max,
            item_bytes_max=item_bytes_max(events_max),
        )
        self._readers: list[MergedReader] = []

    def list_parts(self) -> list[str]:
        """Return the names of all readers."""
        return [f"reader-{number:02d}" for number in range(self._settings.flow.readers)]

    def build_part(self, step_id: str, for_part: str, resume_state: dict[str, Any] | None) -> ReaderPartition:
        """Return one reader, continuing where its state says. It connects with its first call."""
        redis, readers = self._settings.redis, self._settings.flow.readers
        number = int(for_part.removeprefix("reader-"))
        names = [(index, name) for index, name in enumerate(redis.streams) if index % readers == number]
        state = restore(names, resume_state)
        if not self._reading.read_only:
            log.info("Reading begins behind these positions.", reader=for_part, positions=_positions(state))
        reader = MergedReader(
            state,
            redis,
            self._reading,
            open_connection=partial(RespConnection, redis, self._stop.is_set),
            clock=self._clock,
        )
        self._readers.append(reader)
        return ReaderPartition(
            for_part,
            state,
            reader,
            settings=self._settings,
            stop=self._stop,
            grace_s=self._grace_s,
            end_watermark_ms=self._reading.end_watermark_ms,
            clock=self._clock,
        )

    @property
    def first_entry_ms(self) -> int:
        """Return the time of the first entry that was there at the start, over all streams; 0 without any."""
        times = [cursor.first_ms for reader in self._readers for cursor in reader.cursors]
        return min((time_ms for time_ms in times if time_ms is not None), default=0)

    @property
    def entries_trimmed(self) -> int:
        """Return how many entries had been trimmed from the streams before the start."""
        return sum(cursor.trimmed_at_start for reader in self._readers for cursor in reader.cursors)

    @property
    def entries_held(self) -> int:
        """Return how many entries were read and not handed on, since the watermark is below them."""
        states = [cursor.state for reader in self._readers for cursor in reader.cursors]
        return sum(state.read_count - state.emitted_count for state in states)


def _positions(state: ReaderState) -> dict[str, str]:
    """Return the entry ids that the first streams were read up to, for the log."""
    return {one.name: f"{one.emitted[0]}-{one.emitted[1]}" for one in state.streams[:POSITIONS_SHOWN_MAX]}
