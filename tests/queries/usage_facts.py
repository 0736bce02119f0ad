"""Made-up facts of every kind of meter, late ones and rows of replays among them, in a database of their own."""

import random
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import polars as pl

from config.revision import Configuration, History, Revision
from config.settings import ClickHouseSettings, Settings
from core.frames import FACT_SCHEMA
from queries.stores import Stores
from sinks import clickhouse
from sinks.clickhouse.client import connect
from sinks.clickhouse.tables import TABLES
from sinks.clickhouse.writer import TableWriter
from sinks.ledger.database import connect as connect_ledger

BEGINS = datetime(2026, 10, 31, 20, tzinfo=UTC)
HOURS = 9
"""Over the end of a month, and so of a partition."""
ENDS = BEGINS + timedelta(hours=HOURS)
OPEN = ENDS - timedelta(hours=1)
"""From here on facts are open."""
TENANTS = ("acme", "globex", "initech")
AGGREGATIONS = ("count", "sum", "max", "min", "latest", "unique_count", "weighted_sum")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def configuration() -> Configuration:
    """Return one meter of each aggregation, named like it, with a dimension."""
    meters = [
        {"id": name, "event_type": "e", "aggregation": name, "group_by": {"model": "$.model"}}
        | ({} if name == "count" else {"value": "$.value"})
        for name in AGGREGATIONS
    ]
    return Configuration.model_validate({"meters": meters})


def made(seed: int = 11, count: int = 4_000) -> list[dict[str, Any]]:
    """Return sealed facts, and open ones of the last hour; values are negative here and there, as voids make them."""
    chance = random.Random(seed)
    first = int((BEGINS - _EPOCH) / timedelta(minutes=1))
    opens = int((OPEN - _EPOCH) / timedelta(minutes=1))
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for number in range(count):
        booked = first + chance.randrange(HOURS * 60)
        late = chance.choice((0, 0, 0, 1, 17, 59, 60, 61, 200))
        meter, tenant = chance.choice(AGGREGATIONS), chance.choice(TENANTS)
        model = chance.choice(("a", "b", ""))
        used = max(first, booked - late)
        found[tenant, meter, model, used, booked] = {
            "tenant": tenant,
            "meter": meter,
            "dimensions": f'{{"model":"{model}"}}',
            "usage_minute": used,
            "booked_minute": booked,
            "value": Decimal(chance.randrange(-900, 9_000_000)) / 1000,
            "value_time_us": used * 60_000_000 + chance.randrange(3) if meter == "latest" else 0,
            "events": chance.choice((-1, 0, 1, 2, 30)),
            "version": 5 + number % 3,
            "sealed": int(booked < opens),
        }
    return list(found.values())


def older(facts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what a replay writes again: open rows of other values, with versions as high as those of sealed ones."""
    return [
        fact | {"sealed": 0, "value": fact["value"] + 1, "events": fact["events"] + 1, "version": fact["version"]}
        for number, fact in enumerate(facts)
        if fact["sealed"] and number % 4 == 0
    ]


def write(settings: ClickHouseSettings, facts: list[dict[str, Any]]) -> None:
    """Insert the facts as the flow does."""
    writer = TableWriter(TABLES["usage_facts"], settings, ("usage:0",), stop=threading.Event(), epoch_s=1)
    writer.write([pl.DataFrame(facts, schema=FACT_SCHEMA)])
    writer.flush()
    writer.close()


@contextmanager
def stored(clickhouse_url: str) -> Iterator[Stores]:
    """A migrated database with nothing in it, dropped at the end."""
    base = Settings()
    own = ClickHouseSettings(url=clickhouse_url, database=f"test_{uuid.uuid4().hex[:12]}")
    settings = base.model_copy(update={"clickhouse": own})
    clickhouse.migrate(own)
    with connect(own) as client:
        yield Stores(settings, client, connect_ledger("sqlite://"), History([Revision(configuration())]))
        client.command(f"DROP DATABASE {own.database}")
