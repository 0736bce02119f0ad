"""Comparing two commits: what is better, what fails, and that a worktree goes again."""

import subprocess

import pytest

from bench.compare import changes, table, worktree
from bench.figures import Figure, figure
from bench.run import ROOT


def one(case: str, value: float, unit: str) -> Figure:
    return figure("engine", case, value, unit)


def test_better_depends_on_the_unit_and_medians_count() -> None:
    base = [
        [one("rate", rate, "events/s"), one("time", 4.0, "us/event"), one("old", 1, "ms")] for rate in (90, 100, 900)
    ]
    present = [[one("rate", 80, "events/s"), one("time", 2.0, "us/event"), one("new", 1, "ms")]] * 3
    found = {change.key[1]: change for change in changes(base, present)}
    assert set(found) == {"rate", "time"}
    assert found["rate"].better == pytest.approx(-0.2)
    assert found["time"].better == pytest.approx(1.0)
    text = table(list(found.values()), 0.1)
    assert text.count("**worse**") == 1
    assert "| engine: rate | 100 | 80 | events/s | -20% **worse** |" in text
    assert "worse" not in table(list(found.values()), 0.25)


def test_a_worktree_is_the_commit_and_goes_again() -> None:
    with worktree("HEAD") as tree:
        assert (tree / "bench" / "run.py").is_file()
    assert not tree.exists()
    command = ["git", "worktree", "list"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert str(tree) not in listed.stdout


def test_a_commit_that_does_not_exist_is_said() -> None:
    with pytest.raises(SystemExit, match="cannot check out no-such-commit"), worktree("no-such-commit"):
        pass
