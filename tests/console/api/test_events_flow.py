"""What the API took is what the flow books: posted events, through real streams, to stored events and facts."""

import uuid
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from config.settings import RedisSettings
from console.services import open_services
from core.clock import SystemClock
from flows import runtime
from queries.event_trace import trace_event
from queries.stores import open_stores
from tests.console.conftest import bearer, make_token
from tests.console.server import serving
from tests.flows.harness import deploy

EVENTS = 150


def _events() -> list[dict[str, Any]]:
    now = datetime.now(UTC).isoformat()
    return [
        {"specversion": "1.0", "id": f"e-{number}", "source": "/api", "type": "llm.completion", "time": now,
         "subject": f"tenant-{number % 7}", "data": {"input_tokens": number, "model": "gpt-4", "region": "eu"}}
        for number in range(EVENTS)
    ]  # fmt: skip


def test_posted_events_are_booked_once(redis_url: str, clickhouse_url: str, tmp_path: Path) -> None:
    deployed = deploy(redis_url, clickhouse_url, tmp_path, f"api_{uuid.uuid4().hex[:12]}")
    runtime.run(deployed.settings, deployed.configuration, drain=True)  # records the configuration
    services = open_services(deployed.settings, SystemClock())
    with serving(services) as address, httpx.Client(base_url=address, timeout=30) as client:
        headers = bearer(make_token(services, "producer")) | {"X-Request-Id": "load-1"}
        events = _events()
        for batch in (events[:1], events[1:100], events[100:], events[:20]):  # the last ones a second time
            assert client.post("/api/v1/events", json=batch, headers=headers).status_code == 204
    runtime.run(deployed.settings, deployed.configuration, drain=True)
    outcomes = deployed.outcomes()
    assert sum(n for (outcome, _), n in outcomes.items() if outcome == "accepted") == EVENTS
    assert outcomes["duplicate", ""] == 20
    assert not any(outcome == "rejected" for outcome, _ in outcomes)
    (stored,) = deployed.query(
        "SELECT count(), uniqExact(id), sum(JSONExtractUInt(data, 'data', 'input_tokens')) FROM @usage_events_current"
    )
    assert stored == (EVENTS, EVENTS, sum(range(EVENTS)))
    with open_stores(deployed.settings) as stores:
        assert trace_event(stores, "/api", "e-5").request == "load-1"
        away = deployed.settings.model_copy(update={"redis": RedisSettings(url="redis://127.0.0.1:9/0")})
        assert trace_event(replace(stores, settings=away), "/api", "e-5").request is None
    deployed.query_command(f"DROP DATABASE {deployed.settings.clickhouse.database}")
