"""What an event costs at least, with the steps that no design can do without: read, decode, serialise the insert.

Each step runs alone and in this process, on the entries that a flow drains a moment later, and is measured in
processor time: replies of the server with the raw client; bytes to columns by the compiled code; columns to the body
of the insert. Not in it are dedupe, sums, books, rates, recovery, and moving the body to the server.
"""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import process_time
from typing import Any, Final

import numpy as np
import polars as pl
from clickhouse_connect.driver.query import arrow_buffer

from bench.machine import COMPILED_DIR
from config.loader import load
from config.revision import History, Revision
from config.settings import Settings
from operators.book_time import with_minutes
from operators.decode import Decoder
from operators.decode_entries import lines_of
from operators.decode_lines import Lines
from operators.decode_plan import RevisionPlan
from operators.decode_scan import Compiled
from operators.items import RawBatch
from sinks.clickhouse.tables import TABLES
from sources import stream_commands
from sources.entries import Chunk, parse
from sources.resp import RespConnection
from sources.stream_state import START

EVENTS_MAX: Final = 400_000
"""Enough for a mean; the rest of the streams is not looked at."""


@dataclass(frozen=True, slots=True)
class Floor:
    """Processor time of each step, in microseconds an event."""

    read_us: float
    decode_us: float
    serialise_us: float

    @property
    def total_us(self) -> float:
        """Return the sum."""
        return self.read_us + self.decode_us + self.serialise_us


class _Timer:
    """Adds up the processor time of one step."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextmanager
    def on(self) -> Iterator[None]:
        """Count what happens inside."""
        began_s = process_time()
        yield
        self.seconds += process_time() - began_s


def measure(settings: Settings, config: Path) -> Floor:
    """Return what the steps cost on the first events of the deployment's streams, which must not be empty.

    :raises SystemExit: the compiled code cannot be loaded; there is nothing to compare with then.
    """
    history = History([Revision(load(config), 0)])
    decode_columns = _compiled(history)
    read, decode, serialise = _Timer(), _Timer(), _Timer()
    decoder = Decoder(history, settings.redis.streams, settings.flow.id_shards, compiled=Compiled(COMPILED_DIR))
    table = TABLES["usage_events"]
    events = 0
    gc.disable()  # as the reader does while replies are parsed
    for batch in _batches(settings, read):
        with decode.on():
            lines = lines_of(batch, 0, len(batch.payloads), 1 << 20, 1000)
            decode_columns(lines)
        events += len(lines)
        frames = [with_minutes(part.events, history.latest.rules.grace_s) for _, part in decoder.decode(batch)]
        items: list[pl.DataFrame] = [table.trim(frame) for frame in frames]
        with serialise.on():
            arrow_buffer(table.convert(items, settings.redis.streams))
    gc.enable()
    return Floor(*(timer.seconds / events * 1e6 for timer in (read, decode, serialise)))


def _compiled(history: History) -> Callable[[Lines], Any]:
    scanner = Compiled(COMPILED_DIR).scanner(RevisionPlan(history.latest), 1 << 20, at_once=True)
    if scanner is None:
        message = "the floor is measured with compiled code: install numba (`pip install meterbridge[compiled]`)"
        raise SystemExit(message)
    return scanner.decode


def _batches(settings: Settings, timer: _Timer) -> Iterator[RawBatch]:
    """Read the streams in turn and yield their entries in items of the flow's size."""
    connection = RespConnection(settings.redis)
    share = EVENTS_MAX // len(settings.redis.streams)
    waiting: list[tuple[int, Chunk]] = []
    try:
        for number, name in enumerate(settings.redis.streams):
            after, taken = START, 0
            while taken < share:
                request = stream_commands.load_range(name, after, b"+", settings.redis.read_entries, inclusive=False)
                with timer.on():
                    reply = connection.call([request])[0]
                if not reply:
                    break
                chunk = parse(name, reply)
                after, taken = chunk.last, taken + int(chunk.weights.sum())
                waiting.append((number, chunk))
                if sum(int(chunk.weights.sum()) for _, chunk in waiting) >= settings.flow.item_events_max:
                    yield _joined(waiting)
                    waiting = []
        if waiting:
            yield _joined(waiting)
    finally:
        connection.close()


def _joined(chunks: list[tuple[int, Chunk]]) -> RawBatch:
    return RawBatch(
        stream=np.concatenate([np.full(len(chunk), number, np.uint16) for number, chunk in chunks]),
        entry_ms=np.concatenate([chunk.entry_ms for _, chunk in chunks]),
        entry_seq=np.concatenate([chunk.entry_seq for _, chunk in chunks]),
        kinds=np.concatenate([chunk.kinds for _, chunk in chunks]),
        payloads=[payload for _, chunk in chunks for payload in chunk.payloads],
        details={},
    )
