"""Freshness: how long after an event was added to a stream its row can be read in ClickHouse.

    python -m bench.freshness [--rate 20000] [--seconds 20]

A flow process runs on the embedded stack while events are sent at a steady rate. Events leave in the order in which
they were added, so the k-th one is visible when the table has k rows; the time it was added is its entry id.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from bisect import bisect_left
from pathlib import Path
from typing import Final

from bench.deployment import Deployment, deployed
from bench.figures import Figure, figure
from sinks.clickhouse.client import Client, connect

POLL_S: Final = 0.05
WAIT_S_MAX: Final = 120.0
TENANTS: Final = 1000


def measure(*, quick: bool) -> list[Figure]:
    """Return the delays at a rate far below the maximum, and at about half of it.

    :raises SystemExit: a row did not become visible, or a process failed.
    """
    seconds = 10 if quick else 60
    figures: list[Figure] = []
    for rate in (1_000,) if quick else (1_000, 20_000, 50_000):
        delays_s = run(rate, seconds)
        for share, name in ((0.5, "p50"), (0.99, "p99")):
            value = delays_s[int(share * (len(delays_s) - 1))]
            figures.append(figure("freshness", f"{rate:,} events/s, event added to row visible, {name}", value, "s"))
    return figures


def run(rate: int, seconds: int) -> list[float]:
    """Return the delay of every event in seconds, sorted."""
    with tempfile.TemporaryDirectory(prefix="meterbridge-bench-") as directory, deployed(Path(directory)) as deployment:
        flow = subprocess.Popen(
            [sys.executable, "-m", "cli", "run"], env=deployment.environment, stderr=subprocess.DEVNULL
        )
        try:
            samples, added_ms = _observe(deployment, rate, seconds, flow)
        finally:
            flow.terminate()
            flow.wait(timeout=60)
    counts = [count for count, _ in samples]
    # A sample that has more than k rows is the first in which the k-th event can be seen.
    return sorted(
        samples[bisect_left(counts, place + 1)][1] - entry_ms / 1000 for place, entry_ms in enumerate(added_ms)
    )


def _observe(
    deployment: Deployment, rate: int, seconds: int, flow: "subprocess.Popen[bytes]"
) -> tuple[list[tuple[int, float]], list[int]]:
    """Return (rows, time) whenever there were more, and the entry times in order."""
    samples: list[tuple[int, float]] = []
    command = ["simulate", "--seconds", str(seconds), "--rate", str(rate), "--tenants", str(TENANTS)]
    plain = ["--duplicates", "0", "--late", "0", "--seed", "5"]
    with connect(deployment.settings.clickhouse) as client:
        time.sleep(5)  # the flow starts
        sender = subprocess.Popen(
            [sys.executable, "-m", "cli", *command, *plain], env=deployment.environment, stdout=subprocess.DEVNULL
        )
        waited_until_s = time.monotonic() + seconds + WAIT_S_MAX
        while True:
            is_sent = sender.poll() is not None
            rows = _number(client, deployment, "usage_events", "count()")
            if rows > (samples[-1][0] if samples else 0):
                samples.append((rows, time.time()))
            elif (
                is_sent and _number(client, deployment, "intake_counts_current", "sum(events)") >= deployment.entries()
            ):
                break
            if flow.poll() is not None or time.monotonic() > waited_until_s:
                message = f"the flow stands still at {rows} rows of {deployment.entries()} entries"
                raise SystemExit(message)
            time.sleep(POLL_S)
        table = f"{deployment.settings.clickhouse.database}.usage_events"
        query = f"SELECT toUnixTimestamp64Milli(ingest_time) FROM {table} ORDER BY ingest_time"
        return samples, [int(row[0]) for row in client.query(query).result_rows]


def _accepted(client: Client, deployment: Deployment) -> int:
    """Return how many rows there will be, once every entry is decided; before that, more than there are entries."""
    counts = "intake_counts_current"
    entries = deployment.entries()
    if _number(client, deployment, counts, "sum(events)") < entries:
        return entries + 1
    return _number(client, deployment, counts, "sumIf(events, outcome = 'accepted')")


def _number(client: Client, deployment: Deployment, table: str, what: str) -> int:
    rows = client.query(f"SELECT {what} FROM {deployment.settings.clickhouse.database}.{table}").result_rows
    return int(rows[0][0])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=20_000)
    parser.add_argument("--seconds", type=int, default=20)
    options = parser.parse_args()
    found = run(options.rate, options.seconds)
    print(f"{len(found):,} events: p50 {found[len(found) // 2]:.2f} s, p99 {found[int(len(found) * 0.99)]:.2f} s")
