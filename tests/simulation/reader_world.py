"""The merged reader against a faulty stream server: every entry once, in position order, never below a marker."""

import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from config.settings import RedisSettings, Settings
from core.clock import ManualClock
from operators.items import Marker, RawBatch
from sources.merged_reader import MergedReader
from sources.reading import Reading
from sources.redis_streams import ReaderPartition
from sources.stream_state import restore
from tests.simulation.fate import Died, Fate, require
from tests.simulation.redis_server import FaultyConnection, Server

STREAMS = ("usage:0", "usage:1", "usage:2")
START = datetime(2024, 1, 31, 20, tzinfo=UTC)
PAUSES_S = (0.0, 0.001, 0.05, 1.0, 20.0, 90.0)

Position = tuple[int, int, int]


def build_reader(
    name: str,
    streams: list[tuple[int, str]],
    snapshot: dict[str, Any] | None,
    server: Server,
    fate: Fate,
    clock: ManualClock,
    settings: Settings,
    *,
    high_water_ms: int = 0,
    grace_s: int = 60,
    accept_gap: bool = False,
) -> ReaderPartition:
    """Return a real reader on the simulated server."""
    state = restore(streams, snapshot)
    reader = MergedReader(
        state,
        settings.redis,
        Reading(high_water_ms=high_water_ms, item_events_max=settings.flow.item_events_max, accept_gap=accept_gap),
        open_connection=lambda: FaultyConnection(server, fate, clock),
        clock=clock,
    )
    return ReaderPartition(
        name,
        state,
        reader,
        settings=settings,
        stop=threading.Event(),
        grace_s=grace_s,
        end_watermark_ms=None,
        clock=clock,
    )


class ReaderWorld:
    """Producers, a server that restarts and is trimmed, and a reader that dies."""

    def __init__(self, fate: Fate, _directory: Path) -> None:
        chance = fate.random
        self._fate = fate
        self._clock = ManualClock(START)
        self._server = Server(self._clock)
        self._names = STREAMS[: chance.randrange(1, 4)]
        base = Settings()
        flow = base.flow.model_copy(update={"item_events_max": chance.choice((1, 3, 50))})
        redis = RedisSettings(
            streams=self._names,
            read_entries=chance.choice((1, 2, 20)),
            idle_claim_ms=10,
            fence=chance.choice(("xsetid", "xsetid", "tick")),
        )
        self._settings = base.model_copy(update={"redis": redis, "flow": flow})
        self._snapshot: dict[str, Any] | None = None
        self._partition: ReaderPartition | None = None
        self._durable: list[Position] = []
        self._marked_ms = 0

    def run(self) -> None:
        """Let everybody act in turn, then read to the end and compare."""
        chance = self._fate.random
        for _ in range(chance.randrange(8, 30)):
            self._outside()
            try:
                with self._fate.process("epoch"):
                    self._epoch()
            except Died:
                self._partition = None
        self._fate.calm()
        self._clock.sleep(60)
        for _ in range(4):
            self._epoch()
            self._clock.sleep(6)
        expected = sorted((entry.ms, entry.stream, entry.seq) for entry in self._server.all_entries(self._names))
        require(self._durable == expected, f"{len(self._durable)} entries were handed on of {len(expected)}, or others")
        require(self._marked_ms >= self._server.now_ms - 60_000, f"the watermark stands at {self._marked_ms}")

    def close(self) -> None:
        """Nothing is open."""

    def _outside(self) -> None:
        chance = self._fate.random
        for _ in range(chance.randrange(0, 5)):
            self._clock.sleep(chance.choice(PAUSES_S))
            for _ in range(chance.randrange(1, 4)):
                self._server.add(chance.choice(self._names), [b"event", b"x" * chance.choice((1, 70_000))])
        if chance.random() < 0.05:
            self._fate.note("server restarts")
            self._server.restart()
        if self._snapshot is not None and chance.random() < 0.2:
            for name, values in self._snapshot["streams"].items():
                self._server.trim(name, (values["ms"], values["seq"] + chance.randrange(2)))

    def _epoch(self) -> None:
        """Hand on what can be read, check its order against everything durable, and commit the positions."""
        chance = self._fate.random
        if self._partition is None:
            self._partition = build_reader(
                "reader-00", list(enumerate(self._names)), self._snapshot, self._server, self._fate, self._clock,
                self._settings,
            )  # fmt: skip
        handed: list[Position] = []
        marked_ms = self._marked_ms
        for _ in range(chance.randrange(1, 4)):
            for item in self._partition.next_batch():
                if isinstance(item, Marker):
                    require(item.watermark_ms >= marked_ms, "a marker went back")
                    marked_ms = item.watermark_ms
                    continue
                handed += positions(item)
                require(handed[-len(item.payloads)][0] >= marked_ms, "an entry came below the last marker")
            self._clock.sleep(chance.choice((0.0, 0.1)))
        everything = self._durable[-1:] + handed
        require(everything == sorted(set(everything)), "entries were handed on twice or out of order")
        snapshot = self._partition.snapshot()
        self._fate.step("engine.commit")
        self._snapshot, self._marked_ms = snapshot, marked_ms
        self._durable += handed


def positions(batch: RawBatch) -> list[Position]:
    """Return the positions of a batch."""
    columns = (batch.entry_ms.tolist(), batch.stream.tolist(), batch.entry_seq.tolist())
    return list(zip(*columns, strict=True))
