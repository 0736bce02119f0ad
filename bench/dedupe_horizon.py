"""Dedupe with a full horizon: 100 million ids in four shards, spread over its days.

Memory an id holds beyond the page cache, bytes on disk, ids a second beside an empty horizon, and how long it takes
from the start of opening until look-ups are answered. A billion ids are ten times the files; nothing here grows
faster. Run alone: `python -m bench.dedupe_horizon --ids 100000000` (some minutes, 3 GB of disk).
"""

import argparse
import ctypes
import gc
import os
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import numpy as np

from bench.dedupe import START_MS, prefill
from bench.figures import Figure, figure
from operators.dedupe_log import IdLog

SHARDS: Final = 4
BATCH: Final = 5_000
SECONDS: Final = 5.0


def measure(*, quick: bool) -> list[Figure]:
    """Return what a full horizon costs."""
    return run(1_000_000 if quick else 100_000_000)


def run(ids: int) -> list[Figure]:
    """Fill a horizon, look ids up and add to it, close it and open it again."""
    name = f"{ids:,} ids"
    with tempfile.TemporaryDirectory(prefix="meterbridge-bench-") as directory:
        empty_rate = _rate(_opened(Path(directory) / "empty", [None] * SHARDS))
        root = Path(directory) / "full"
        began_s = perf_counter()
        logs = _opened(root, [None] * SHARDS)
        for number, log in enumerate(logs):
            prefill(log, np.random.default_rng(number), ids // SHARDS)
        filled_s = perf_counter() - began_s
        states = [log.snapshot() for log in logs]
        for log in logs:
            log.committed()
            log.close()
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
        full_rate = _rate(logs)
    return [
        figure("dedupe_horizon", f"{name}: memory beyond the page cache", held_bytes / ids, "bytes/id"),
        figure("dedupe_horizon", f"{name}: on disk", disk_bytes / ids, "bytes/id"),
        figure("dedupe_horizon", f"{name}: from opening to the first look-ups", open_s, "s"),
        figure("dedupe_horizon", f"{name}: look up and append", full_rate, "ids/s"),
        figure("dedupe_horizon", "empty horizon: look up and append", empty_rate, "ids/s"),
        figure("dedupe_horizon", f"{name}: throughput beside an empty horizon", full_rate / empty_rate * 100, "%"),
        figure("dedupe_horizon", f"{name}: filling", ids / filled_s, "ids/s"),
    ]


def _opened(root: Path, states: list[Any]) -> list[IdLog]:
    return [IdLog.open(root / str(number), state) for number, state in enumerate(states)]


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
    for one in run(parser.parse_args().ids):
        print(f"{one.case}: {one.value:,.2f} {one.unit}")


if __name__ == "__main__":
    main()
