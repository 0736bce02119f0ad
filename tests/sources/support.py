"""Helpers of the source tests: streams with known entries, a reader on a real server, and a naive oracle."""

import random
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import redis

from config.settings import FlowSettings, RedisSettings, Settings
from core.clock import ManualClock, SystemClock
from operators.items import Marker, RawBatch
from sources.merged_reader import MergedReader
from sources.reading import Reading
from sources.redis_streams import ReaderPartition, RedisStreamSource
from sources.resp import RespConnection
from sources.stream_state import ReaderState, restore

Position = tuple[int, int, int]
"""(entry_ms, stream index, entry_seq): sorts in position order."""

NOW_MS = 1_700_000_000_000
"""Before the server's clock."""

STREAMS = ("usage:0", "usage:1", "usage:2", "usage:3")


class StepClock(ManualClock):
    """A clock on which every look takes ten milliseconds."""

    def __init__(self) -> None:
        super().__init__(datetime.now(UTC))

    def monotonic_s(self) -> float:
        self.sleep(0.01)
        return super().monotonic_s()


def settings_of(url: str, *, streams: tuple[str, ...] = STREAMS, flow: Any = None, **redis_settings: Any) -> Settings:
    return Settings(
        redis=RedisSettings(url=url, streams=streams, **({"idle_claim_ms": 10} | redis_settings)),
        flow=FlowSettings(**(flow or {})),
    )


def partition_of(
    settings: Settings, resume: dict[str, Any] | None = None, part: str = "reader-00", **options: Any
) -> ReaderPartition:
    stop, clock = options.pop("stop", None) or threading.Event(), options.pop("clock", None) or SystemClock()
    source = RedisStreamSource(settings, stop=stop, clock=clock, **options)
    return source.build_part("read", part, resume)


def reader_of(
    settings: Settings, resume: dict[str, Any] | None = None, reading: Reading | None = None
) -> tuple[MergedReader, ReaderState]:
    state = restore(list(enumerate(settings.redis.streams)), resume)
    reader = MergedReader(
        state,
        settings.redis,
        reading or Reading(),
        open_connection=lambda: RespConnection(settings.redis),
        clock=SystemClock(),
    )
    return reader, state


def positions(items: list[RawBatch | Marker]) -> list[Position]:
    """Return the positions of all entries of the items, in the order they have there."""
    found: list[Position] = []
    for item in items:
        if isinstance(item, RawBatch):
            found += zip(item.entry_ms.tolist(), item.stream.tolist(), item.entry_seq.tolist(), strict=True)
    return found


def payloads(items: list[RawBatch | Marker]) -> list[bytes]:
    return [payload for item in items if isinstance(item, RawBatch) for payload in item.payloads]


def markers(items: list[RawBatch | Marker]) -> list[int]:
    return [item.watermark_ms for item in items if isinstance(item, Marker)]


def check_markers(items: list[RawBatch | Marker]) -> None:
    """Fail if a marker goes back, or data comes below a marker sent before it."""
    promised = 0
    for item in items:
        if isinstance(item, Marker):
            assert item.watermark_ms >= promised
            promised = item.watermark_ms
        else:
            assert int(item.entry_ms.min()) >= promised


def drain(partition: ReaderPartition, *, limit_s: float = 20.0) -> list[RawBatch | Marker]:
    """Return all items until the partition ends."""
    items: list[RawBatch | Marker] = []
    until_s = time.monotonic() + limit_s
    while time.monotonic() < until_s:
        try:
            items += partition.next_batch()
        except StopIteration:
            return items
    message = f"the partition did not end within {limit_s} s"
    raise AssertionError(message)


def poll(partition: ReaderPartition, until: Callable[[list[Any]], bool], *, limit_s: float = 10.0) -> list[Any]:
    """Call the partition as the engine does, until the condition holds on all items so far."""
    items: list[RawBatch | Marker] = []
    until_s = time.monotonic() + limit_s
    while not until(items):
        assert time.monotonic() < until_s, f"not reached within {limit_s} s; {len(items)} items"
        items += partition.next_batch()
        awake = partition.next_awake()
        if awake is not None:
            time.sleep(max(0.0, min(0.05, awake.timestamp() - time.time())))
    return items


def add(client: redis.Redis, stream: int, entry_ms: int, entry_seq: int, **fields: Any) -> Position:
    values: Any = fields or {"event": b"%d-%d-%d" % (entry_ms, stream, entry_seq)}
    client.xadd(STREAMS[stream], values, id=f"{entry_ms}-{entry_seq}")
    return entry_ms, stream, entry_seq


def batch_lengths(items: list[RawBatch | Marker]) -> list[int]:
    return [len(item.payloads) for item in items if isinstance(item, RawBatch)]


def load(client: redis.Redis, count: int, seed: int = 1, start_ms: int = NOW_MS) -> list[Position]:
    """Add entries to all streams with ids that often share a millisecond; return them in position order."""
    chance = random.Random(seed)
    clocks, added = [(start_ms, 0)] * 4, []
    for _ in range(count):
        stream = chance.randrange(4)
        entry_ms, entry_seq = clocks[stream]
        step = chance.choice((0, 0, 1, 7))
        clocks[stream] = (entry_ms + step, 0 if step else entry_seq + 1)
        added.append(add(client, stream, *clocks[stream]))
    return sorted(added)
