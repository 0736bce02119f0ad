"""Puts events into the streams: what `send`, `simulate` and tests use."""

import contextlib
from collections.abc import Iterable, Iterator
from typing import Final, Self

from config.settings import RedisSettings
from core.clock import Clock, SystemClock
from core.errors import InvalidRequest, Unreachable
from sources.resp import RespConnection
from sources.sending import (
    BATCH_EVENTS_MAX,
    PIPELINE_ENTRIES,
    Record,
    Sending,
    SendReport,
    StreamReport,
    stream_of,
)

__all__ = ["Producer", "Record", "SendReport", "StreamReport", "stream_of"]

PART_S_MAX: Final = 0.5


class Producer:
    """Sends events in pipelines over one connection.

    Guarantee: an event in the report was acknowledged by the server, in the order given within its stream. After
    an error it is unknown which of the last pipeline arrived: send again with the same event ids; they are counted
    once.
    Unit of parallelism: one object per process or thread. Dying here leaves what was acknowledged; the loading keys
    of history run out by themselves.
    """

    def __init__(self, settings: RedisSettings, *, clock: Clock | None = None) -> None:
        self._settings = settings
        self._clock = clock or SystemClock()
        self._connection: RespConnection | None = None

    def __enter__(self) -> Self:
        """Return this producer; the connection is made with the first `send`."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self.close()

    def close(self) -> None:
        """Close the connection; another `send` opens a new one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def send(
        self,
        records: Iterable[Record],
        *,
        batch: int = 1,
        stream: str | None = None,
        wait_aof: bool = False,
        wait_aof_timeout_ms: int = 5_000,
    ) -> SendReport:
        """Send records; `batch` > 1 joins that many events of a stream, and arrival time if given, into one entry.

        With arrival times the entry ids are made of them, so that history lands in its own hours; times must not
        fall within a stream. Mixing records with and without arrival times is refused.

        Where records come slowly they are sent at least every half second, once the next one has come.

        :raises InvalidRequest: `batch` is out of range, an arrival time cannot be used, or an event holds a line
            break that would cut it in two.
        :raises Unreachable: the server is away.
        """
        if not 1 <= batch <= BATCH_EVENTS_MAX:
            message = f"batch must be from 1 to {BATCH_EVENTS_MAX} events, not {batch}"
            raise InvalidRequest(message)
        began_s = self._clock.monotonic_s()
        if self._connection is None:
            self._connection = RespConnection(self._settings)
        streams = self._settings.streams if stream is None else (stream,)
        sending = Sending(self._connection, streams, batch, self._clock)
        try:
            for part in self._parts(records):
                sending.add(part)
                if len(part) < PIPELINE_ENTRIES:  # they come slowly: do not let them wait
                    sending.flush()
            sending.flush()
            report = sending.report()
            if wait_aof:
                report.fsynced = sending.wait_aof(wait_aof_timeout_ms)
            sending.stop_loading()
        except Unreachable:
            self.close()
            raise
        except BaseException:
            with contextlib.suppress(Unreachable, InvalidRequest):  # the keys run out by themselves
                sending.abandon()
            self.close()
            raise
        report.seconds = self._clock.monotonic_s() - began_s
        return report

    def _parts(self, records: Iterable[Record]) -> Iterator[list[Record]]:
        """Cut records into parts of up to a pipeline, or of what came in half a second."""
        part: list[Record] = []
        due_s = self._clock.monotonic_s() + PART_S_MAX
        for record in records:
            part.append(record)
            if len(part) >= PIPELINE_ENTRIES or self._clock.monotonic_s() >= due_s:
                yield part
                part = []
                due_s = self._clock.monotonic_s() + PART_S_MAX
        if part:
            yield part
