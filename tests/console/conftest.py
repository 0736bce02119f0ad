"""The service in the test's own process, on a real ledger; ClickHouse and Valkey only where a test asks for them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from config.loader import load
from config.revision import Revision
from config.settings import ClickHouseSettings, ConsoleSettings, LedgerSettings, RedisSettings, Settings
from console.services import Services, open_services
from core.clock import SystemClock
from sinks import ledger
from sinks.ledger import revisions, tokens
from tests.console.server import serving
from tests.flows.harness import CONFIG


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of a service whose ClickHouse and Redis do not answer."""
    return Settings(
        state_dir=tmp_path,
        ledger=LedgerSettings(url=SecretStr(f"sqlite:///{tmp_path / 'ledger.sqlite'}")),
        clickhouse=ClickHouseSettings(url="http://127.0.0.1:9", connect_timeout_s=1),
        redis=RedisSettings(url="redis://127.0.0.1:9/0", connect_timeout_s=1),
        console=ConsoleSettings(request_s_max=5, requests_per_s_max=50),
    )


@pytest.fixture
def services(settings: Settings) -> Services:
    """The parts of a service; what serves them closes them."""
    ledger.migrate(settings.ledger_url)
    return open_services(settings, SystemClock())


@pytest.fixture
def live_services(settings: Settings, redis_url: str) -> Services:
    """The parts of a service with a Valkey and a recorded configuration."""
    ledger.migrate(settings.ledger_url)
    live = settings.model_copy(update={"redis": RedisSettings(url=redis_url)})
    made = open_services(live, SystemClock())
    revisions.record_revision(made.pool.engine, Revision(load(CONFIG)), made.clock.now())
    return made


@pytest.fixture
def live_client(live_services: Services) -> Iterator[httpx.Client]:
    """A client of that service."""
    with serving(live_services) as address, httpx.Client(base_url=address, timeout=20) as made:
        yield made


@pytest.fixture
def client(services: Services) -> Iterator[httpx.Client]:
    """A client of the running service, without a token."""
    with serving(services) as address, httpx.Client(base_url=address, timeout=20) as made:
        yield made


@pytest.fixture
def token_text(services: Services) -> Callable[..., str]:
    """Make a token of a role, and of tenants, and return its text."""
    return lambda role="viewer", *tenants: make_token(services, role, *tenants)


def make_token(services: Services, role: str = "viewer", *tenants: str) -> str:
    """Make a token of a role, and of tenants, and return its text."""
    now = services.clock.now()
    return tokens.create(services.pool.engine, f"a {role}", role, tenants=tenants, actor="test", now=now)[1]


def bearer(text: str) -> dict[str, str]:
    """Return the header of a token."""
    return {"Authorization": f"Bearer {text}"}


def same_origin(client: httpx.Client) -> dict[str, str]:
    """Return the header a browser sends with a form of the console's own page."""
    return {"Origin": str(client.base_url).rstrip("/")}
