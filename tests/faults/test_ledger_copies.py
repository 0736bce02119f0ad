"""A ledger or a state directory that is there twice: an older copy put back, or two flows at work on one ledger."""

import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from core.errors import LockHeld, StateMismatch
from flows import runtime
from flows.rebuild import rebuild
from flows.verify import Replay, verify
from sinks import ledger
from sinks.ledger import documents
from sources.producer import Producer
from sources.stream_commands import LOADING_PREFIX
from sources.workload import Record, Workload
from tests.flows.harness import Deployment, deploy, differences, read_streams
from tests.flows.oracle import Oracle

START = datetime(2026, 11, 20, 6, 0, tzinfo=UTC)
REPLAY = Replay(workers=1, epoch_s=0.3)
COPIED = ("recovery", "dedupe", "unique")


@pytest.fixture
def deployed(redis_url: str, clickhouse_settings: Any, tmp_path: Path) -> Deployment:
    return deploy(redis_url, clickhouse_settings.url, tmp_path / "state", clickhouse_settings.database, epoch_s=0.1)


def _history(events: int) -> list[Record]:
    return list(Workload(seed=5, events=events, start=START, end=START + timedelta(hours=12)))


def _send_history(deployed: Deployment, records: list[Record], *, more_follows: bool) -> None:
    """Add history by its own times; while more follows, the clock does not move the streams past it."""
    client: Any
    with redis.Redis.from_url(deployed.settings.redis.url) as client, Producer(deployed.settings.redis) as producer:
        producer.send(records)
        for name in deployed.settings.redis.streams:
            if more_follows:
                client.set(LOADING_PREFIX + name, 1)
            else:
                client.delete(LOADING_PREFIX + name)


def _drain(deployed: Deployment) -> None:
    runtime.run(deployed.settings, deployed.configuration, drain=True)


def _documents(deployed: Deployment) -> dict[str, str]:
    engine = ledger.connect(deployed.settings.ledger_url)
    try:
        return documents.digests_before(engine, 10**9)
    finally:
        engine.dispose()


def _equals_oracle(deployed: Deployment) -> None:
    expected = Oracle(deployed.configuration).run(
        read_streams(deployed.settings.redis.url, deployed.settings.redis.streams)
    )
    assert deployed.outcomes() == dict(expected.outcomes)
    assert differences(deployed.facts(), expected) == []
    assert verify(deployed.settings, replay=REPLAY).equal


def _copied_ledger(deployed: Deployment, to: Path) -> None:
    source = sqlite3.connect(deployed.settings.state_dir / "ledger.sqlite")
    target = sqlite3.connect(to)
    source.backup(target)
    source.close()
    target.close()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_older_ledger_is_refused_and_its_missing_documents_are_made_again(
    deployed: Deployment, tmp_path: Path
) -> None:
    records = _history(4_000)
    _send_history(deployed, records[:2_000], more_follows=True)
    _drain(deployed)
    _copied_ledger(deployed, tmp_path / "older.sqlite")
    older = _documents(deployed)
    _send_history(deployed, records[2_000:], more_follows=False)
    _drain(deployed)
    all_of_them = _documents(deployed)
    assert 0 < len(older) < len(all_of_them)

    for suffix in ("", "-wal", "-shm"):
        (deployed.settings.state_dir / f"ledger.sqlite{suffix}").unlink(missing_ok=True)
    shutil.copy(tmp_path / "older.sqlite", deployed.settings.state_dir / "ledger.sqlite")
    with pytest.raises(StateMismatch, match=r"older copy.*meterbridge rebuild"):
        _drain(deployed)
    assert _documents(deployed) == older

    assert rebuild(deployed.settings, replay=REPLAY).report.equal
    _drain(deployed)
    assert _documents(deployed) == all_of_them
    _equals_oracle(deployed)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_flows_on_copies_of_one_state_end_with_the_later_one_alone(deployed: Deployment, tmp_path: Path) -> None:
    records = _history(6_000)
    _send_history(deployed, records[:2_000], more_follows=True)
    _drain(deployed)
    other = tmp_path / "other-host"
    other.mkdir()
    for name in COPIED:
        shutil.copytree(deployed.settings.state_dir / name, other / name)

    same_ledger = {"METERBRIDGE_LEDGER__URL": deployed.settings.ledger_url}
    first = deployed.start("run", **same_ledger)
    try:
        _wait(lambda: _fence(deployed) == 2, first)
        _send_history(deployed, records[2_000:4_000], more_follows=False)
        second = deployed.start("run", METERBRIDGE_STATE_DIR=str(other), **same_ledger)
        try:
            _, errors = first.communicate(timeout=240)
            assert first.returncode == LockHeld.exit_code, errors
            assert "another metering flow" in errors
            with Producer(deployed.settings.redis) as producer:
                producer.send([(None, subject, payload) for _, subject, payload in records[4_000:]])
            time.sleep(2.0)
        finally:
            second.terminate()
            _, errors = second.communicate(timeout=240)
        assert second.returncode == 0, errors
    finally:
        first.kill()
    deployed.settings = deployed.settings.model_copy(
        update={
            "state_dir": other,
            "ledger": deployed.settings.ledger.model_validate({"url": deployed.settings.ledger_url}),
        }
    )
    _drain(deployed)
    _equals_oracle(deployed)


def _fence(deployed: Deployment) -> int:
    connection = sqlite3.connect(deployed.settings.state_dir / "ledger.sqlite")
    try:
        row = connection.execute("SELECT sequence FROM progress WHERE name = 'flow_fence'").fetchone()
    finally:
        connection.close()
    return int(row[0]) if row else 0


def _wait(reached: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    until_s = time.monotonic() + 240
    while not reached():
        assert process.poll() is None
        assert time.monotonic() < until_s
        time.sleep(0.1)
