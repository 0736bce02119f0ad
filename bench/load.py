"""The service under load: viewers with live numbers and questions, and producers posting at a fixed rate, for a while.

`python -m bench.load [--quick]`. Everything is real and on this machine: Valkey, ClickHouse with a metered workload,
the service as a process of its own. Requests are due at fixed times and timed from then on, so that a service that
falls behind shows in the percentiles and not in a lower rate.
"""

import argparse
import asyncio
import http
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import orjson
import psutil

from bench.figures import Figure, figure
from bench.ingest import address_of, event
from cli.demo_steps import free_port
from config.settings import Settings
from sinks import ledger
from sinks.ledger import tokens
from sources.producer import Producer
from sources.workload import Workload
from stack.supervisor import Stack

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "config" / "meterbridge.yaml"
CONNECTIONS = 64
LOOKS_EVERY_S = 5.0
ANSWER_S_MAX = 30.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How much for how long."""

    seconds: float
    requests_per_s: int
    batch: int
    viewers: int
    workload: int


FULL = Plan(60, 5_000, 5, 200, 200_000)
QUICK = Plan(10, 500, 5, 50, 20_000)


@dataclass
class Outcome:
    """What was seen."""

    posted: list[float] = field(default_factory=list)
    looked: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    live: int = 0


def measure(*, quick: bool) -> list[Figure]:
    """Return rates, percentiles and errors of one run."""
    plan = QUICK if quick else FULL
    with tempfile.TemporaryDirectory(prefix="meterbridge-load-") as directory:
        outcome, cpu_s = _deployed(Path(directory), plan)
    name = (
        f"{plan.requests_per_s:,} ingest requests/s of {plan.batch} events, {plan.viewers} viewers, {plan.seconds:g} s"
    )
    errors = sum(n for status, n in outcome.statuses.items() if not status.endswith((" 200", " 204")))
    figures = [
        figure("load", f"{name}: answered ingest requests", len(outcome.posted) / plan.seconds, "requests/s"),
        figure("load", f"{name}: errors", float(errors), "answers"),
        figure("load", f"{name}: service processes", cpu_s / plan.seconds, "cores"),
        figure("load", f"{name}: live messages to viewers", outcome.live / plan.seconds, "messages/s"),
    ]
    for what, took in (("ingest", outcome.posted), ("questions", outcome.looked)):
        for share in (50, 99):
            figures.append(figure("load", f"{name}: {what}, percentile {share}", percentile(took, share) * 1e3, "ms"))
    sys.stderr.write(f"{dict(outcome.statuses)}\n")
    return figures


def percentile(values: list[float], share: int) -> float:
    """Return the value that this share of all does not exceed."""
    return sorted(values)[min(len(values) - 1, len(values) * share // 100)] if values else 0.0


def _deployed(directory: Path, plan: Plan) -> tuple[Outcome, float]:
    """Start servers, meter a workload, start the service, and load it."""
    base = Settings()
    settings = base.model_copy(
        update={
            "state_dir": directory,
            "redis": base.redis.model_copy(update={"url": f"redis://127.0.0.1:{free_port(0)}/0"}),
            "clickhouse": base.clickhouse.model_copy(update={"url": f"http://127.0.0.1:{free_port(0)}"}),
        }
    )
    environment = os.environ | {
        "METERBRIDGE_CONFIG_FILE": str(CONFIG),
        "METERBRIDGE_STATE_DIR": str(directory),
        "METERBRIDGE_REDIS__URL": settings.redis.url,
        "METERBRIDGE_CLICKHOUSE__URL": settings.clickhouse.url,
        "METERBRIDGE_METRICS__FLOW_PORT": "0",
        "METERBRIDGE_CONSOLE__PORT": "0",
        "METERBRIDGE_METRICS__CONSOLE_PORT": "0",
        "METERBRIDGE_CONSOLE__REQUESTS_PER_S_MAX": "1000000",
        "METERBRIDGE_CONSOLE__EVENTS_PER_S_MAX": "10000000",
        "METERBRIDGE_CONSOLE__CONNECTIONS_MAX": "5000",
    }
    stack = Stack(settings)
    stack.start()
    try:
        subprocess.run(
            [sys.executable, "-m", "cli", "migrate"], env=environment, cwd=ROOT, check=True, capture_output=True
        )
        start = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=3)
        workload = Workload(seed=3, events=plan.workload, start=start, end=start + timedelta(hours=2))
        Producer(settings.redis).send(workload, batch=100)
        subprocess.run(
            [sys.executable, "-m", "cli", "run", "--drain"], env=environment, cwd=ROOT, check=True, capture_output=True
        )
        engine = ledger.connect(settings.ledger_url)
        _, token = tokens.create(engine, "load", "admin", actor="bench", now=datetime.now(UTC))
        engine.dispose()
        service = subprocess.Popen(
            [sys.executable, "-m", "cli", "serve", "--json"],
            env=environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            return _loaded(service, token, plan, start)
        finally:
            service.terminate()
            service.wait(30)
    finally:
        stack.stop()


def _loaded(service: "subprocess.Popen[str]", token: str, plan: Plan, start: datetime) -> tuple[Outcome, float]:
    address = address_of(service)
    watched = [psutil.Process(service.pid), *psutil.Process(service.pid).children(recursive=True)]
    before = sum(sum(one.cpu_times()[:2]) for one in watched)
    outcome = asyncio.run(_run(address, token, plan, start))
    return outcome, sum(sum(one.cpu_times()[:2]) for one in watched) - before


async def _run(address: str, token: str, plan: Plan, start: datetime) -> Outcome:
    outcome = Outcome()
    place = urlsplit(address)
    host, port = place.hostname or "", place.port or 0
    begins_s = time.perf_counter() + 1.0
    ends_s = begins_s + plan.seconds
    bodies = _requests(token, plan)
    queue = iter(range(int(plan.seconds * plan.requests_per_s)))
    senders = [_send(host, port, queue, bodies, begins_s, plan.requests_per_s, outcome) for _ in range(CONNECTIONS)]
    viewers = [_view(host, port, token, start, ends_s, outcome, number) for number in range(plan.viewers)]
    await asyncio.gather(*senders, *viewers)
    return outcome


def _requests(token: str, plan: Plan) -> list[bytes]:
    """Return requests that are sent again and again: to the service a duplicate is like any other event."""
    made = []
    for number in range(0, 2_000 * plan.batch, plan.batch):
        body = orjson.dumps([event(place) for place in range(number, number + plan.batch)])
        head = (
            f"POST /api/v1/events HTTP/1.1\r\nHost: load\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Type: application/cloudevents-batch+json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        made.append(head.encode() + body)
    return made


async def _send(
    host: str, port: int, queue: Iterator[int], bodies: list[bytes], begins_s: float, per_s: int, outcome: Outcome
) -> None:
    reader, writer = await asyncio.open_connection(host, port)
    for number in queue:
        due_s = begins_s + number / per_s
        if (wait_s := due_s - time.perf_counter()) > 0:
            await asyncio.sleep(wait_s)
        writer.write(bodies[number % len(bodies)])
        status = await asyncio.wait_for(_answer(reader), ANSWER_S_MAX)
        outcome.posted.append(time.perf_counter() - due_s)
        outcome.statuses[f"POST {status}"] += 1
    writer.close()


async def _answer(reader: asyncio.StreamReader) -> int:
    head = await reader.readuntil(b"\r\n\r\n")
    status = int(head[9:12])
    lower = head.lower()
    place = lower.find(b"content-length:")
    if place >= 0:
        await reader.readexactly(int(lower[place + 15 : lower.index(b"\r\n", place)]))
    return status


async def _view(
    host: str, port: int, token: str, start: datetime, ends_s: float, outcome: Outcome, number: int
) -> None:
    """Look as a browser does: live numbers on one connection, a question every few seconds on another."""
    chance = random.Random(number)
    live = asyncio.create_task(_listen(host, port, token, outcome))
    await asyncio.sleep(chance.uniform(0, LOOKS_EVERY_S))
    span = f"from={start:%Y-%m-%dT%H:%M:%SZ}&to={start + timedelta(hours=2):%Y-%m-%dT%H:%M:%SZ}"
    paths = (
        f"/api/v1/usage?meter=input_tokens&window=hour&group_by=tenant&limit=50&{span}",
        "/api/v1/documents?limit=50",
        f"/api/v1/usage?meter=input_tokens&window=minute&limit=200&{span}",
    )
    reader, writer = await asyncio.open_connection(host, port)
    while time.perf_counter() < ends_s:
        path = chance.choice(paths)
        began_s = time.perf_counter()
        writer.write(f"GET {path} HTTP/1.1\r\nHost: load\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
        status = await asyncio.wait_for(_answer(reader), ANSWER_S_MAX)
        outcome.looked.append(time.perf_counter() - began_s)
        outcome.statuses[f"GET {status}"] += 1
        await asyncio.sleep(max(0.0, began_s + LOOKS_EVERY_S - time.perf_counter()))
    writer.close()
    live.cancel()


async def _listen(host: str, port: int, token: str, outcome: Outcome) -> None:
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(f"GET /api/v1/live HTTP/1.1\r\nHost: load\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        if int(head[9:12]) != http.HTTPStatus.OK:
            outcome.statuses[f"LIVE {int(head[9:12])}"] += 1
            return
        while line := await reader.readline():
            outcome.live += line.startswith(b"event: ")
    finally:
        writer.close()


def main() -> None:
    """Run once and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    for one in measure(quick=parser.parse_args().quick):
        print(f"{one.case}: {one.value:,.4g} {one.unit}")


if __name__ == "__main__":
    main()
