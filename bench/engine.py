"""The engine job: events in memory -> decode, dedupe, facts, results counted; recovery on, no server.

    python -m bench.engine [--events 500000]

The real metering flow with a source that hands out prepared batches and sinks that add up what they get, beside a
stock per-event Bytewax pipeline that computes the same sums in the same process. Both are checked against each other.
"""

import argparse
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from time import perf_counter, process_time
from typing import Any
from unittest.mock import patch

import numpy as np
import polars as pl
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition

from bench import lines, peer_bytewax
from bench.figures import Figure, figure
from bench.machine import COMPILED_DIR
from config.settings import Settings
from flows import metering, runtime
from operators.dedupe_log import IdLog
from operators.items import EVENT, Marker, RawBatch


@dataclass
class Totals:
    """What the sinks saw: accepted events, rows of facts (open and sealed), and tokens in sealed facts."""

    accepted: int = 0
    facts: int = 0
    tokens: Decimal = Decimal(0)

    def add(self, table: str, frame: pl.DataFrame) -> None:
        """Add a frame of one table."""
        if table == "usage_events":
            self.accepted += len(frame)
        elif table == "usage_facts":
            self.facts += len(frame)
            own = (pl.col("sealed") > 0) & (pl.col("meter") == "input_tokens")
            self.tokens += frame.filter(own).select(pl.col("value").sum()).item() or Decimal(0)


class _Batches(StatefulSourcePartition[RawBatch | Marker, int]):
    def __init__(self, items: list[RawBatch | Marker], start: int) -> None:
        self._items, self._next = items, start

    def next_batch(self) -> list[RawBatch | Marker]:
        if self._next >= len(self._items):
            raise StopIteration
        self._next += 2
        return self._items[self._next - 2 : self._next]

    def snapshot(self) -> int:
        return self._next


class BatchSource(FixedPartitionedSource[RawBatch | Marker, int]):
    """Hands out a batch and its marker at a time, as the reader with that number."""

    def __init__(self, items: list[RawBatch | Marker], reader: int = 0) -> None:
        self._items = items
        self._name = f"reader-{reader:02d}"

    def list_parts(self) -> list[str]:
        """Return the one reader of this process."""
        return [self._name]

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> _Batches:
        """Return the reader."""
        return _Batches(self._items, resume_state or 0)


class _Counting(StatefulSinkPartition[Any, None]):
    def __init__(self, take: Callable[[Any], None]) -> None:
        self._take = take

    def write_batch(self, values: list[Any]) -> None:
        for value in values:
            self._take(value)

    def snapshot(self) -> None:
        return None


class CountingSink(FixedPartitionedSink[Any, None]):
    """Calls a function with every item, in the process that made it."""

    def __init__(self, take: Callable[[Any], None], process: int = 0, processes: int = 1) -> None:
        self._take = take
        self._name = f"sink-{process:02d}"
        self._processes = processes

    def list_parts(self) -> list[str]:
        """Return the one part of this process."""
        return [self._name]

    def part_fn(self, item_key: str) -> int:
        """Return the process whose shard has that key: see `core.shard_keys`."""
        number = item_key.split("-")[1:2]
        return int(number[0]) % self._processes if number else 0

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> _Counting:
        """Return the part."""
        return _Counting(self._take)


def batches(made: lines.Input) -> list[RawBatch | Marker]:
    """Return the input as the reader hands it on under load, each batch followed by its marker; the last seals all."""
    item_events = Settings().flow.item_events_max
    items: list[RawBatch | Marker] = []
    arrival_ms = np.array(made.arrival_ms, dtype=np.int64)
    for start in range(0, len(made.lines), item_events):
        rows = slice(start, start + item_events)
        payloads = made.lines[rows]
        count = len(payloads)
        items.append(
            RawBatch(
                stream=(np.arange(start, start + count) % made.streams).astype(np.uint16),
                entry_ms=arrival_ms[rows],
                entry_seq=np.arange(start, start + count),
                kinds=np.full(count, EVENT, np.uint8),
                payloads=payloads,
                details={},
            )
        )
        items.append(Marker("reader-00", int(arrival_ms[rows][-1])))
    items.append(Marker("reader-00", int(arrival_ms[-1]) + 3_600_000))
    return items


def run_flow(
    made: lines.Input, directory: Path, log_states: dict[Path, dict[str, Any]] | None = None
) -> tuple[float, Totals]:
    """Run the metering flow over the input; return seconds, start of the engine included, and what came out.

    :param log_states: states of id logs that are there already, by directory, as if the flow resumed from them.
    """
    open_log, states = IdLog.open, log_states or {}

    def opened(log_directory: Path, resume: dict[str, Any] | None, **options: Any) -> IdLog:
        return open_log(log_directory, resume or states.get(log_directory), **options)

    with patch.object(IdLog, "open", opened):
        return run_items(batches(made), directory, streams=made.streams)


def run_items(
    items: list[RawBatch | Marker], directory: Path, *, streams: int, cluster: runtime.Cluster | None = None
) -> tuple[float, Totals]:
    """Run the metering flow over prepared items, those of this process if it is one of a cluster."""
    cluster = cluster or runtime.Cluster()
    base = Settings()
    settings = base.model_copy(
        update={
            "state_dir": directory,
            "redis": base.redis.model_copy(update={"streams": lines.stream_names(streams)}),
            "flow": base.flow.model_copy(
                update={"compiled_dir": COMPILED_DIR, "readers": max(1, len(cluster.addresses))}
            ),
        }
    )
    totals = Totals()

    place = (cluster.process_id, max(1, len(cluster.addresses)))

    def table_sink(table: str) -> CountingSink:
        return CountingSink(lambda item: totals.add(table, item), *place)

    outbox = CountingSink(lambda _: None, *place)
    parts = metering.Parts(BatchSource(items, cluster.process_id), table_sink, outbox)
    flow = metering.build(settings, lines.history(), parts)
    began_s = perf_counter()
    with parts.resources:
        runtime.execute(flow, settings, threading.Event(), cluster)
    return perf_counter() - began_s, totals


def measure(*, quick: bool) -> list[Figure]:
    """Return events a second of the flow and of the stock pipeline, and the ratio, pair by pair.

    :raises SystemExit: the two do not agree with each other and the input.
    """
    flow_events, peer_events, rounds = (200_000, 50_000, 1) if quick else (1_000_000, 150_000, 3)
    return compare(flow_events, peer_events, rounds)


def compare(flow_events: int, peer_events: int, rounds: int) -> list[Figure]:
    """Run both in turn, `rounds` times, after a first run that loads what a process loads once."""
    with tempfile.TemporaryDirectory(prefix="meterbridge-bench-") as directory:
        run_flow(lines.make(60_000), Path(directory))
    own_input, peer_input = lines.make(flow_events), lines.make(peer_events)
    own: list[float] = []
    cpu_us: list[float] = []
    peers: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(prefix="meterbridge-bench-") as directory:
            began_cpu_s = process_time()
            seconds, totals = run_flow(own_input, Path(directory))
            cpu_us.append((process_time() - began_cpu_s) / flow_events * 1e6)
        check("the flow", own_input, totals.accepted, int(totals.tokens))
        own.append(flow_events / seconds)
        for windows, rates in peers.items():
            began_s = perf_counter()
            result = peer_bytewax.run(peer_input.lines, windows=windows)
            rates.append(peer_events / (perf_counter() - began_s))
            check("the stock pipeline", peer_input, result.accepted, result.tokens)
    figures = [
        figure("engine", "metering flow, recovery on, no servers", own, "events/s"),
        figure("engine", "metering flow, processor time", cpu_us, "us/event"),
    ]
    for windows, rates in peers.items():
        name = f"stock Bytewax, one item per event, {'minute windows' if windows else 'one sum at the end'}"
        figures.append(figure("engine", f"{name}, no recovery", rates, "events/s"))
        ratios = [a / b for a, b in zip(own, rates, strict=True)]
        figures.append(figure("engine", f"flow against {name}", ratios, "times"))
    return figures


def check(who: str, made: lines.Input, accepted: int, tokens: int) -> None:
    """Compare what came out with the input.

    :raises SystemExit: it is not what the input has.
    """
    if (accepted, tokens) != (made.accepted, made.tokens):
        message = f"{who}: {accepted} events and {tokens} tokens, the input has {made.accepted} and {made.tokens}"
        raise SystemExit(message)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=500_000)
    parser.add_argument("--peer-events", type=int, default=100_000)
    options = parser.parse_args()
    for one in compare(options.events, options.peer_events, 1):
        print(f"{one.case}: {one.value:,.1f} {one.unit}")
