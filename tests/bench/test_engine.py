"""What the engine benchmark compares are right results on the same input."""

from decimal import Decimal
from pathlib import Path

import orjson
import pytest

from bench import engine, engine_processes, lines, peer_bytewax


def test_the_flow_and_the_peer_compute_what_the_input_says(tmp_path: Path) -> None:
    made = lines.make(3_000)
    first = {orjson.loads(line)["id"]: orjson.loads(line)["data"]["input_tokens"] for line in made.lines}
    assert (made.accepted, made.tokens) == (len(first), sum(first.values()))
    _, totals = engine.run_flow(made, tmp_path)
    assert (totals.accepted, totals.tokens) == (made.accepted, Decimal(made.tokens))
    for windows in (True, False):
        result = peer_bytewax.run(made.lines, windows=windows)
        assert (result.accepted, result.tokens) == (made.accepted, made.tokens)


def test_two_processes_of_a_cluster_compute_what_one_does() -> None:
    cases = {one.case: one.value for one in engine_processes.compare(3_000, rounds=1)}  # ends the run if not
    assert cases["two processes against one"] == pytest.approx(cases["two processes"] / cases["one process"])
