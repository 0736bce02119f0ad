"""The runner compares, stops what takes too long, and does not publish rates of jobs that do not agree."""

import time
from pathlib import Path

import pytest

from bench import lines
from bench.figures import from_plain
from bench.peers import run
from bench.peers.answer import Answer, Sums
from bench.peers.contestants import OWN, Contestant
from bench.report import peers_table, render
from tests.bench.test_report import result as bench_result


def test_our_own_job_runs_in_a_process_of_its_own_and_agrees() -> None:
    result = run.run((), events=3_000, rounds=1, deadline_s=time.monotonic() + 200)
    rate, cpu = from_plain(result["figures"])
    assert (rate.case, rate.unit, rate.runs) == (OWN.name, "events/s", 1)
    assert cpu.value > 0
    assert "3,000 events" in peers_table(result)


def test_ratios_are_those_of_the_same_round() -> None:
    sums = Sums(1, 2, 3)
    answers = {
        OWN.name: [Answer(sums, 1.0, 2.0, "1"), Answer(sums, 2.0, 2.0, "1")],
        "Peer": [Answer(sums, 4.0, 6.0, "2"), Answer(sums, 6.0, 6.0, "2")],
    }
    found = {one.case: one for one in run.figures(1_000, answers)}
    assert found["Peer"].highest == 250.0
    assert found["Peer"].lowest == pytest.approx(1000 / 6)
    ratio = found["Meterbridge against Peer"]
    assert (ratio.lowest, ratio.value, ratio.highest) == (3.0, 3.5, 4.0)
    assert found["Peer, processor time"].value == pytest.approx(6_000)


def test_other_sums_stop_the_comparison() -> None:
    run.check("Peer", Sums(1, 2, 3), Sums(1, 2, 3))
    with pytest.raises(SystemExit, match="Peer does not agree with the input: 5 events instead of 2"):
        run.check("Peer", Sums(1, 2, 3), Sums(1, 5, 3))


def test_a_job_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    began_s = time.monotonic()
    with pytest.raises(SystemExit, match="did not end within"):
        run.job(Contestant("Sleeper", "tests.bench.peers.sleeper"), tmp_path, began_s)
    assert time.monotonic() - began_s < 30


def test_a_job_that_fails_is_named_with_its_error(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"Nobody failed with 1:\n[^$]*bench\.peers\.nobody"):
        run.job(Contestant("Nobody", "bench.peers.nobody"), tmp_path, time.monotonic() + 60)


def test_a_missing_environment_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"no environment at \.venv-peers-nowhere; run make bench-peers"):
        run.job(Contestant("Nobody", "bench.peers.nobody", "nowhere"), tmp_path, time.monotonic() + 60)


def test_the_page_shows_peers_with_versions_and_targets() -> None:
    sums = Sums(1, 2, 3)
    answers = {OWN.name: [Answer(sums, 1.0, 2.0, "1")], "Flink SQL": [Answer(sums, 5.0, 6.0, "2.3.0")]}
    peers = bench_result() | {
        "load_before": 0.25,
        "events": 1_500_000,
        "versions": {name: found[-1].version for name, found in answers.items()},
        "figures": [one.to_plain() for one in run.figures(1_500_000, answers)],
    }
    page = render(bench_result(), peers)
    assert "## Peers: the engine job in other engines\n\n2026-11-24T20:00:00Z, commit abc1234, load average" in page
    assert "Meterbridge 1, Flink SQL 2.3.0." in page
    assert "| Flink SQL | 300,000 | events/s |  |" in page
    assert "| peers: Meterbridge against Flink SQL (final target) | 4 | 5 | yes |" in page
    assert "| peers: Meterbridge against Pathway (final target) | 6 | not run | - |" in page
    assert "## Peers" not in render(bench_result())


def test_a_round_that_runs_out_of_time_is_left_out_and_the_whole_rounds_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = lines.make(500)
    answer = Answer(Sums(None, made.accepted, made.tokens), 1.0, 1.0, "1")
    given: list[Answer] = [answer]

    def job(one: Contestant, directory: Path, deadline_s: float) -> Answer:
        if not given:
            raise run.OutOfTimeError
        return given.pop()

    monkeypatch.setattr(run, "job", job)
    result = run.run((), events=500, rounds=5, deadline_s=time.monotonic() + 60)
    assert [one.runs for one in from_plain(result["figures"])] == [1, 1]
    with pytest.raises(run.OutOfTimeError):
        run.run((), events=500, rounds=5, deadline_s=time.monotonic() + 60)
