"""Servers that are away: what does not need them is answered, the rest says so and when to ask again."""

import httpx
import pytest
from pydantic import SecretStr

from config.loader import load
from config.revision import Revision
from config.settings import LedgerSettings, Settings
from console.services import Services, open_services
from core.clock import SystemClock
from sinks import ledger
from sinks.ledger import revisions
from tests.console.conftest import bearer, make_token
from tests.console.server import serving
from tests.flows.harness import CONFIG
from tests.sinks.ledger import samples


@pytest.fixture
def recorded(services: Services) -> Services:
    revisions.record_revision(services.pool.engine, Revision(load(CONFIG)), services.clock.now())
    return services


def test_clickhouse_and_redis_away(recorded: Services) -> None:
    with serving(recorded) as address, httpx.Client(base_url=f"{address}/api/v1", timeout=30) as client:
        client.headers.update(bearer(make_token(recorded, "admin")))
        for path in ("/documents", "/customers", "/meters", "/plans", "/me"):
            assert client.get(path).status_code == 200, path
        for path in ("/usage?meter=input_tokens", "/exceptions", "/rated-rows?customer=acme", "/reconciliation"):
            answer = client.get(path)
            assert answer.status_code in (503, 404), answer.text
            if answer.status_code == 503:
                assert answer.json()["code"] == "unavailable"
                assert int(answer.headers["retry-after"]) > 0
        status = client.get("/status").json()
        assert set(status["errors"]) == {"clickhouse", "redis"}
        assert (status["intake"], status["streams"]) == (None, None)
        assert status["books"]["config_version"]


def test_no_configuration_yet(services: Services) -> None:
    with serving(services) as address, httpx.Client(base_url=f"{address}/api/v1", timeout=30) as client:
        client.headers.update(bearer(make_token(services, "admin")))
        answer = client.get("/meters")
        assert answer.status_code == 503, answer.text
        assert "run `meterbridge migrate`" in answer.json()["detail"]
        assert client.get("/me").status_code == 200


def test_the_ledger_on_postgresql(settings: Settings, postgres_url: str) -> None:
    elsewhere = settings.model_copy(update={"ledger": LedgerSettings(url=SecretStr(postgres_url))})
    ledger.migrate(elsewhere.ledger_url)
    services = open_services(elsewhere, SystemClock())
    samples.empty(services.pool.engine)
    revisions.record_revision(services.pool.engine, Revision(load(CONFIG)), services.clock.now())
    with serving(services) as address, httpx.Client(base_url=f"{address}/api/v1", timeout=30) as client:
        client.headers.update(bearer(make_token(services, "admin")))
        for path in (
            "/me",
            "/documents?state=HELD&from=2026-01-01T00:00:00Z",
            "/customers",
            "/audit?limit=1",
            "/status",
        ):
            answer = client.get(path)
            assert answer.status_code == 200, (path, answer.text)
        assert client.post("/documents/nothing/reverse", json={"reason": "x"}).status_code == 404
        assert client.get("/documents/nothing").status_code == 404


def test_too_many_viewers_are_told_so(recorded: Services) -> None:
    few = recorded.settings.console.model_copy(update={"streams_max": 1})
    recorded.close()
    services = open_services(recorded.settings.model_copy(update={"console": few}), SystemClock())
    with serving(services) as address, httpx.Client(base_url=f"{address}/api/v1", timeout=30) as client:
        client.headers.update(bearer(make_token(services, "admin")))
        with client.stream("GET", "/live") as first:
            lines = first.iter_lines()  # kept: the stream ends with it
            assert next(lines) == "event: overview", "with what there is, ClickHouse and Redis away"
            with client.stream("GET", "/live") as second:
                assert second.status_code == 503
                assert b'"code":"unavailable"' in second.read()
