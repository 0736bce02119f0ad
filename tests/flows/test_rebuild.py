"""Working state that is lost: the flow refuses to begin again, and `rebuild` makes it from the events."""

import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis

from core.directory_lock import DirectoryLock
from core.errors import Disagreement, InvalidRequest, LockHeld, StateMismatch
from flows import runtime
from flows.rebuild import Rebuilt, plan, rebuild
from flows.verify import Replay, verify
from queries.reconcile import reconcile, span_of
from queries.stores import open_stores
from sinks import ledger
from sinks.ledger import progress
from sources.producer import Producer
from sources.workload import Record, Workload
from tests.flows.conftest import Deploy
from tests.flows.harness import Deployment, differences, read_streams
from tests.flows.oracle import Oracle

START = datetime(2026, 11, 20, 6, 0, tzinfo=UTC)
REPLAY = Replay(workers=1, epoch_s=0.3)


def _history(events: int = 3_000, seed: int = 7) -> list[Record]:
    return list(Workload(seed=seed, events=events, start=START, end=START + timedelta(hours=5)))


def _metered(deployment: Deploy, **flow: Any) -> tuple[Deployment, list[Record]]:
    deployed, records = deployment(**flow), _history()
    Producer(deployed.settings.redis).send(records)
    runtime.run(deployed.settings, deployed.configuration, drain=True)
    return deployed, records


def _lose(deployed: Deployment, *names: str) -> None:
    for name in names:
        shutil.rmtree(deployed.settings.state_dir / name)


def _run(deployed: Deployment) -> None:
    runtime.run(deployed.settings, deployed.configuration, drain=True)


def _names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir() if path.is_dir()}


def _books_hold(deployed: Deployment) -> None:
    assert [row for row in verify(deployed.settings, replay=REPLAY).comparisons if not row.equal] == []
    with open_stores(deployed.settings) as stores:
        report = reconcile(stores, span_of(stores, None, None))
    assert [check.name for check in report.checks if not check.holds] == []


def _goes_on(deployed: Deployment, records: list[Record], rebuilt: Rebuilt) -> None:
    """Send old events again and new ones behind them: the old ids are known, and everything else goes on."""
    assert rebuilt.report.equal
    before = deployed.outcomes()
    fresh = [
        (None, subject, payload.replace(b'"id":"', b'"id":"new-')) for _, subject, payload in _history(300, seed=8)
    ]
    again = [(None, subject, payload) for _, subject, payload in records[-400:]]
    with Producer(deployed.settings.redis) as producer:
        producer.send([*again, *fresh])
    _run(deployed)
    after = deployed.outcomes()
    assert after["duplicate", ""] - before["duplicate", ""] > 300, "old ids were not known"
    assert after["accepted", ""] > before["accepted", ""]


def test_a_lost_dedupe_log_is_made_again_from_the_streams(deployment: Deploy) -> None:
    deployed, records = _metered(deployment)
    _lose(deployed, "dedupe")
    with pytest.raises(StateMismatch, match="meterbridge rebuild"):
        _run(deployed)

    before = _names(deployed.settings.state_dir)
    assert plan(deployed.settings).directories == ("recovery", "dedupe", "unique")
    assert _names(deployed.settings.state_dir) == before, "a dry run changed something"

    rebuilt = rebuild(deployed.settings, replay=REPLAY)
    assert _names(deployed.settings.state_dir) - before == {Path(rebuilt.aside).name}
    assert (Path(rebuilt.aside) / "recovery").is_dir()

    _goes_on(deployed, records, rebuilt)
    expected = Oracle(deployed.configuration).run(
        read_streams(deployed.settings.redis.url, deployed.settings.redis.streams)
    )
    assert deployed.outcomes() == dict(expected.outcomes)
    assert differences(deployed.facts(), expected) == []
    _books_hold(deployed)


@pytest.mark.slow
def test_what_was_trimmed_is_made_again_from_stored_events(deployment: Deploy) -> None:
    """Given half of the streams gone and all working state lost; then storage and streams together restore it."""
    deployed, records = _metered(deployment, epoch_bytes_max=1 << 20)
    client: Any = redis.Redis.from_url(deployed.settings.redis.url)
    for name in deployed.settings.redis.streams[:3]:
        client.xtrim(name, maxlen=client.xlen(name) // 2, approximate=False)
    client.close()
    _lose(deployed, "recovery", "dedupe", "unique")
    with pytest.raises(StateMismatch, match=r"has books up to .*meterbridge rebuild"):
        _run(deployed)

    rebuilt = rebuild(deployed.settings, replay=Replay(workers=2, epoch_s=0.3))  # the flow itself has one worker
    assert 0 < rebuilt.plan.stored_until_ms < rebuilt.plan.watermark_ms
    _goes_on(deployed, records, rebuilt)
    _books_hold(deployed)


@pytest.mark.slow
def test_state_lost_with_a_flow_that_was_killed_half_way_is_made_again(deployment: Deploy) -> None:
    """Given tables and staged documents ahead of the durable books; then the flow writes the same once more."""
    deployed = deployment(epoch_s=1.0)
    Producer(deployed.settings.redis).send(_history(30_000))
    slowly = {
        "METERBRIDGE_REDIS__READ_ENTRIES": "50",
        "METERBRIDGE_FLOW__EPOCH_BYTES_MAX": str(1 << 20),
        "METERBRIDGE_FLOW__ITEM_EVENTS_MAX": "1000",  # else one item takes everything
    }
    process = deployed.start("run", **slowly)
    engine = ledger.connect(deployed.settings.ledger_url)
    until_s = time.monotonic() + 60
    while progress.watermark_ms(engine) < START.timestamp() * 1000 + 3_600_000:
        assert time.monotonic() < until_s
        time.sleep(0.02)
    process.kill()
    process.communicate()
    engine.dispose()
    assert sum(deployed.outcomes().values()) < 30_000, "everything was read before the kill: the test is void"

    _lose(deployed, "recovery", "dedupe", "unique")
    assert rebuild(deployed.settings, replay=REPLAY).report.equal
    _run(deployed)
    expected = Oracle(deployed.configuration).run(
        read_streams(deployed.settings.redis.url, deployed.settings.redis.streams)
    )
    assert deployed.outcomes() == dict(expected.outcomes)
    assert differences(deployed.facts(), expected) == []
    _books_hold(deployed)


class _Dies:
    """A disk under which the process dies at the n-th sync of a directory."""

    def __init__(self, at: int) -> None:
        self.left = at

    def sync_directory(self, path: Path) -> None:
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.parametrize("at", [1, 3, 5])
def test_a_death_inside_the_exchange_leaves_a_state_that_is_refused_and_can_be_rebuilt(
    deployment: Deploy, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    deployed, records = _metered(deployment)
    disk = _Dies(at)
    with monkeypatch.context() as patch:
        patch.setattr("flows.rebuild.SystemDisk", lambda: disk)
        with pytest.raises(KeyboardInterrupt):
            rebuild(deployed.settings, replay=REPLAY)
    with pytest.raises(StateMismatch, match="meterbridge rebuild"):
        _run(deployed)

    _goes_on(deployed, records, rebuild(deployed.settings, replay=REPLAY))
    _books_hold(deployed)


def test_nothing_is_changed_where_a_replay_differs_or_a_flow_runs(deployment: Deploy) -> None:
    deployed, _ = _metered(deployment)
    state_dir = deployed.settings.state_dir
    with DirectoryLock(state_dir / "flow-0.lock"), pytest.raises(LockHeld):
        rebuild(deployed.settings, replay=REPLAY)

    database = deployed.settings.clickhouse.database
    deployed.query_command(
        f"ALTER TABLE {database}.usage_facts UPDATE value = value + 1 WHERE meter = 'requests'"
        " SETTINGS mutations_sync = 1"
    )
    before = {path: path.stat().st_mtime_ns for path in state_dir.rglob("*") if "ledger" not in path.name}
    with pytest.raises(Disagreement, match=r"nothing was changed.*usage_facts_current"):
        rebuild(deployed.settings, replay=REPLAY)
    after = {path: path.stat().st_mtime_ns for path in state_dir.rglob("*") if "ledger" not in path.name}
    changed = {path.name for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    assert changed <= {"flow-0.lock", "rebuild.lock"}


def test_events_that_are_nowhere_any_more_are_missed_before_the_replay(deployment: Deploy) -> None:
    deployed, _ = _metered(deployment)
    client: Any = redis.Redis.from_url(deployed.settings.redis.url)
    client.xtrim("usage:0", maxlen=0, approximate=False)
    client.close()
    database = deployed.settings.clickhouse.database
    deployed.query_command(
        f"ALTER TABLE {database}.usage_events DELETE WHERE stream = 'usage:0' SETTINGS mutations_sync = 1"
    )
    with pytest.raises(InvalidRequest, match="cannot be made again"):
        plan(deployed.settings)


def test_before_any_books_it_says_what_to_do(deployment: Deploy) -> None:
    deployed = deployment()
    with pytest.raises(InvalidRequest, match="begins with the first entry"):
        plan(deployed.settings)


@pytest.mark.slow
def test_the_command_is_a_dry_run_until_told(deployment: Deploy) -> None:
    deployed, _ = _metered(deployment)
    dry = deployed.start("rebuild", "--json")
    output, errors = dry.communicate(timeout=120)
    assert dry.returncode == 0, errors
    assert orjson.loads(output)["done"] is False
    done = deployed.start("rebuild", "--yes", "--json")
    output, errors = done.communicate(timeout=120)
    assert done.returncode == 0, errors
    plain = orjson.loads(output)
    assert plain["done"] is True
    assert Path(plain["aside"]).is_dir()
