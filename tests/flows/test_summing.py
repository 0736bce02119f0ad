"""Summing beside the flow and by the command: as far as the ledger says that hours are final, by one at a time."""

import json
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.main import app
from config.revision import Revision
from config.settings import Settings
from core.directory_lock import DirectoryLock
from core.errors import InvalidRequest, LockHeld, MeterbridgeError
from flows import summing
from queries.stores import Stores, open_stores
from sinks import ledger
from sinks.clickhouse import usage_hours
from sinks.ledger import progress, revisions
from sinks.ledger.database import write
from tests.queries import usage_facts
from tests.queries.usage_facts import BEGINS, OPEN

FINAL = OPEN - timedelta(hours=1)
"""Up to here the ledger says that hours are final; one more is sealed in the facts."""
GRACE = timedelta(minutes=5)


@pytest.fixture
def settings(clickhouse_url: str, tmp_path: Path) -> Iterator[Settings]:
    with usage_facts.stored(clickhouse_url) as found:
        usage_facts.write(found.settings.clickhouse, usage_facts.made(seed=2, count=600))
        own = found.settings.model_copy(update={"state_dir": tmp_path})
        ledger.migrate(own.ledger_url)
        engine = ledger.connect(own.ledger_url)
        revisions.record_revision(engine, Revision(usage_facts.configuration()), BEGINS)
        with write(engine) as connection:
            mark_ms = int((FINAL + GRACE).timestamp() * 1000)
            progress.put(connection, progress.PROMOTED, progress.Progress(1, mark_ms))
        engine.dispose()
        yield own


@pytest.fixture
def stores(settings: Settings) -> Iterator[Stores]:
    with open_stores(settings) as found:
        yield found


def test_the_thread_sums_what_is_final_and_ends_when_told(settings: Settings, stores: Stores) -> None:
    stop = threading.Event()
    assert summing.start(_every(settings, 0), stop) is None
    thread = summing.start(_every(settings, 0.1), stop)
    assert thread is not None
    deadline_s = time.monotonic() + 120
    while usage_hours.summed_until(stores.client) != FINAL and time.monotonic() < deadline_s:
        time.sleep(0.1)
    stop.set()
    thread.join(60)
    assert not thread.is_alive()
    assert usage_hours.summed_until(stores.client) == FINAL


def _every(settings: Settings, seconds: float) -> Settings:
    return settings.model_copy(update={"clickhouse": settings.clickhouse.model_copy(update={"sum_every_s": seconds})})


def test_one_process_at_a_time(settings: Settings, stores: Stores) -> None:
    with DirectoryLock(settings.state_dir / summing.LOCK), pytest.raises(LockHeld):
        list(summing.advance(stores, threading.Event()))
    assert usage_hours.summed_until(stores.client) is None
    assert list(summing.advance(stores, threading.Event())) == [FINAL]


def test_the_command_sums_now_and_again(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {
        "METERBRIDGE_STATE_DIR": str(settings.state_dir),
        "METERBRIDGE_CLICKHOUSE__URL": settings.clickhouse.url,
        "METERBRIDGE_CLICKHOUSE__DATABASE": settings.clickhouse.database,
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    def call(*arguments: str) -> Any:
        done = CliRunner().invoke(app, ["sums", *arguments, "--json"])
        if isinstance(done.exception, MeterbridgeError):
            raise done.exception
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    text = FINAL.isoformat()
    assert call() == {"until": text, "steps": 1}
    assert call() == {"until": text, "steps": 0}
    waits: list[float] = []
    monkeypatch.setattr(summing, "pause", lambda _stop, seconds: waits.append(seconds))
    assert call("--again-from", f"{BEGINS:%Y-%m}") == {"until": text, "steps": 1}
    assert waits == [60.0]  # as long as a question may take, by the shipped settings
    with pytest.raises(InvalidRequest, match="is no month such as 2026-09"):
        call("--again-from", "soon")
