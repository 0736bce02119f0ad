"""Pages on a finished run: a workload sent, metered and posted on real servers, looked at through the service."""

from collections.abc import Callable, Iterator
from datetime import timedelta

import httpx
import pytest

from config.settings import ConsoleSettings
from console.auth import COOKIE
from console.services import Services, open_services
from core.clock import SystemClock
from sinks.ledger import tokens
from tests.console.conftest import make_token
from tests.console.server import serving
from tests.queries.conftest import Finished, finished

__all__ = ["finished"]

LogIn = Callable[..., httpx.Client]


@pytest.fixture(scope="module")
def shown(finished: Finished) -> Iterator[tuple[Services, str]]:
    """The service on that run, and its address."""
    settings = finished.deployment.settings.model_copy(
        update={"console": ConsoleSettings(requests_per_s_max=1000, request_s_max=60)}
    )
    services = open_services(settings, SystemClock())
    with serving(services) as address:
        yield services, address


@pytest.fixture
def log_in(shown: tuple[Services, str]) -> Iterator[LogIn]:
    """Make a client that is logged in with a role and tenants; the login page itself allows few tries."""
    services, address = shown
    made: list[httpx.Client] = []

    def client(role: str = "admin", *tenants: str) -> httpx.Client:
        one = httpx.Client(base_url=address, timeout=90, headers={"Origin": address})
        made.append(one)
        now, engine = services.clock.now(), services.pool.engine
        token = tokens.verify(engine, make_token(services, role, *tenants), now)
        assert token is not None
        one.cookies.set(COOKIE, tokens.open_session(engine, token, now, timedelta(hours=1)))
        return one

    yield client
    for one in made:
        one.close()
