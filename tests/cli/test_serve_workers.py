"""`serve --workers 2` with real processes: both serve, limits and metrics are of both, a dead one comes back."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import psutil
import pytest
import redis

from cli.demo_steps import free_port
from config.loader import load
from config.revision import Revision
from config.settings import RedisSettings
from sinks import ledger
from sinks.ledger import revisions, tokens
from tests.cli.serving import address_of
from tests.flows.harness import CONFIG

ROOT = Path(__file__).parents[2]
PER_S = 10
BURST = 40
EVENT = {"specversion": "1.0", "source": "/t", "type": "llm.completion", "subject": "acme", "data": {"input_tokens": 1}}


@dataclass(frozen=True)
class Running:
    """A service with two workers."""

    supervisor: psutil.Process
    address: str
    metrics: str
    token: Callable[[str], str]

    def workers(self) -> set[int]:
        """Return the processes of the workers."""
        return {child.pid for child in self.supervisor.children()}

    def ask(self, method: str, path: str, token: str = "", **more: object) -> httpx.Response:
        """Send a request over a connection of its own, which any worker may get."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        with httpx.Client(base_url=self.address, timeout=60) as client:
            return client.request(method, path, headers=headers, **more)  # type: ignore[arg-type]

    def metric(self, name: str) -> float:
        """Return the sum of a metric's samples."""
        text = httpx.get(self.metrics, timeout=60).text
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name))


def own_part(answer: httpx.Response) -> str:
    """Return the part of a request id that is the process's own."""
    return str(answer.headers["x-request-id"][:16])


@pytest.fixture
def running(tmp_path: Path, redis_url: str) -> Iterator[Running]:
    """Start it, and end it by SIGTERM: all processes must be gone then."""
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    ledger.migrate(url)
    engine = ledger.connect(url)
    revisions.record_revision(engine, Revision(load(CONFIG)), datetime.now(UTC))
    port = free_port(0)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("METERBRIDGE_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "cli", "serve", "--workers", "2", "--json"],
        cwd=ROOT,
        env=clean
        | {
            "METERBRIDGE_STATE_DIR": str(tmp_path),
            "METERBRIDGE_REDIS__URL": redis_url,
            "METERBRIDGE_CLICKHOUSE__URL": "http://127.0.0.1:9",
            "METERBRIDGE_CONSOLE__PORT": "0",
            "METERBRIDGE_CONSOLE__REQUESTS_PER_S_MAX": str(PER_S),
            "METERBRIDGE_METRICS__CONSOLE_PORT": str(port),
        },
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        address = address_of(process)

        def token(role: str) -> str:
            return tokens.create(engine, f"a {role}", role, actor="test", now=datetime.now(UTC))[1]

        supervisor = psutil.Process(process.pid)
        yield Running(supervisor, address, f"http://127.0.0.1:{port}/metrics", token)
        workers = supervisor.children()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert not psutil.wait_procs(workers, timeout=10)[1]
    finally:
        process.kill()
        process.wait()
        engine.dispose()


def test_both_serve_and_limits_and_metrics_are_of_both(running: Running, redis_url: str) -> None:
    assert len(running.workers()) == 2
    token = running.token("producer")
    began_s = time.monotonic()
    answers = [
        running.ask("POST", "/api/v1/events", token, json=EVENT | {"id": f"e-{number}"}) for number in range(BURST * 2)
    ]
    took_s = time.monotonic() - began_s
    accepted = sum(answer.status_code == 204 for answer in answers)
    assert {answer.status_code for answer in answers} <= {204, 429}
    assert min(BURST, len(answers)) <= accepted <= BURST + PER_S * took_s + 1
    assert len({own_part(answer) for answer in answers}) == 2, "both workers served"
    with redis.Redis.from_url(redis_url) as client:
        assert sum(client.xlen(stream) for stream in RedisSettings().streams) == accepted
    assert running.metric('meterbridge_api_events_total{outcome="accepted"') == accepted
    assert running.metric("meterbridge_api_request_seconds_count") == len(answers)
    assert running.metric("meterbridge_console_workers") == 2


def test_every_kind_of_route_works_from_both(running: Running) -> None:
    token = running.token("viewer")
    served: set[str] = set()
    for _ in range(10):
        for path in ("/api/v1/me", "/api/v1/meters", "/login", "/static/console.css", "/health/ready"):
            answer = running.ask("GET", path, running.token("viewer") if path.startswith("/api") else "")
            assert answer.status_code == 200, path
            served.add(own_part(answer))
        with (
            httpx.Client(base_url=running.address, timeout=60) as client,
            client.stream("GET", "/api/v1/live", headers={"Authorization": f"Bearer {token}"}) as live,
        ):
            assert next(line for line in live.iter_lines() if line.startswith("data:"))
            served.add(own_part(live))
    assert len(served) == 2


def test_a_dead_worker_is_started_again_and_the_other_goes_on(running: Running) -> None:
    token = running.token("producer")
    assert running.ask("POST", "/api/v1/events", token, json=EVENT | {"id": "1"}).status_code == 204
    before = running.workers()
    dead = min(before)
    os.kill(dead, signal.SIGKILL)
    psutil.wait_procs([child for child in running.supervisor.children() if child.pid == dead], timeout=10)
    deadline_s = time.monotonic() + 60
    while running.metric("meterbridge_console_worker_restarts_total") != 1:
        assert running.ask("GET", "/health/live").status_code == 200, "the other one serves"
        assert time.monotonic() < deadline_s
    served: set[str] = set()
    while len(served) < 2:
        served.add(own_part(running.ask("GET", "/health/live")))
        assert time.monotonic() < deadline_s
    assert dead not in running.workers()
    assert running.ask("POST", "/api/v1/events", token, json=EVENT | {"id": "2"}).status_code == 204
    assert running.metric('meterbridge_api_events_total{outcome="accepted"') == 2, "what the dead one counted stays"


def test_the_port_is_nobody_elses(running: Running, tmp_path: Path) -> None:
    port = running.address.rsplit(":", 1)[1]
    environment = os.environ | {"METERBRIDGE_STATE_DIR": str(tmp_path), "METERBRIDGE_METRICS__CONSOLE_PORT": "0"}
    for workers in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-m", "cli", "serve", "--port", port, "--workers", workers],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode != 0
        assert "another process has the port" in done.stderr
