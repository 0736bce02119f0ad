"""Ids a second through dedupe on one core, at several sizes of the horizon.

`log`: look-up and append alone. `step`: the whole operator on frames, without partial sums. Batches are split
over the shards as in the flow, and a recovery snapshot (with its sync) is taken every epoch. The time of making
the input is left out. Run: `python -m bench.dedupe --horizon 0 1000000 10000000`.
"""

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
import polars as pl

from bench.figures import Figure, figure
from bench.machine import COMPILED_DIR
from config.revision import Configuration, History, Revision
from core.frames import EVENT_SCHEMA, PARTIAL_SCHEMA, REJECT_SCHEMA, empty
from operators.dedupe import DedupeLogic
from operators.dedupe_compiled import Probes
from operators.dedupe_log import IdLog
from operators.items import Marker, ShardBatch

DAY_MS = 86_400_000
START_MS = 20_000 * DAY_MS
PREFILL_BATCH = 250_000


def _digests(random: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    hi, lo, content = (random.integers(0, 1 << 64, size, dtype=np.uint64) for _ in range(3))
    return hi, lo, content


def prefill(log: IdLog, random: np.random.Generator, ids: int, end_ms: int = START_MS) -> None:
    """Add ids spread over the 30 days up to a moment, with a snapshot behind each batch."""
    for at in range(0, ids, PREFILL_BATCH):
        size = min(PREFILL_BATCH, ids - at)
        minute = (end_ms // 60_000) - 1440 * 30 + at * 1440 * 30 // ids
        log.append(*_digests(random, size), np.full(size, minute, dtype=np.uint32))
        log.snapshot()
        log.committed()


def _frame(
    random: np.random.Generator, size: int, entry_ms: int, known: list[np.ndarray], share: float
) -> pl.DataFrame:
    hi, lo, content = _digests(random, size)
    repeats = int(size * share)
    if repeats and known:
        hi[:repeats], lo[:repeats], content[:repeats] = (column[:repeats] for column in known)
    known[:] = [hi, lo, content]
    text = pl.repeat("llm.completion", size, dtype=pl.String, eager=True)
    values = {
        "entry_ms": pl.repeat(entry_ms, size, dtype=pl.Int64, eager=True),
        "entry_seq": pl.int_range(size, dtype=pl.Int64, eager=True),
        "identity_hi": pl.Series(hi),
        "identity_lo": pl.Series(lo),
        "content": pl.Series(content),
        "sign": pl.repeat(1, size, dtype=pl.Int8, eager=True),
        **dict.fromkeys(("source", "id", "type", "tenant", "raw"), text),
    }
    return pl.DataFrame(
        {name: values.get(name, pl.repeat(0, size, dtype=kind, eager=True)) for name, kind in EVENT_SCHEMA.items()}
    )


@dataclass(frozen=True, slots=True)
class Speed:
    """What one case took."""

    ids: int
    wall_s: float
    cpu_s: float
    snapshot_s: float
    """For each epoch."""
    slowest_s: float
    ids_at_end: int


def run_case(horizon: int, shards: int, batch: int, seconds: float, epoch_s: float, share: float, step: bool) -> Speed:
    """Measure one case."""
    random = np.random.default_rng(1)
    history = History([Revision(Configuration())])
    with tempfile.TemporaryDirectory(prefix="meterbridge-bench-") as directory:
        probes = Probes(COMPILED_DIR, ids_before=0)
        probes.take(1)  # loaded before anything is measured
        logs = [IdLog.open(Path(directory) / str(shard), None, probes=probes) for shard in range(shards)]
        for log in logs:
            prefill(log, random, horizon // shards)
        logics = [
            DedupeLogic(f"s{n}", log, history, 4, lambda *_: empty(PARTIAL_SCHEMA), None, senders=("r",))
            for n, log in enumerate(logs)
        ]
        known: list[list[np.ndarray]] = [[] for _ in logs]
        wall_s = cpu_s = since_epoch_s = snapshot_s = slowest_s = 0.0
        ids, entry_ms, epochs = 0, START_MS, 0
        minute = np.full(batch, START_MS // 60_000, dtype=np.uint32)
        while wall_s < seconds:
            entry_ms += 100
            for shard, log in enumerate(logs):
                frame = _frame(random, batch, entry_ms, known[shard], share) if step else None
                digests = _digests(random, batch)
                began, cpu = perf_counter(), process_time()
                if frame is not None:
                    logics[shard].process([ShardBatch(frame, empty(REJECT_SCHEMA)), Marker("r", entry_ms)])
                else:
                    log.committed()
                    found, _, _ = log.find(digests[0], digests[1], 0)
                    new = np.flatnonzero(~found)
                    hi, lo, content = (column[new] for column in digests)
                    log.append(hi, lo, content, minute[new])
                took = perf_counter() - began
                wall_s += took
                since_epoch_s += took
                slowest_s = max(slowest_s, took)
                cpu_s += process_time() - cpu
                ids += batch
            if since_epoch_s >= epoch_s:
                began, cpu = perf_counter(), process_time()
                for shard, log in enumerate(logs):
                    _ = logics[shard].snapshot() if step else log.snapshot()
                took = perf_counter() - began
                wall_s, snapshot_s = wall_s + took, snapshot_s + took
                cpu_s += process_time() - cpu
                since_epoch_s, epochs = 0.0, epochs + 1
        total = sum(log.ids for log in logs)
        for log in logs:
            log.close()
    return Speed(ids, wall_s, cpu_s, snapshot_s / max(1, epochs), slowest_s, total)


def measure(*, quick: bool) -> list[Figure]:
    """Return ids a second through the whole operator, by ids in the horizon."""
    horizons = (0, 1_000_000) if quick else (0, 1_000_000, 10_000_000)
    speeds = {horizon: run_case(horizon, 4, 5000, 2.0 if quick else 5.0, 2.0, 0.02, True) for horizon in horizons}
    return [
        figure("dedupe", f"{horizon:,} ids in the horizon", speed.ids / speed.wall_s, "events/s")
        for horizon, speed in speeds.items()
    ]


def _line(step: bool, horizon: int, batch: int, speed: Speed) -> str:
    return (
        f"{'step' if step else 'log':<5} horizon {horizon:>10,}  batch {batch:>6,}  "
        f"{speed.ids / speed.wall_s:>10,.0f} ids/s  {speed.ids / speed.cpu_s:>10,.0f} ids/cpu-s  "
        f"snapshot {1000 * speed.snapshot_s:6.1f} ms/epoch  slowest call {1000 * speed.slowest_s:6.0f} ms  "
        f"ids at end {speed.ids_at_end:,}"
    )


def main() -> None:
    """Print one line per horizon and kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--horizon", type=int, nargs="+", default=[0, 1_000_000, 10_000_000])
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--batch", type=int, nargs="+", default=[5000], help="events per item and shard")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--epoch-s", type=float, default=2.0)
    parser.add_argument("--repeats", type=float, default=0.02, help="share of duplicates, for `step`")
    options = parser.parse_args()
    for step in (False, True):
        for batch in options.batch:
            for horizon in options.horizon:
                speed = run_case(
                    horizon, options.shards, batch, options.seconds, options.epoch_s, options.repeats, step
                )
                print(_line(step, horizon, batch, speed), flush=True)


if __name__ == "__main__":
    main()
