"""An answer survives the way through a job's output, and every difference is named."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.peers.answer import MARK, Answer, Sums, differences, from_output, session_cpu_s

COUNTS = st.integers(min_value=0, max_value=10**15)
SUMS = st.builds(Sums, st.none() | COUNTS, COUNTS, COUNTS)
TIMES = st.floats(min_value=0, max_value=10**6)


@given(st.builds(Answer, SUMS, TIMES, TIMES, st.text()))
def test_an_answer_is_found_among_other_output(answer: Answer) -> None:
    assert from_output(f"WARNING: something\n{answer.line()}\nbye\n") == answer


@pytest.mark.parametrize("output", ["", "BENCH-OTHER 1\n", f"{MARK}{{}}\n{MARK}{{}}\n"])
def test_no_answer_or_two_are_refused(output: str) -> None:
    with pytest.raises(ValueError, match="expected one"):
        from_output(output)


@given(SUMS.filter(lambda sums: sums.facts is not None), SUMS)
def test_sums_differ_exactly_where_they_are_not_equal(expected: Sums, got: Sums) -> None:
    pairs = [(expected.events, got.events), (expected.tokens, got.tokens)]
    if got.facts is not None:
        pairs.append((expected.facts or 0, got.facts))
    assert len(differences(expected, got)) == sum(left != right for left, right in pairs)
    assert differences(expected, expected) == []


def test_differences_are_said_in_words() -> None:
    assert differences(Sums(3, 10, 100), Sums(4, 10, 99)) == ["4 facts instead of 3", "99 tokens instead of 100"]


def test_processor_time_of_the_session_is_counted() -> None:
    before, began = session_cpu_s(), time.process_time()
    while time.process_time() - began < 0.2:
        pass
    assert session_cpu_s() - before >= 0.15  # whole ticks of 10 ms
