"""The recovery directory: whole, or not there."""

from collections.abc import Callable
from pathlib import Path

import pytest
from bytewax.recovery import init_db_dir

from config.settings import Settings
from flows import runtime

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
    assert _names(tmp_path / "recovery") == PARTITIONS


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
