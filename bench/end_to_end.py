"""End to end: events in Valkey (AOF everysec) -> flow with recovery -> rows in ClickHouse over HTTP, on one machine.

The streams are filled first; then a flow process of its own drains them. Reported are the whole process (start and
stop included) and the steady rate: events between the first and the last sample at which rows were read, over the
time between. The run is checked: events sent = intake counts, and rows in ClickHouse = accepted events. Beside the
flow's processor time stands the floor of it (`bench.floor`), measured on the same entries.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import orjson
import psutil

from bench import floor
from bench.deployment import CONFIG, deployed
from bench.entries import collected
from bench.figures import Figure, figure
from bench.machine import describe
from config.settings import Settings
from sinks.clickhouse.client import connect
from sources.producer import Producer
from sources.workload import Workload
from stack.supervisor import Stack

SAMPLE_S = 0.25
"""How often the flow's metrics are read; each reading costs the flow some milliseconds."""


def main() -> None:
    """Run once and print the result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--batch", type=int, default=1, help="events per stream entry")
    parser.add_argument("--epoch-s", type=float, default=2.0)
    parser.add_argument("--minutes", type=int, default=60, help="span of event time the events are spread over")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="meterbridge-bench-") as directory:
        result = run(Path(directory), arguments.events, arguments.batch, arguments.epoch_s, arguments.minutes)
    text = orjson.dumps(result, option=orjson.OPT_INDENT_2).decode()
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(text + "\n")
    sys.stdout.write(text + "\n")


def measure(*, quick: bool) -> list[Figure]:
    """Return the rates and the flow's processor time, for single and batched entries.

    :raises SystemExit: a run lost or doubled something.
    """
    runs = 1 if quick else 3
    figures: list[Figure] = []
    for batch in (1, 100):
        events = 400_000 if quick else 2_000_000
        results: list[dict[str, Any]] = []
        for _ in range(runs):
            with tempfile.TemporaryDirectory(prefix="meterbridge-bench-") as directory:
                results.append(run(Path(directory), events, batch, epoch_s=2.0, minutes=60))
        case = "one event per entry" if batch == 1 else f"{batch} events per entry"
        for name, what, unit in (
            ("events_per_s_steady", "steady", "events/s"),
            ("events_per_s_whole_process", "with start and stop", "events/s"),
            ("flow_cpu_us_per_event", "processor time of the flow, with start and stop", "us/event"),
            ("flow_cpu_us_per_event_steady", "processor time of the flow, steady", "us/event"),
            ("floor_read_us", "floor: read", "us/event"),
            ("floor_decode_us", "floor: decode", "us/event"),
            ("floor_serialise_us", "floor: serialise the insert", "us/event"),
            ("flow_against_floor", "processor time of the flow, steady, against the floor", "times"),
            ("valkey_cpu_us_per_event", "processor time of Valkey while the flow runs", "us/event"),
            ("clickhouse_cpu_us_per_event", "processor time of ClickHouse while the flow runs", "us/event"),
        ):
            figures.append(figure("end_to_end", f"{case}, {what}", [one[name] for one in results], unit))
    return figures


def run(directory: Path, events: int, batch: int, epoch_s: float, minutes: int) -> dict[str, Any]:
    """Fill the streams, drain them with a flow process, and return the figures."""
    with deployed(directory, METERBRIDGE_FLOW__EPOCH_S=str(epoch_s)) as deployment:
        start = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=30)
        workload = Workload(seed=11, events=events, start=start, end=start + timedelta(minutes=minutes))
        streams = deployment.settings.redis.streams
        records = workload if batch == 1 else collected(workload, streams, batch)
        sent = Producer(deployment.settings.redis).send(records, batch=batch)
        if sent.entries > 1.1 * events / batch + len(streams):  # the producer closes an entry early when it is slow
            message = f"{events} events went out in {sent.entries} entries: they are not batched by {batch}"
            raise SystemExit(message)
        least = floor.measure(deployment.settings, CONFIG)
        before_s = _servers_cpu_s(deployment.stack)
        figures = _drain(deployment.environment, sent.events)
        for server, cpu_s in _servers_cpu_s(deployment.stack).items():
            figures[f"{server}_cpu_us_per_event"] = round((cpu_s - before_s[server]) / sent.events * 1e6, 2)
        figures |= {
            "floor_read_us": round(least.read_us, 3),
            "floor_decode_us": round(least.decode_us, 3),
            "floor_serialise_us": round(least.serialise_us, 3),
            "flow_against_floor": round(figures["flow_cpu_us_per_event_steady"] / least.total_us, 2),
        }
        figures |= _check(deployment.settings, sent.events)
    return {
        "name": "end_to_end",
        "events": sent.events,
        "entries": sent.entries,
        "events_per_entry": batch,
        "event_time_span_minutes": minutes,
        "epoch_s": epoch_s,
        "send_events_per_s": round(sent.events / sent.seconds),
        **figures,
        "machine": describe(),
    }


def _servers_cpu_s(stack: Stack) -> dict[str, float]:
    """Return the processor time that each embedded server has used so far."""
    used: dict[str, float] = {}
    for status in stack.status():
        if status.pid is not None:
            process = psutil.Process(status.pid)
            times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
            used[status.name] = sum(one.user + one.system for one in times)
    return used


def _drain(environment: dict[str, str], events: int) -> dict[str, Any]:
    url = f"http://127.0.0.1:{environment['METERBRIDGE_METRICS__FLOW_PORT']}/metrics"
    began_s = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "cli", "run", "--drain"], env=environment, stdout=subprocess.DEVNULL
    )
    samples: list[tuple[float, float, float]] = []
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        time.sleep(SAMPLE_S)
        with contextlib.suppress(httpx.HTTPError):
            text = httpx.get(url, timeout=5).text
            samples.append((time.monotonic(), _sum(text, "meterbridge_events_total{"), _cpu_s(process.pid)))
    seconds = time.monotonic() - began_s
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        message = f"the flow ended with {process.returncode}"
        raise SystemExit(message)
    cpu_s = usage.ru_utime + usage.ru_stime
    busy = [sample for sample in samples if sample[1] > 0]
    first = busy[0]
    last = next((sample for sample in busy if sample[1] >= busy[-1][1]), busy[-1])
    seconds_steady, events_steady, cpu_steady_s = (last[at] - first[at] for at in range(3))
    return {
        "seconds_whole_process": round(seconds, 2),
        "events_per_s_whole_process": round(events / seconds),
        "events_per_s_steady": round(events_steady / seconds_steady) if seconds_steady else 0,
        "flow_cpu_s": round(cpu_s, 2),
        "flow_cpu_us_per_event": round(cpu_s / events * 1e6, 2),
        "flow_cpu_us_per_event_steady": round(cpu_steady_s / events_steady * 1e6, 2) if events_steady else 0.0,
    }


def _cpu_s(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def _sum(text: str, prefix: str) -> float:
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(prefix))


def _check(settings: Settings, events: int) -> dict[str, Any]:
    with connect(settings.clickhouse) as client:
        database = settings.clickhouse.database
        decided = client.query(f"SELECT sum(events) FROM {database}.intake_counts_current").result_rows[0][0]
        accepted = client.query(
            f"SELECT sum(events) FROM {database}.intake_counts_current WHERE outcome = 'accepted'"
        ).result_rows[0][0]
        rows = client.query(f"SELECT count() FROM {database}.usage_events_current").result_rows[0][0]
    if decided != events or accepted != rows:
        message = f"sent {events}, decided {decided}; accepted {accepted}, stored {rows}"
        raise SystemExit(message)
    return {"decided": int(decided), "rows_in_clickhouse": int(rows)}


if __name__ == "__main__":
    main()
