"""Servers that are away: what does not need them is answered, the rest says so and when to ask again."""

import httpx
import pytest

from config.revision import Revision
from console.services import Services
from sinks.ledger import revisions
from tests.console.conftest import bearer, make_token
from tests.console.server import serving
from tests.flows.harness import CONFIG


@pytest.fixture
def recorded(services: Services) -> Services:
    from config.loader import load  # noqa: PLC0415

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
