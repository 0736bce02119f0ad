"""What the engine benchmark compares are right results on the same input."""

from decimal import Decimal
from pathlib import Path

import orjson

from bench import engine, lines, peer_bytewax


def test_the_flow_and_the_peer_compute_what_the_input_says(tmp_path: Path) -> None:
    made = lines.make(3_000)
    first = {orjson.loads(line)["id"]: orjson.loads(line)["data"]["input_tokens"] for line in made.lines}
    assert (made.accepted, made.tokens) == (len(first), sum(first.values()))
    _, totals = engine.run_flow(made, tmp_path)
    assert (totals.accepted, totals.tokens) == (made.accepted, Decimal(made.tokens))
    for windows in (True, False):
        result = peer_bytewax.run(made.lines, windows=windows)
        assert (result.accepted, result.tokens) == (made.accepted, made.tokens)
