"""What tests of the fault world send into the streams, and read back from streams and ledger."""

import time
from datetime import UTC, datetime, timedelta

from sqlalchemy import select

from sinks import ledger
from sinks.ledger import tables
from sources.producer import Record
from sources.workload import Workload
from tests.faults.world import World
from tests.flows.harness import read_streams
from tests.flows.oracle import Entry, Oracle


def live_records(events: int, seed: int) -> list[Record]:
    now = datetime.now(UTC)
    workload = Workload(seed=seed, events=events, start=now - timedelta(seconds=60), end=now)
    return [(None, subject, payload) for _, subject, payload in workload]


def entries_of(world: World) -> list[Entry]:
    return read_streams(world.settings.redis.url, world.settings.redis.streams)


def wait_until_read(world: World, seconds: float = 90.0) -> None:
    """Wait until the flow has stored as many events as a batch would: everything sent was read."""
    redis_settings = world.settings.redis
    wanted = sum(
        Oracle(world.deployment.configuration)
        .run(read_streams(redis_settings.url, redis_settings.streams))
        .outcomes.values()
    )
    until_s = time.monotonic() + seconds
    while sum(world.deployment.outcomes().values()) < wanted:
        assert time.monotonic() < until_s, f"{wanted} events were not read: {world.said('flow')[-2_000:]}"
        time.sleep(0.3)


def exceptions_of(world: World) -> list[tuple[str, str]]:
    engine = ledger.connect(world.settings.ledger_url)
    try:
        with engine.connect() as connection:
            table = tables.exceptions
            return [(row.kind, row.detail) for row in connection.execute(select(table.c.kind, table.c.detail))]
    finally:
        engine.dispose()
