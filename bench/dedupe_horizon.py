"""Dedupe with a full horizon: 100 million ids in four shards, spread over its days.

Memory an id holds beyond the page cache, bytes on disk, and how long it takes from the start of opening until look-ups
are answered. Throughput beside an empty horizon in two senses: of look up and append alone, and of the engine job
(`bench.engine`: decode, dedupe, facts), which is what users have of it. All once the segments that filling left to be
merged are merged. A billion ids are ten times the files; nothing here grows faster.
Run alone: `python -m bench.dedupe_horizon --ids 100000000` (some minutes, 3 GB of disk).
"""

import argparse
import ctypes
import gc
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter, process_time, sleep
from typing import Any, Final

import numpy as np

from bench import engine, lines
from bench.dedupe import START_MS, prefill
from bench.figures import Figure, figure
from bench.machine import COMPILED_DIR
from core.shard_keys import ID_KEYS
from operators.dedupe_compiled import Probes
from operators.dedupe_log import IdLog

SHARDS: Final = 4
BATCH: Final = 5_000
SECONDS: Final = 5.0
PROBES: Final = Probes(COMPILED_DIR, ids_before=0)


def measure(*, quick: bool) -> list[Figure]:
    """Return what a full horizon costs."""
    return run(1_000_000, 100_000, 1) if quick else run(100_000_000, 1_000_000, 3)


def run(ids: int, events: int, rounds: int) -> list[Figure]:
    """Fill a horizon, look ids up and add to it, and run the engine job with it and without."""
    name = f"{ids:,} ids"
    PROBES.take(1)  # compiled code is loaded before anything is measured
    with tempfile.TemporaryDirectory(prefix="meterbridge-bench-") as directory:
        empty_rate = _rate(_opened(Path(directory) / "empty", [None] * SHARDS))
        root = Path(directory) / "full"
        began_s = perf_counter()
        logs = _opened(root, [None] * SHARDS)
        for number, log in enumerate(logs):
            prefill(log, np.random.default_rng(number), ids // SHARDS, lines.START_MS)
        filled_s = perf_counter() - began_s
        states = _settled(logs)
        disk_bytes = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
        del logs
        before_bytes = _anonymous_bytes()
        began_s = perf_counter()
        logs = _opened(root, states)
        hi, lo, _ = _ids(np.random.default_rng(99), BATCH)
        for log in logs:
            log.find(hi, lo, 0)
        open_s = perf_counter() - began_s
        held_bytes = _anonymous_bytes() - before_bytes
        for log in logs:
            log.close()
        engine_figures = _engine(Path(directory), root, states, name, lines.make(events), rounds)
        full_rate = _rate(_opened(root, states))
    return [
        figure("dedupe_horizon", f"{name}: memory beyond the page cache", held_bytes / ids, "bytes/id"),
        figure("dedupe_horizon", f"{name}: on disk", disk_bytes / ids, "bytes/id"),
        figure("dedupe_horizon", f"{name}: from opening to the first look-ups", open_s, "s"),
        figure("dedupe_horizon", f"{name}: look up and append", full_rate, "ids/s"),
        figure("dedupe_horizon", "empty horizon: look up and append", empty_rate, "ids/s"),
        figure(
            "dedupe_horizon", f"{name}: look up and append beside an empty horizon", full_rate / empty_rate * 100, "%"
        ),
        *engine_figures,
        figure("dedupe_horizon", f"{name}: filling", ids / filled_s, "ids/s"),
    ]


def _opened(root: Path, states: Sequence[dict[str, Any] | None]) -> list[IdLog]:
    return [IdLog.open(root / ID_KEYS[number], state, probes=PROBES) for number, state in enumerate(states)]


def _settled(logs: list[IdLog]) -> list[dict[str, Any]]:
    """Let all work on segments end, close the logs and return their states."""
    while True:
        states = [log.snapshot() for log in logs]
        for log in logs:
            log.committed()
        if not any(log.is_sealing for log in logs):
            break
        sleep(0.1)
    for log in logs:
        log.close()
    return states


def _engine(
    scratch: Path, root: Path, states: list[dict[str, Any]], name: str, made: lines.Input, rounds: int
) -> list[Figure]:
    """Run the engine job in turn with an empty horizon and with copies of the full one."""
    rates: dict[bool, list[float]] = {False: [], True: []}
    cpu_us: dict[bool, list[float]] = {False: [], True: []}
    for number in range(rounds + 1):  # the first loads what a process loads once, and is not counted
        for full in (False, True):
            state_dir = scratch / f"engine-{number}-{full}"
            logs = state_dir / "dedupe"
            if full:
                shutil.copytree(root, logs, copy_function=_linked)
            log_states = {logs / ID_KEYS[shard]: state for shard, state in enumerate(states)} if full else {}
            began_s = process_time()
            seconds, totals = engine.run_flow(made, state_dir, log_states)
            used_s = process_time() - began_s
            engine.check("the flow", made, totals.accepted, int(totals.tokens))
            shutil.rmtree(state_dir)
            if number:
                rates[full].append(len(made.lines) / seconds)
                cpu_us[full].append(used_s / len(made.lines) * 1e6)
    ratios = [full / empty * 100 for empty, full in zip(rates[False], rates[True], strict=True)]
    figures = [figure("dedupe_horizon", f"{name}: engine job beside an empty horizon", ratios, "%")]
    for full, who in ((True, name), (False, "empty horizon")):
        figures.append(figure("dedupe_horizon", f"{who}: engine job, opening included", rates[full], "events/s"))
        figures.append(figure("dedupe_horizon", f"{who}: engine job, processor time", cpu_us[full], "us/event"))
    return figures


def _linked(source: str, target: str) -> None:
    """Take segments as they are, which never change, and copy what does."""
    if source.endswith(".ids"):
        os.link(source, target)
    else:
        shutil.copy2(source, target)


def _ids(random: np.random.Generator, size: int) -> list[np.ndarray]:
    return [random.integers(0, 1 << 64, size, dtype=np.uint64) for _ in range(3)]


def _rate(logs: list[IdLog]) -> float:
    """Return new ids a second, looked up and appended on all shards in turn; the logs are closed."""
    random = np.random.default_rng(7)
    minute = np.full(BATCH, START_MS // 60_000, dtype=np.uint32)
    ids, spent_s, since_s = 0, 0.0, 0.0
    while spent_s < SECONDS:
        for log in logs:
            batch = _ids(random, BATCH)
            began_s = perf_counter()
            log.committed()
            found, _, _ = log.find(batch[0], batch[1], 0)
            new = np.flatnonzero(~found)
            hi, lo, content = (column[new] for column in batch)
            log.append(hi, lo, content, minute[new])
            took_s = perf_counter() - began_s
            spent_s, since_s, ids = spent_s + took_s, since_s + took_s, ids + BATCH
        if since_s >= 2.0:  # an epoch
            began_s = perf_counter()
            for log in logs:
                log.snapshot()
            spent_s, since_s = spent_s + perf_counter() - began_s, 0.0
    for log in logs:
        log.close()
    return ids / spent_s


def _anonymous_bytes() -> int:
    """Return resident memory that is not a file's, after handing back what is free."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    for line in Path(f"/proc/{os.getpid()}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    message = "no RssAnon in /proc: this bench needs Linux"
    raise RuntimeError(message)


def main() -> None:
    """Run with a number of ids and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ids", type=int, default=1_000_000)
    parser.add_argument("--events", type=int, default=400_000, help="of the engine job")
    options = parser.parse_args()
    for one in run(options.ids, options.events, 1):
        print(f"{one.case}: {one.value:,.2f} {one.unit}")


if __name__ == "__main__":
    main()
