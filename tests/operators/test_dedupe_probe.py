"""The two ways to look ids up, against each other and against a search without any idea."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators import dedupe_compiled, dedupe_filter
from operators.dedupe_answer import Answer
from operators.dedupe_compiled import CompiledProbe, Probes, prove
from operators.dedupe_probe import NUMPY, NumpyProbe, Probe
from operators.dedupe_run import Records, RunStack
from operators.dedupe_tail import TailIndex
from tests.operators.dedupe_cases import COMPILED, columns

# Few distinct values in each part, so that some keys share any number of upper bits.
KEYS = st.lists(
    st.builds(
        lambda top, middle, low: top << 48 | middle << 32 | low,
        st.sampled_from([0, 1, 2, 40_000, 65_535]),
        st.integers(0, 3) | st.just(0xFFFF),
        st.integers(0, 3) | st.integers(0, 2**32 - 1),
    ),
    max_size=40,
)


def _sorted(keys: list[int]) -> np.ndarray:
    return np.array(sorted(keys), dtype=np.uint64)


@settings(max_examples=200, deadline=None)
@given(there=KEYS.filter(bool), asked=KEYS, bits=st.sampled_from([0, 16]))
def test_search_finds_the_first_record_with_the_same_known_bits(there: list[int], asked: list[int], bits: int) -> None:
    records, below = _sorted(there), 32 - bits
    prefixes = ((records >> np.uint64(below)) & np.uint64(0xFFFF_FFFF)).astype(np.uint32)
    edges = np.array([bucket << (64 - bits) for bucket in range(1 << bits)], dtype=np.uint64)
    offsets = np.append(np.searchsorted(records, edges), len(records)).astype(np.uint32)
    wanted = [*asked, *there[:5]]
    known = [key >> below for key in sorted(there)]
    expected = [(row, known.index(key >> below)) for row, key in enumerate(wanted) if key >> below in known]
    for probe in (NUMPY, COMPILED.take(1)):
        rows, places = probe.search(np.array(wanted, dtype=np.uint64), prefixes, offsets, bits)
        assert list(zip(rows.tolist(), places.tolist(), strict=True)) == expected


@settings(max_examples=200, deadline=None)
@given(parts=st.lists(KEYS, max_size=3), asked=KEYS, room=st.integers(0, 100))
def test_filters_are_the_same_and_miss_nothing(parts: list[list[int]], asked: list[int], room: int) -> None:
    there = [key for part in parts for key in part]
    query = np.array([*there, *asked], dtype=np.uint64)
    answers = []
    for probe in (NUMPY, COMPILED.take(1)):
        words = dedupe_filter.blank(room)
        for part in parts:
            probe.add(words, _sorted(part))
        passed = probe.candidates(words, probe.query(query)).tolist()
        assert set(range(len(there))) <= set(passed)
        answers.append((words.tolist(), passed))
    assert answers[0] == answers[1]


@pytest.mark.parametrize("probe", [NUMPY, COMPILED.take(1)])
def test_one_new_id_in_two_hundred_passes_a_full_filter(probe: Probe) -> None:
    random = np.random.default_rng(3)
    words = dedupe_filter.blank(1_000_000)
    probe.add(words, np.sort(random.integers(0, 2**64, 1_000_000, dtype=np.uint64)))
    passed = probe.candidates(words, probe.query(random.integers(0, 2**64, 200_000, dtype=np.uint64)))
    assert 400 < len(passed) < 1400


def test_compiled_code_is_loaded_once_it_pays(tmp_path: Path) -> None:
    probes = Probes(tmp_path, ids_before=100)
    assert probes.take(99) is NUMPY
    loaded = probes.take(1)
    assert isinstance(loaded, CompiledProbe)
    assert probes.take(1) is loaded


def test_without_compiled_code_all_is_looked_up_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        message = "No module named 'numba'"
        raise ImportError(message)

    monkeypatch.setattr(dedupe_compiled, "CompiledProbe", broken)
    assert Probes(tmp_path, ids_before=0).take(1) is NUMPY


class _Wrong(NumpyProbe):
    """Lets everything pass: never wrong in the end, yet not the reference."""

    def candidates(self, words: np.ndarray, query: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        return np.arange(len(query[0]))


def test_what_answers_otherwise_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prove(NUMPY)
    monkeypatch.setattr(dedupe_compiled, "CompiledProbe", _Wrong)
    assert Probes(tmp_path, ids_before=0).take(1) is NUMPY


@settings(max_examples=100, deadline=None)
@given(parts=st.lists(KEYS, max_size=6), asked=KEYS, repeated=st.integers(1, 900))
def test_both_indexes_of_a_tail_file_equal_a_dict(parts: list[list[int]], asked: list[int], repeated: int) -> None:
    newest: dict[tuple[int, int], tuple[int, int]] = {}
    table = COMPILED.take(1).table()
    assert table is not None
    indexes: list[tuple[TailIndex, Probe]] = [(RunStack(), NUMPY), (table, COMPILED.take(1))]
    for number, part in enumerate(parts):
        # Many records of few ids, so that the table grows; the low half collides wherever the high one does not.
        keys = [(key, key & 0xFFFF) for key in part] * repeated
        if not keys:
            continue
        hi, lo = columns(keys)
        content = np.arange(len(keys), dtype=np.uint64) + np.uint64(number << 32)
        minute = np.full(len(keys), number, np.uint32)
        for index, _ in indexes:
            index.add(Records(hi, lo, content, minute))
        newest.update(zip(keys, zip(content.tolist(), minute.tolist(), strict=True), strict=True))
    hi, lo = columns([*newest, *((key, key & 0xFFFF) for key in asked), *((key, 5) for key, _ in newest)])
    expected = [newest.get(key) for key in zip(hi.tolist(), lo.tolist(), strict=True)]
    for index, probe in indexes:
        answer = Answer.blank(len(hi))
        index.find(hi, lo, answer, probe, probe.query(hi))
        rows = zip(answer.found.tolist(), answer.content.tolist(), answer.minute.tolist(), strict=True)
        assert [(content, at) if seen else None for seen, content, at in rows] == expected
        merged = index.merged()
        there = zip(merged.hi.tolist(), merged.lo.tolist(), strict=True)
        assert list(there) == sorted(newest)
        assert len(index) >= len(newest)
        assert merged.content.tolist() == [newest[key][0] for key in sorted(newest)]
