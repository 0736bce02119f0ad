"""What a run does before the engine starts: the revision is journaled or refused, the recovery directory whole."""

from collections.abc import Callable
from pathlib import Path

import pytest
from bytewax.recovery import init_db_dir

from config.revision import Configuration
from config.settings import RedisSettings, Settings
from core.clock import SystemClock
from core.errors import ConfigError, InvalidRequest
from flows import runtime
from sinks import ledger
from sinks.ledger import database, progress, revisions

PARTITIONS = {f"part-{number}.sqlite3" for number in range(4)}


def _names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def test_a_death_while_the_recovery_directory_is_made_leaves_none_and_the_next_start_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(state_dir=tmp_path)

    def dies_inside(directory: Path, _count: int) -> None:
        (directory / "part-0.sqlite3").touch()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(runtime, "init_db_dir", dies_inside)
        with pytest.raises(KeyboardInterrupt):
            runtime.recovery(settings)
    assert not (tmp_path / "recovery").exists()

    runtime.recovery(settings)
    assert _names(tmp_path / "recovery") == PARTITIONS
    assert _names(tmp_path) == {"recovery"}


def test_a_recovery_directory_is_never_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(state_dir=tmp_path)
    runtime.recovery(settings)
    monkeypatch.delattr(runtime, "init_db_dir")
    runtime.recovery(settings)
    assert {path.name for path in (tmp_path / "recovery").glob("*.sqlite3")} == PARTITIONS


def test_two_processes_at_once_make_one_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(state_dir=tmp_path)
    real: Callable[[Path, int], None] = init_db_dir

    def slower_than_the_other(directory: Path, count: int) -> None:
        real(directory, count)
        monkeypatch.setattr(runtime, "init_db_dir", real)
        runtime.recovery(settings, process_id=1)

    monkeypatch.setattr(runtime, "init_db_dir", slower_than_the_other)
    runtime.recovery(settings, process_id=0)
    assert _names(tmp_path) == {"recovery"}
    assert _names(tmp_path / "recovery") == PARTITIONS


def _metering(aggregation: str) -> Configuration:
    meter = {"id": "m", "event_type": "t", "aggregation": aggregation, "value": "$.x"}
    return Configuration.model_validate({"meters": [meter]})


def test_a_revision_that_changes_what_books_were_made_by_is_refused_and_not_recorded(
    redis_url: str, tmp_path: Path
) -> None:
    settings = Settings(state_dir=tmp_path, redis=RedisSettings(url=redis_url))
    ledger.migrate(settings.ledger_url)
    first = runtime.prepare_history(settings, _metering("sum"), SystemClock())
    with pytest.raises(ConfigError, match=r"meters\[m\].aggregation: was sum and is max now"):
        runtime.prepare_history(settings, _metering("max"), SystemClock())
    engine = ledger.connect(settings.ledger_url)
    recorded = revisions.load_history(engine)
    engine.dispose()
    assert [revision.digest for revision in recorded] == [first.latest.digest]
    assert len(runtime.prepare_history(settings, _metering("sum"), SystemClock()).revisions) == 1


def _with_grace(grace_s: int) -> Configuration:
    return Configuration.model_validate({"rules": {"grace_s": grace_s}})


def test_only_the_flow_journals_a_changed_configuration(redis_url: str, tmp_path: Path) -> None:
    """A flow that runs while `migrate` is called would not know it, and go on past the hour it counts from."""
    settings = Settings(state_dir=tmp_path, redis=RedisSettings(url=redis_url))
    ledger.migrate(settings.ledger_url)
    clock = SystemClock()
    first = runtime.prepare_history(settings, _with_grace(60), clock, first_only=True)
    again = runtime.prepare_history(settings, _with_grace(30), clock, first_only=True)
    assert [one.digest for one in again.revisions] == [one.digest for one in first.revisions]
    assert len(runtime.prepare_history(settings, _with_grace(30), clock).revisions) == 2


def test_a_revision_counts_from_behind_everything_staged_whatever_the_server_s_clock_says(tmp_path: Path) -> None:
    """An epoch may have staged hours that are not promoted yet when a server's clock was set back."""
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    ledger.migrate(url)
    engine = ledger.connect(url)
    hour_ms = 3_600_000
    runtime.journal(engine, _with_grace(60), 10 * hour_ms, SystemClock())
    with database.write(engine) as connection:
        progress.put(connection, progress.PROMOTED, progress.Progress(1, 11 * hour_ms))
        progress.put(connection, progress.HIGH_WATER, progress.Progress(2, 15 * hour_ms + 1))
    history = runtime.journal(engine, _with_grace(30), 10 * hour_ms, SystemClock())
    engine.dispose()
    assert [revision.known_from_ms for revision in history.revisions] == [0, 16 * hour_ms]


@pytest.mark.parametrize(("addresses", "process_id"), [((), 1), (("a:1", "b:1"), 2), ((), -1)])
def test_a_process_that_the_cluster_does_not_have_is_refused(addresses: tuple[str, ...], process_id: int) -> None:
    """It would lock another file than the flow that runs, and read beside it."""
    with pytest.raises(InvalidRequest, match="--process-id"):
        runtime.Cluster(addresses, process_id)
    assert runtime.Cluster(("a:1", "b:1"), 1).process_id == 1
