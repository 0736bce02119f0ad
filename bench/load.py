"""The service under load: `python -m bench.load [--quick] [--workers N]`, two to three minutes.

Everything is real and on this machine: Valkey (AOF everysec), ClickHouse with a metered workload, the service as
processes of its own. Producers post at a fixed rate for a minute, while viewers have the overview's live figures open
and open other pages from time to time. A full run stores its result in `bench/results/load-*.json` and writes
`docs/benchmarks.md` again.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import orjson
import psutil
import uvloop
from sqlalchemy import Engine

from bench.deployment import Deployment, deployed
from bench.figures import Figure, figure
from bench.ingest import event
from bench.load_clients import ARRIVAL_S, Outcome, Producers, Viewer
from bench.machine import describe
from bench.report import load_table
from bench.run import RESULTS, write_page
from bench.service import ROOT, Service, cpu_s_of, serving
from console.auth import COOKIE
from sinks import ledger
from sinks.ledger import tokens
from sources.producer import Producer
from sources.workload import Workload

CONNECTIONS: Final = 256
"""More than are ever busy: one that waits for an answer must not keep a due request from being sent."""
BODIES: Final = 2_000
WARM_UP_S: Final = 5.0
WARM_UP_SHARE: Final = 0.2
SHARES: Final = (50, 99, 99.9)
UNLIMITED: Final = {
    "METERBRIDGE_CONSOLE__PORT": "0",
    "METERBRIDGE_METRICS__CONSOLE_PORT": "0",
    "METERBRIDGE_CONSOLE__REQUESTS_PER_S_MAX": "1000000",
    "METERBRIDGE_CONSOLE__EVENTS_PER_S_MAX": "10000000",
    "METERBRIDGE_CONSOLE__CONNECTIONS_MAX": "5000",
}
"""One token stands for many; the limits themselves still are looked at."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much for how long. `pages_every_s`: so often each viewer opens a page."""

    seconds: float
    requests_per_s: int
    batch: int
    viewers: int
    pages_every_s: float
    workload: int


FULL: Final = Plan(60, 5_000, 5, 200, 30, 200_000)
QUICK: Final = Plan(10, 1_000, 5, 50, 10, 20_000)


def run(plan: Plan, workers: int) -> dict[str, Any]:
    """Return the result of one run, as it is stored."""
    began, load = datetime.now(UTC), os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="meterbridge-load-") as directory:
        figures = _deployed(Path(directory), plan, workers)
    return {
        "began": began.isoformat(timespec="seconds").replace("+00:00", "Z"),
        "machine": describe(),
        "load_before": load,
        "plan": {
            "seconds": plan.seconds,
            "requests_per_s": plan.requests_per_s,
            "batch": plan.batch,
            "viewers": plan.viewers,
            "pages_every_s": plan.pages_every_s,
            "workers": workers,
        },
        "figures": [one.to_plain() for one in figures],
    }


def _deployed(directory: Path, plan: Plan, workers: int) -> list[Figure]:
    """Start servers, meter a workload, start the service, and load it."""
    with deployed(directory, **UNLIMITED) as deployment:
        start = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=3)
        workload = Workload(seed=3, events=plan.workload, start=start, end=start + timedelta(hours=2))
        Producer(deployment.settings.redis).send(workload, batch=100)
        command = [sys.executable, "-m", "cli", "run", "--drain"]
        subprocess.run(command, env=deployment.environment, cwd=ROOT, check=True, capture_output=True)
        engine = ledger.connect(deployment.settings.ledger_url)
        now = datetime.now(UTC)
        token, text = tokens.create(engine, "load", "admin", actor="bench", now=now)
        sessions = _sessions(engine, token, plan.viewers)
        engine.dispose()
        options = ["--workers", str(workers)] if workers > 1 else []
        with serving(deployment.environment, *options) as service:
            return _loaded(deployment, service, text, sessions, plan)


def _sessions(engine: Engine, token: tokens.Token, count: int) -> list[str]:
    return [tokens.open_session(engine, token, datetime.now(UTC), timedelta(hours=1)) for _ in range(count)]


def _loaded(deployment: Deployment, service: Service, text: str, sessions: list[str], plan: Plan) -> list[Figure]:
    place = urlsplit(service.address)
    host, port = place.hostname or "", place.port or 0
    requests = _requests(text, plan)
    servers = {one.name: psutil.Process(one.pid) for one in deployment.stack.status() if one.pid}
    own = psutil.Process()

    def cpu_s() -> dict[str, float]:
        measured = {name: cpu_s_of(server) for name, server in servers.items()}
        return measured | {"service": service.cpu_s(), "load generator": sum(own.cpu_times()[:2])}

    async def load() -> tuple[Outcome, dict[str, float]]:
        warm = Producers(requests, plan.requests_per_s * WARM_UP_SHARE, WARM_UP_S, Outcome())
        await warm.run(host, port, CONNECTIONS, time.perf_counter())
        begins_s = time.perf_counter() + ARRIVAL_S + 1.0
        spending = asyncio.create_task(_spent(cpu_s, begins_s, plan.seconds))
        outcome = await _at_full_rate(host, port, requests, sessions, plan, begins_s)
        return outcome, await spending

    entries = deployment.entries()
    outcome, cores = uvloop.run(load())
    if deployment.entries() <= entries:
        message = "requests were answered, and the streams hold no more than before"
        raise SystemExit(message)
    sys.stderr.write(f"{dict(outcome.statuses)}\n")
    return figures_of(outcome, cores, plan)


async def _spent(cpu_s: Callable[[], dict[str, float]], begins_s: float, seconds: float) -> dict[str, float]:
    """Return how many cores each process used in that time."""
    await asyncio.sleep(begins_s - time.perf_counter())
    before, began_s = cpu_s(), time.perf_counter()
    await asyncio.sleep(seconds)
    took_s = time.perf_counter() - began_s
    return {name: (value - before[name]) / took_s for name, value in cpu_s().items()}


async def _at_full_rate(
    host: str, port: int, requests: list[bytes], sessions: list[str], plan: Plan, begins_s: float
) -> Outcome:
    outcome = Outcome()
    ends_s = begins_s + plan.seconds
    producers = Producers(requests, plan.requests_per_s, plan.seconds, outcome)
    viewers = [
        Viewer(host, port, f"{COOKIE}={secret}", PAGES, plan.pages_every_s, begins_s, ends_s, outcome).run(number)
        for number, secret in enumerate(sessions)
    ]
    await asyncio.gather(producers.run(host, port, CONNECTIONS, begins_s), *viewers)
    return outcome


PAGES: Final = ("/", "/usage", "/spend", "/documents", "/exceptions", "/corrections")


def _requests(token: str, plan: Plan) -> list[bytes]:
    """Return requests that are sent again and again: to the service a duplicate is like any other event."""
    made = []
    for number in range(0, BODIES * plan.batch, plan.batch):
        body = orjson.dumps([event(place) for place in range(number, number + plan.batch)])
        head = (
            f"POST /api/v1/events HTTP/1.1\r\nHost: load\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Type: application/cloudevents-batch+json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        made.append(head.encode() + body)
    return made


def figures_of(outcome: Outcome, cores: dict[str, float], plan: Plan) -> list[Figure]:
    """Return rates, errors, percentiles and processor time of one run; `cores` in use by process."""
    errors = sum(count for status, count in outcome.statuses.items() if not status.endswith((" 200", " 204")))
    posted = len(outcome.posted)
    figures = [
        figure("load", "ingest requests answered", posted / plan.seconds, "requests/s"),
        figure("load", "errors, of all answers", float(errors + outcome.unsent), "answers"),
        figure("load", "pages answered", len(outcome.looked) / plan.seconds, "pages/s"),
        figure("load", "live messages to viewers", outcome.live / plan.seconds, "messages/s"),
    ]
    for what, took in (("ingest", outcome.posted), ("pages", outcome.looked)):
        for share in SHARES:
            case = f"{what}, due to answered, percentile {share:g}"
            figures.append(figure("load", case, percentile(took, share) * 1e3, "ms"))
    figures += [figure("load", f"processor time: {name}", used, "cores") for name, used in cores.items()]
    if posted:
        per_request = cores["service"] * plan.seconds / posted * 1e6
        figures.append(figure("load", "processor time of the service, pages included", per_request, "us/request"))
    return figures


def percentile(values: list[float], share: float) -> float:
    """Return the value that this share of all does not exceed; 0 of none."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share / 100))] if values else 0.0


def main() -> None:
    """Run once, print, and store the result of a full run."""
    parser = argparse.ArgumentParser(prog="python -m bench.load", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less of everything: a look, not a result")
    parser.add_argument("--workers", type=int, default=1, help="processes of the service")
    parser.add_argument("--no-store", action="store_true", help="print the figures, and store nothing")
    options = parser.parse_args()
    result = run(QUICK if options.quick else FULL, options.workers)
    if not (options.quick or options.no_store):
        stamp = result["began"].replace(":", "").replace("-", "")
        (RESULTS / f"load-{stamp}.json").write_bytes(orjson.dumps(result, option=orjson.OPT_INDENT_2) + b"\n")
        write_page()
    sys.stdout.write(load_table(result))


if __name__ == "__main__":
    main()
