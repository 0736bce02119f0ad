from pathlib import Path

import pytest

from tests.faults.campaign import Outcome, report, run_seed


@pytest.mark.timeout(300)
def test_a_run_with_kills_equals_the_oracle(tmp_path: Path) -> None:
    outcome = run_seed(2, tmp_path / "world")

    assert outcome.wrong == [], outcome.steps
    assert sum(outcome.deaths.values()) > 0


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(1001, 1021))
def test_more_runs_with_kills_equal_the_oracle(tmp_path: Path, seed: int) -> None:
    outcome = run_seed(seed, tmp_path / "world")

    assert outcome.wrong == [], outcome.steps
    assert sum(outcome.deaths.values()) > 0


def test_the_report_counts_and_names_what_broke() -> None:
    good, bad = Outcome(1, seconds=30.0), Outcome(2, seconds=60.0, wrong=["a row is missing"])
    good.deaths["flow by signal"] += 2

    text = report([good, bad])

    assert "Seeds 1 to 2: 2 runs, 2 minutes, 2 deaths" in text
    assert "not equal at the end: 1" in text
    assert "- seed 2: a row is missing" in text
