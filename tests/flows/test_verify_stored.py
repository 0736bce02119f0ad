"""Verify where the streams hold no longer what was booked: events come from ClickHouse."""

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
import redis

from flows import runtime
from flows.verify import Replay, verify
from sources.producer import Producer
from sources.trimmed import trimmed_until_ms
from sources.workload import Workload
from tests.flows.conftest import Deploy
from tests.flows.harness import Deployment

START = datetime(2026, 11, 20, 6, 0, tzinfo=UTC)


def _metered(deployment: Deploy, batch: int) -> Deployment:
    deployed = deployment()
    client: Any = redis.Redis.from_url(deployed.settings.redis.url)
    before_ms = int(START.timestamp() * 1000) - 1_000
    # Refused, and longer than what is kept of refused events; and an entry that is none.
    client.xadd("usage:1", {"event": b'{"id": "' + b"x" * 80_000}, id=f"{before_ms}-0")
    client.xadd("usage:1", {"other": b"a\nb"}, id=f"{before_ms}-1")
    lines = [orjson.dumps({"specversion": "1.0", "id": str(n)}) for n in range(3)]
    client.xadd("usage:1", {"events": b"\n\n".join([b"broken", *lines])}, id=f"{before_ms}-2")
    client.close()
    workload = Workload(seed=batch, events=4_000, start=START, end=START + timedelta(hours=5))
    Producer(deployed.settings.redis).send(workload, batch=batch)
    runtime.run(deployed.settings, deployed.configuration, drain=True)
    return deployed


def _trim(deployed: Deployment, share: float) -> int:
    client: Any = redis.Redis.from_url(deployed.settings.redis.url)
    trimmed = 0
    for name in deployed.settings.redis.streams[:3]:
        keep = int(client.xlen(name) * (1 - share))
        trimmed += client.xtrim(name, maxlen=keep, approximate=False)
    client.close()
    return trimmed


@pytest.mark.parametrize(("batch", "share"), [(1, 1.0), (40, 0.5)], ids=["all-trimmed", "half-trimmed-batches"])
def test_a_trimmed_stream_is_proven_from_stored_events(deployment: Deploy, batch: int, share: float) -> None:
    deployed = _metered(deployment, batch)
    trimmed = _trim(deployed, share)

    report = verify(deployed.settings, replay=Replay(workers=2, epoch_s=0.2, item_events=333))

    assert [(row.table, row.samples) for row in report.comparisons if not row.equal] == []
    assert report.equal
    assert report.entries_trimmed == trimmed > 0
    assert int(START.timestamp() * 1000) < report.stored_until_ms <= report.watermark_ms


def test_stored_events_alone_give_the_same_books_and_a_deleted_one_shows(deployment: Deploy) -> None:
    deployed = _metered(deployment, 1)

    report = verify(deployed.settings, from_stored=True)
    assert [(row.table, row.samples) for row in report.comparisons if not row.equal] == []
    assert report.watermark_ms - 60_000 < report.stored_until_ms <= report.watermark_ms
    assert all(row.rows_live > 0 for row in report.comparisons if row.table != "documents of acts")

    database = deployed.settings.clickhouse.database
    deployed.query_command(
        f"ALTER TABLE {database}.usage_events DELETE WHERE (stream, entry_id) IN (SELECT stream, entry_id"
        f" FROM {database}.usage_events WHERE type = 'llm.completion' ORDER BY ingest_time LIMIT 1)"
        " SETTINGS mutations_sync = 1"
    )
    report = verify(deployed.settings, from_stored=True)
    assert {row.table for row in report.comparisons if not row.equal} >= {"usage_facts_current"}


def test_nothing_is_gone_from_whole_streams(deployment: Deploy) -> None:
    deployed = _metered(deployment, 1)

    assert trimmed_until_ms(deployed.settings.redis) == (0, 0)
    assert verify(deployed.settings).stored_until_ms == 0
