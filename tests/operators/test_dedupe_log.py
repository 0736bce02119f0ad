"""The id log against a dict, whatever the batches, snapshots, seals, merges and resumes between."""

import random
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import LockHeld
from operators import dedupe_seal, dedupe_segment_writer
from operators.dedupe_log import IdLog
from operators.dedupe_run import Records, RunStack
from tests.operators.dedupe_cases import SCRATCH, HastyDisk, Key, Record, append, find, key

UNIVERSE = [key(number) for number in (*range(120), *range(1000, 1004))]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), seal_records=st.sampled_from([1, 7, 40, 10_000]), background=st.booleans())
def test_equals_a_dict_through_seals_merges_and_resumes(seed: int, seal_records: int, background: bool) -> None:
    chance = random.Random(seed)
    newest: dict[Key, Record] = {}
    durable: dict[Key, Record] = {}
    state: dict[str, Any] | None = None
    minute = 0
    with TemporaryDirectory(dir=SCRATCH) as name:
        directory = Path(name) / "shard"
        log = IdLog.open(directory, None, disk=HastyDisk(), seal_records=seal_records, background=background)
        for _ in range(chance.randrange(1, 40)):
            step = chance.random()
            if step < 0.6:
                minute += chance.choice([0, 1, 700, 1440])
                chosen = chance.choices(UNIVERSE, k=chance.randrange(0, 30))
                records = [(name, chance.randrange(2**64), minute) for name in chosen]
                append(log, records)
                newest.update({name: (content, at) for name, content, at in records})
            elif step < 0.85:
                state, durable = log.snapshot(), dict(newest)
                log.committed()
            else:
                log.close()
                log = IdLog.open(directory, state, disk=HastyDisk(), seal_records=seal_records, background=background)
                newest = dict(durable)
            horizon_from = chance.choice([0, minute, minute - 1440, minute + 1])
            expected = {name: record for name, record in newest.items() if record[1] >= horizon_from}
            assert find(log, UNIVERSE, horizon_from) == expected
        log.close()


def test_the_horizon_is_per_id(quick_path: Path) -> None:
    log = IdLog.open(quick_path / "s", None)
    append(log, [(key(1), 5, 100), (key(2), 6, 200)])
    hi = np.array([key(1)[0], key(1)[0], key(2)[0]], np.uint64)
    lo = np.array([key(1)[1], key(1)[1], key(2)[1]], np.uint64)
    found, content, minute = log.find(hi, lo, np.array([100, 101, 200]))
    assert found.tolist() == [True, False, True]
    assert (content[0], minute[0], content[2], minute[2]) == (5, 100, 6, 200)


def test_many_segments_are_merged_and_expired_ones_deleted(quick_path: Path) -> None:
    log = IdLog.open(quick_path / "s", None, seal_records=10, background=False)
    for day in range(40):
        append(log, [(key(day * 10 + number), 1, day * 1440) for number in range(10)])
        log.snapshot()
        log.committed()
    segments = list((quick_path / "s").glob("segment-*"))
    assert 2 <= len(segments) <= 8, segments
    assert log.ids == 400
    assert len(find(log, [key(number) for number in range(400)])) == 400

    log.expire(30 * 1440)
    state = log.snapshot()
    assert len(list((quick_path / "s").glob("segment-*"))) == len(segments), "deleted before it was durable"
    log.committed()
    assert len(list((quick_path / "s").glob("segment-*"))) < len(segments)
    survivors = [key(number) for number in range(300, 400)]
    assert len(find(log, survivors, 30 * 1440)) == 100
    log.close()
    log = IdLog.open(quick_path / "s", state, seal_records=10, background=False)
    assert len(find(log, survivors, 30 * 1440)) == 100


def test_a_deleted_or_kept_file_never_changes_the_answer(quick_path: Path) -> None:
    log = IdLog.open(quick_path / "s", None)
    append(log, [(key(1), 5, 100)])
    assert find(log, [key(1)], 101) == {}
    assert find(log, [key(1)], 100) == {key(1): (5, 100)}


def test_memory_of_sealed_ids_is_the_filter(quick_path: Path) -> None:
    log = IdLog.open(quick_path / "s", None, seal_records=1000, background=False)
    append(log, [(key(number), 1, 1) for number in range(4000)])
    log.snapshot()
    log.committed()
    (segment,) = log._sealed.segments
    assert segment.words.nbytes <= 2 * 4000 + 8
    assert not log._tail


def test_a_locked_log_is_refused(quick_path: Path) -> None:
    log = IdLog.open(quick_path / "s", None)
    with pytest.raises(LockHeld, match="stop that process"):
        IdLog.open(quick_path / "s", None)
    log.close()
    IdLog.open(quick_path / "s", None).close()


def test_a_snapshot_is_plain_and_small(quick_path: Path) -> None:
    log = IdLog.open(quick_path / "s", None)
    append(log, [(key(number), 1, 1) for number in range(1000)])
    state = log.snapshot()
    assert set(state) == {"format", "log", "length", "chain", "expired_before"}
    assert all(type(value) in (int, str) for value in state.values())
    assert state["length"] == 1000


def test_runs_stay_few_whatever_the_sizes() -> None:
    chance = np.random.default_rng(3)
    stack = RunStack()
    total = 0
    for _ in range(2000):
        size = int(chance.choice([1, 1, 1, 5, 60, 700]))
        hi, lo, content = (chance.integers(0, 2**64, size, dtype=np.uint64) for _ in range(3))
        stack.add(Records(hi, lo, content, np.zeros(size, np.uint32)))
        total += size
        assert len(stack.runs) <= 7 * 7
    assert sum(len(run) for run in stack.runs) == len(stack.merged()) == total


@pytest.mark.parametrize("seed", range(6))
def test_merges_of_many_blocks_and_chunks_lose_and_double_nothing(
    quick_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(dedupe_segment_writer, "BLOCK_RECORDS_MAX", 4)
    monkeypatch.setattr(dedupe_seal, "_CHUNK_BLOCKS", 2)
    chance = random.Random(seed)
    log = IdLog.open(quick_path / "s", None, disk=HastyDisk(), seal_records=40, background=False)
    newest: dict[Key, Record] = {}
    universe = [key(number) for number in (*range(500), *range(1000, 1004))]
    for minute in range(40):
        records = [(name, chance.randrange(2**64), minute) for name in chance.sample(universe, 41)]
        append(log, records)
        newest.update({name: (content, at) for name, content, at in records})
        log.expire(minute - 20)
        state = log.snapshot()
        log.committed()
        expected = {name: record for name, record in newest.items() if record[1] >= minute - 20}
        assert find(log, universe, minute - 20) == expected
    biggest = max(log._sealed.segments, key=len)
    assert len(biggest.starts) > 8
    records_of_biggest = biggest.slice(0, len(biggest))
    assert len(set(zip(records_of_biggest.hi.tolist(), records_of_biggest.lo.tolist(), strict=True))) == len(biggest)
    assert int(records_of_biggest.minute.min()) > 0, "a merge keeps nothing that was expired"
    log.close()
    log = IdLog.open(quick_path / "s", state, disk=HastyDisk(), seal_records=40, background=False)
    assert find(log, universe, minute - 20) == expected
    log.close()
