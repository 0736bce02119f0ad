"""A newer program on an older state directory, and other numbers of workers: totals stay what they would have been."""

import tarfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis

from config.revision import Configuration
from flows import runtime
from flows.verify import Replay, verify
from sinks import ledger
from sinks.ledger import documents, revisions
from sources.producer import Producer
from sources.workload import Record, Workload
from tests.flows.harness import Deployment, deploy, differences, read_streams
from tests.flows.oracle import Oracle
from tests.golden import make as golden

VERSIONS = sorted(path.name.removesuffix(".tar.xz") for path in golden.HERE.glob("*.tar.xz"))
REPLAY = Replay(workers=1, epoch_s=0.3)


def _restored(version: str, deployed: Deployment) -> tuple[Configuration, dict[str, Any]]:
    """Unpack a golden state directory, fill the streams with what it read, and return its configuration and entries."""
    state_dir = deployed.settings.state_dir
    (state_dir / "ledger.sqlite").unlink()
    with tarfile.open(golden.HERE / f"{version}.tar.xz") as archive:
        archive.extractall(state_dir, filter="data")
    entries: dict[str, Any] = orjson.loads((state_dir / "streams.json").read_bytes())
    client: Any = redis.Redis.from_url(deployed.settings.redis.url)
    for stream, rows in entries.items():
        for entry_id, fields in rows:
            client.xadd(stream, {name: value.encode("latin-1") for name, value in fields.items()}, id=entry_id)
    client.close()
    ledger.migrate(deployed.settings.ledger_url)
    engine = ledger.connect(deployed.settings.ledger_url)
    configuration = revisions.load_history(engine)[-1].configuration
    engine.dispose()
    return configuration, entries


def _oldest_again(entries: dict[str, Any], after: datetime) -> list[Record]:
    """Return events of the golden history as they would come again, later."""
    payloads = [fields["event"].encode("latin-1") for rows in entries.values() for _, fields in rows[:20]]
    good = [payload for payload in payloads if payload.startswith(b"{") and b'"subject":"' in payload]
    return [
        (int(after.timestamp() * 1000) + number, payload.split(b'"subject":"')[1].split(b'"')[0].decode(), payload)
        for number, payload in enumerate(good)
    ]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_state_of_an_earlier_version_goes_on(
    version: str, redis_url: str, clickhouse_settings: Any, tmp_path: Path
) -> None:
    """Given the state a version left; then new events are booked on top of it, and its ids are still known.

    Only a release may change what it reads: a failure here before the first one means that the state's format has
    changed, and the golden state directory is to be made again.
    """
    deployed = deploy(redis_url, clickhouse_settings.url, tmp_path, clickhouse_settings.database, epoch_s=0.2)
    configuration, entries = _restored(version, deployed)
    engine = ledger.connect(deployed.settings.ledger_url)
    before = documents.digests_before(engine, 10**9)

    ends = golden.START + timedelta(hours=3, minutes=5)
    again = _oldest_again(entries, ends)
    more = list(Workload(seed=2, events=400, start=ends + timedelta(minutes=1), end=ends + timedelta(hours=2)))
    Producer(deployed.settings.redis).send([*again, *more])
    assert runtime.run(deployed.settings, configuration, drain=True).drained

    expected = Oracle(configuration).run(read_streams(redis_url, deployed.settings.redis.streams))
    first = int(golden.START.timestamp()) // 60 + 4 * 60
    new = {key: fact for key, fact in expected.facts.items() if key[4] >= first}
    stored = {key: fact for key, fact in deployed.facts().items() if key[4] >= first}
    assert len(new) > 50
    assert {key: fact for key, fact in stored.items() if fact != new.get(key)} == {}
    assert stored.keys() == new.keys()
    assert deployed.outcomes()["duplicate", ""] >= len(again) - 5, "ids of the earlier version are not known"

    after = documents.digests_before(engine, 10**9)
    engine.dispose()
    assert before.items() <= after.items()
    assert len(after) > len(before)
    report = verify(deployed.settings, replay=REPLAY)
    (books,) = [row for row in report.comparisons if row.table == "ledger documents"]
    assert books.equal, books.samples


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_other_numbers_of_workers_change_no_total(redis_url: str, clickhouse_settings: Any, tmp_path: Path) -> None:
    """Given one history metered in three parts by one, two and one workers; then all is as the oracle's."""
    deployed = deploy(redis_url, clickhouse_settings.url, tmp_path, clickhouse_settings.database, epoch_s=0.1)
    start = datetime(2026, 11, 20, 6, 0, tzinfo=UTC)
    records = list(Workload(seed=4, events=4_500, start=start, end=start + timedelta(hours=6)))
    client: Any = redis.Redis.from_url(redis_url)
    for number, workers in enumerate((1, 2, 1)):
        Producer(deployed.settings.redis).send(records[number * 1_500 : (number + 1) * 1_500])
        if number < 2:
            for stream in deployed.settings.redis.streams:
                client.set(f"meterbridge:loading:{stream}", "test", ex=120)
        flow = deployed.settings.flow.model_copy(update={"workers": workers})
        settings = deployed.settings.model_copy(update={"flow": flow})
        assert runtime.run(settings, deployed.configuration, drain=True).drained
    client.close()
    expected = Oracle(deployed.configuration).run(read_streams(redis_url, deployed.settings.redis.streams))
    assert deployed.outcomes() == dict(expected.outcomes)
    assert differences(deployed.facts(), expected) == []
    assert verify(deployed.settings, replay=REPLAY).equal
