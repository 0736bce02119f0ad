"""Events as ClickHouse keeps them, read as if they came from the streams: for spans the streams hold no longer.

Accepted events and refused ones have their positions and raw bytes, so decoding, dedupe and everything behind them can
be done again. What is missing: duplicates, which leave a count and change nothing else; and the end of refused bytes
above 64 KiB, which are handed on with the reason they were given.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition

from config.settings import Settings
from operators.items import EVENT, MALFORMED, REFUSED, Marker, RawBatch
from sinks.clickhouse.client import Client, connect, quoted
from sources.redis_streams import RedisStreamSource

MS_PER_MINUTE: Final = 60_000
MS_PER_HOUR: Final = 3_600_000
EVENTS_PER_READ: Final = 200_000
"""So many are held at once, if no single minute has more."""

_COLUMNS: Final = "toUnixTimestamp64Milli(ingest_time) AS ms, stream, entry_id, entry_index"

Item = RawBatch | Marker
_Row = tuple[int, int, int, int, int, bytes, str]
"""Entry ms, stream index, entry seq, entry index, kind, payload, why it was refused."""


@dataclass(frozen=True, slots=True)
class Stored:
    """Reads the stored events of some streams (name to index) that arrived before `end_ms`."""

    client: Client
    streams: dict[str, int]
    end_ms: int
    item_events_max: int

    def batches(self) -> Iterator[RawBatch]:
        """Yield all of them in position order; whole minutes of arrival are held at a time, at most an hour."""
        for start, end in self._spans_ms():
            rows = sorted([*self._accepted(start, end), *self._refused(start, end)], key=lambda row: row[:4])
            for place in range(0, len(rows), self.item_events_max):
                yield _batch(rows[place : place + self.item_events_max])

    def _table(self, name: str) -> str:
        return f"{quoted(self.client.settings.database)}.{name}"

    def _spans_ms(self) -> Iterator[tuple[int, int]]:
        """Yield spans of arrival that have rows, before the end, each with about EVENTS_PER_READ of them."""
        text = " UNION ALL ".join(
            f"SELECT intDiv(toUnixTimestamp64Milli(ingest_time), {MS_PER_MINUTE}) AS minute, count() AS rows"  # noqa: S608
            f" FROM {self._table(name)} GROUP BY minute"
            for name in ("usage_events", "usage_rejects")
        )
        text = f"SELECT minute, sum(rows) FROM ({text}) GROUP BY minute ORDER BY minute"  # noqa: S608
        begins = ends = rows = 0
        for block in self.client.blocks(text):
            for minute, count in block:
                start = int(minute) * MS_PER_MINUTE
                if rows and (rows + int(count) > EVENTS_PER_READ or start - begins >= MS_PER_HOUR):
                    yield begins, min(ends, self.end_ms)
                    rows = 0
                if start >= self.end_ms:
                    break
                begins = begins if rows else start
                ends, rows = start + MS_PER_MINUTE, rows + int(count)
        if rows:
            yield begins, min(ends, self.end_ms)

    def _read(self, text: str, start: int, end: int) -> Iterator[Sequence[Any]]:
        parameters = {"streams": list(self.streams), "start": start, "end": end}
        for block in self.client.blocks(text, parameters):
            yield from block

    def _condition(self) -> str:
        return (
            " WHERE stream IN {streams:Array(String)} AND ingest_time >= fromUnixTimestamp64Milli({start:Int64}, 'UTC')"
            " AND ingest_time < fromUnixTimestamp64Milli({end:Int64}, 'UTC')"
        )

    def _accepted(self, start: int, end: int) -> Iterator[_Row]:
        text = f"SELECT {_COLUMNS}, data FROM {self._table('usage_events_current')}{self._condition()}"  # noqa: S608
        for entry_ms, stream, entry_id, index, data in self._read(text, start, end):
            yield entry_ms, self.streams[stream], _seq(entry_id), index, EVENT, _bytes(data), ""

    def _refused(self, start: int, end: int) -> Iterator[_Row]:
        columns = f"{_COLUMNS}, reason, detail, raw"
        text = f"SELECT {columns} FROM {self._table('usage_rejects_current')}{self._condition()} AND counted = 1"  # noqa: S608
        for entry_ms, stream, entry_id, index, reason, detail, raw in self._read(text, start, end):
            kind, why = EVENT, ""
            if reason == "malformed_entry":
                kind, why = MALFORMED, detail
            elif "(raw cut at " in detail:
                kind, why = REFUSED, f"{reason} {detail}"
            yield entry_ms, self.streams[stream], _seq(entry_id), index, kind, _bytes(raw), why


def _seq(entry_id: str) -> int:
    return int(entry_id.partition("-")[2])


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


def _batch(rows: list[_Row]) -> RawBatch:
    return RawBatch(
        stream=np.array([row[1] for row in rows], dtype=np.uint16),
        entry_ms=np.array([row[0] for row in rows], dtype=np.int64),
        entry_seq=np.array([row[2] for row in rows], dtype=np.int64),
        kinds=np.array([row[4] for row in rows], dtype=np.uint8),
        payloads=[row[5] for row in rows],
        details={place: row[6] for place, row in enumerate(rows) if row[6]},
        entry_index=np.array([row[3] for row in rows], dtype=np.int32),
    )


class StoredPartition(StatefulSourcePartition[Item, Any]):
    """Stored events up to a time, then what the streams hold from that time on.

    For replays into empty stores only: it starts from the beginning. Dying here loses the replay, which is begun
    again. Once it has ended, its state is that of the streams' reader, from which a flow can go on.
    """

    def __init__(
        self, name: str, client: Client, stored: Stored, streams: StatefulSourcePartition[Item, Any] | None
    ) -> None:
        self._name, self._client, self._end_ms = name, client, stored.end_ms
        self._batches = stored.batches()
        self._stored_done = False
        self._streams = streams

    def next_batch(self) -> list[Item]:
        """Return the next items, in position order, a marker last."""
        if not self._stored_done:
            batch = next(self._batches, None)
            if batch is not None:
                return [batch, Marker(self._name, int(batch.entry_ms[-1]))]
            self._stored_done = True
            return [Marker(self._name, self._end_ms)]
        if self._streams is None:
            raise StopIteration
        items: list[Item] = []
        for item in self._streams.next_batch():
            if isinstance(item, Marker):
                if item.watermark_ms >= self._end_ms:
                    items.append(item)
            elif (kept := _from(item, self._end_ms)) is not None:
                items.append(kept)
        return items

    def next_awake(self) -> Any:
        """Return when to call again."""
        return self._streams.next_awake() if self._stored_done and self._streams is not None else None

    def snapshot(self) -> Any:
        """Return the state of the streams' reader, which also learns from this call that an epoch has ended."""
        return None if self._streams is None else self._streams.snapshot()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
        if self._streams is not None:
            self._streams.close()


def _from(batch: RawBatch, start_ms: int) -> RawBatch | None:
    """Return the batch without entries before that time; None if nothing is left."""
    first = int(np.searchsorted(batch.entry_ms, start_ms))
    if first == 0:
        return batch
    if first == len(batch.payloads):
        return None
    return RawBatch(
        stream=batch.stream[first:],
        entry_ms=batch.entry_ms[first:],
        entry_seq=batch.entry_seq[first:],
        kinds=batch.kinds[first:],
        payloads=batch.payloads[first:],
        details={place - first: why for place, why in batch.details.items() if place >= first},
    )


class StoredEventSource(FixedPartitionedSource[Item, Any]):
    """Stored events of the live database before `end_ms`, then the streams' own from there, by the same readers.

    `streams` is a read-only source, or None if stored events are all that is wanted.
    """

    def __init__(self, live: Settings, end_ms: int, streams: RedisStreamSource | None) -> None:
        self._live, self._end_ms, self._streams = live, end_ms, streams

    def list_parts(self) -> list[str]:
        """Return the names of all readers."""
        return [f"reader-{number:02d}" for number in range(self._live.flow.readers)]

    def build_part(self, step_id: str, for_part: str, resume_state: Any) -> StoredPartition:
        """Return one reader from the beginning."""
        number = int(for_part.removeprefix("reader-"))
        names = {
            name: index
            for index, name in enumerate(self._live.redis.streams)
            if index % self._live.flow.readers == number
        }
        client = connect(self._live.clickhouse)
        stored = Stored(client, names, self._end_ms, self._live.flow.item_events_max)
        streams = None if self._streams is None else self._streams.build_part(step_id, for_part, None)
        return StoredPartition(for_part, client, stored, streams)
