"""`verify` before there is anything to prove: it says so, and touches no server."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
from config.settings import ClickHouseSettings, RedisSettings, Settings
from core.directory_lock import DirectoryLock
from core.errors import InvalidRequest, LockHeld
from flows.verify import verify
from sinks import ledger
from sinks.ledger import progress


@pytest.fixture
def deployed(tmp_path: Path) -> Settings:
    """Settings whose servers do not answer: asking one would be another error."""
    return Settings(
        state_dir=tmp_path,
        redis=RedisSettings(url="redis://127.0.0.1:1/0"),
        clickhouse=ClickHouseSettings(url="http://127.0.0.1:1"),
    )


def test_before_migrate_and_before_the_first_run(deployed: Settings) -> None:
    with pytest.raises(InvalidRequest, match="run `meterbridge migrate`"):
        verify(deployed)
    ledger.migrate(deployed.ledger_url)
    with pytest.raises(InvalidRequest, match="nothing is booked yet"):
        verify(deployed)


def test_a_second_one_at_the_same_time_is_refused(deployed: Settings) -> None:
    ledger.migrate(deployed.ledger_url)
    engine = ledger.connect(deployed.ledger_url)
    with ledger.write(engine) as connection:
        progress.put(connection, progress.PROMOTED, progress.Progress(1, 60_000, {}))
    engine.dispose()
    with DirectoryLock(deployed.state_dir / "verify.lock"), pytest.raises(LockHeld):
        verify(deployed)


def test_an_entity_without_a_period_is_refused(tmp_path: Path) -> None:
    """A replay is of all entities: to name one and prove all would say something else than was asked."""
    outcome = CliRunner().invoke(app, ["verify", "--entity", "US01"], env={"METERBRIDGE_STATE_DIR": str(tmp_path)})
    assert (outcome.exit_code, "--entity belongs to --period" in f"{outcome.output} {outcome.exception}") == (1, True)
