"""The engine job in two processes of one cluster, against the same job in one process: recovery on, no servers.

    python -m bench.engine_processes [--events 1000000]

Each process has its own reader with half of the events; dedupe, books and rates belong to all, so half of the events
travel to the other process. Processes that are ready wait for each other, so that their start is not measured.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from time import process_time
from typing import Any, Final

import numpy as np
import orjson

from bench import engine, lines
from bench.figures import Figure, figure
from cli.demo_steps import free_port
from flows import threads
from flows.runtime import Cluster
from operators.items import Marker, RawBatch

ROOT: Final = Path(__file__).parents[1]
WARM_UP_EVENTS: Final = 60_000
SECONDS_MAX: Final = 600
POLL_S: Final = 0.001
BEGIN: Final = "begin"
"""A file that appears when all processes are ready; each says so with a file of its own."""


def measure(*, quick: bool) -> list[Figure]:
    """Return the rates of one and of two processes and their ratio, pair by pair."""
    return compare(*((200_000, 1) if quick else (1_000_000, 3)))


def compare(events: int, rounds: int) -> list[Figure]:
    """Run one process and two in turn, `rounds` times.

    :raises SystemExit: the processes' sums are not what the input has.
    """
    made = replace(lines.make(events), lines=[], arrival_ms=[])
    rates: dict[int, list[float]] = {1: [], 2: []}
    cpu_us: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(rounds):
        for processes in (1, 2):
            results = _run(events, processes)
            accepted, tokens = (sum(one[name] for one in results) for name in ("accepted", "tokens"))
            engine.check(f"the flow in {processes} processes", made, accepted, tokens)
            rates[processes].append(events / max(one["seconds"] for one in results))
            cpu_us[processes].append(sum(one["cpu_s"] for one in results) / events * 1e6)
    ratios = [two / one for one, two in zip(rates[1], rates[2], strict=True)]
    return [
        figure("engine_processes", "one process", rates[1], "events/s"),
        figure("engine_processes", "two processes", rates[2], "events/s"),
        figure("engine_processes", "two processes against one", ratios, "times"),
        figure("engine_processes", "one process, processor time", cpu_us[1], "us/event"),
        figure("engine_processes", "two processes, processor time", cpu_us[2], "us/event"),
    ]


def _run(events: int, processes: int) -> list[dict[str, Any]]:
    """Start the processes, let them begin together, and return what each one says."""
    addresses = ";".join(f"127.0.0.1:{free_port(0)}" for _ in range(processes)) if processes > 1 else ""
    with tempfile.TemporaryDirectory(prefix="meterbridge-bench-") as directory:
        options = ["--events", str(events), "--directory", directory, "--addresses", addresses]
        started = [
            subprocess.Popen(
                [sys.executable, "-m", "bench.engine_processes", *options, "--process-id", str(number)],
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": str(ROOT), threads.POLARS: "1"},
                stdout=subprocess.DEVNULL,
            )
            for number in range(processes)
        ]
        try:
            _wait_for([Path(directory) / f"ready-{number}" for number in range(processes)], started)
            (Path(directory) / BEGIN).touch()
            codes = [process.wait(SECONDS_MAX) for process in started]
            if any(codes):
                message = f"one of {processes} processes failed: {codes}"
                raise SystemExit(message)
            return [orjson.loads(_result(Path(directory), number).read_bytes()) for number in range(processes)]
        finally:
            for process in started:
                process.kill()
                process.wait()


def _result(directory: Path, process_id: int) -> Path:
    """Return where a process writes what it measured; its output is full of its log."""
    return directory / f"result-{process_id}.json"


def _wait_for(files: list[Path], made_by: "Sequence[subprocess.Popen[bytes]]" = ()) -> None:
    deadline_s = time.monotonic() + SECONDS_MAX
    while not all(file.exists() for file in files):
        if time.monotonic() > deadline_s or any(process.poll() is not None for process in made_by):
            message = "a process of the cluster did not become ready"
            raise SystemExit(message)
        time.sleep(POLL_S)


def _work(events: int, directory: Path, cluster: Cluster) -> dict[str, Any]:
    """Be one of the processes."""
    with tempfile.TemporaryDirectory(prefix="meterbridge-bench-") as warm_up:
        engine.run_flow(lines.make(WARM_UP_EVENTS), Path(warm_up))
    readers = max(1, len(cluster.addresses))
    items = engine.batches(lines.make(events))
    own = _of_reader(items, cluster.process_id, readers) if readers > 1 else items
    (directory / f"ready-{cluster.process_id}").touch()
    _wait_for([directory / BEGIN])
    began_s = process_time()
    seconds, totals = engine.run_items(own, directory, streams=readers, cluster=cluster)
    return {
        "seconds": seconds,
        "cpu_s": process_time() - began_s,
        "accepted": totals.accepted,
        "tokens": int(totals.tokens),
    }


def _of_reader(items: list[RawBatch | Marker], reader: int, readers: int) -> list[RawBatch | Marker]:
    """Return every n-th entry of each item, as a reader of every n-th stream has it, with its own markers."""
    return [
        Marker(f"reader-{reader:02d}", item.watermark_ms) if isinstance(item, Marker) else _part(item, reader, readers)
        for item in items
    ]


def _part(batch: RawBatch, reader: int, readers: int) -> RawBatch:
    rows = slice(reader, None, readers)
    count = len(batch.payloads[rows])
    return RawBatch(
        stream=np.full(count, reader, np.uint16),
        entry_ms=batch.entry_ms[rows],
        entry_seq=batch.entry_seq[rows],
        kinds=batch.kinds[rows],
        payloads=batch.payloads[rows],
        details={},
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--directory", type=Path)
    parser.add_argument("--addresses", default="")
    parser.add_argument("--process-id", type=int, default=0)
    options = parser.parse_args()
    if options.directory is None:
        for one in compare(options.events, 1):
            print(f"{one.case}: {one.value:,.2f} {one.unit}")
    else:
        own_cluster = Cluster(tuple(filter(None, options.addresses.split(";"))), options.process_id)
        measured = _work(options.events, options.directory, own_cluster)
        _result(options.directory, options.process_id).write_bytes(orjson.dumps(measured))
