"""The id log against a dict, whatever the batches, snapshots, seals, merges and resumes between."""

import random
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import LockHeld, StateMismatch
from operators import dedupe_cover, dedupe_layout, dedupe_seal, dedupe_segment_writer
from operators.dedupe_compiled import Probes
from operators.dedupe_log import IdLog
from operators.dedupe_run import Records, RunStack
from operators.dedupe_segment import Segment2
from operators.dedupe_segment_1 import Segment1
from tests.operators.dedupe_cases import COMPILED, COMPILED_DIR, SCRATCH, HastyDisk, Key, Record, append, find, key

HERE = Path(__file__).parents[1] / "golden" / "dedupe_log"
UNIVERSE = [key(number) for number in (*range(120), *range(1000, 1016))]


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    seal_records=st.sampled_from([1, 7, 40, 10_000]),
    background=st.booleans(),
    compiled_from=st.sampled_from([None, 0, 200]),
    buckets_from=st.sampled_from([30, dedupe_layout.BUCKETS_FROM_RECORDS]),
)
def test_equals_a_dict_through_seals_merges_and_resumes(
    seed: int, seal_records: int, background: bool, compiled_from: int | None, buckets_from: int
) -> None:
    chance = random.Random(seed)
    probes = None if compiled_from is None else Probes(COMPILED_DIR, compiled_from)

    def opened(directory: Path, state: dict[str, Any] | None) -> IdLog:
        return IdLog.open(
            directory, state, disk=HastyDisk(), seal_records=seal_records, background=background, probes=probes
        )

    newest: dict[Key, Record] = {}
    durable: dict[Key, Record] = {}
    state: dict[str, Any] | None = None
    minute = 0
    with (
        TemporaryDirectory(dir=SCRATCH) as name,
        patch.object(dedupe_layout, "BUCKETS_FROM_RECORDS", buckets_from),
        patch.object(dedupe_cover, "IDS_MIN", 50),
    ):
        directory = Path(name) / "shard"
        log = opened(directory, None)
        for _ in range(chance.randrange(1, 40)):
            step = chance.random()
            if step < 0.6:
                minute += chance.choice([0, 1, 700, 1440, 30 * 1440])
                chosen = chance.choices(UNIVERSE, k=chance.randrange(0, 30))
                records = [(name, chance.randrange(2**64), minute) for name in chosen]
                append(log, records)
                newest.update({name: (content, at) for name, content, at in records})
            elif step < 0.85:
                state, durable = log.snapshot(), dict(newest)
                log.committed()
            else:
                log.close()
                log = opened(directory, state)
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


def _uniform(random: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    hi, lo, content = (random.integers(0, 2**64, size, dtype=np.uint64) for _ in range(3))
    return hi, lo, content


@pytest.mark.parametrize("probes", [None, COMPILED])
def test_sealed_ids_cost_two_bytes_of_memory_and_under_28_of_disk(quick_path: Path, probes: Probes | None) -> None:
    random = np.random.default_rng(5)
    log = IdLog.open(quick_path / "s", None, disk=HastyDisk(), background=False, probes=probes)
    parts = [_uniform(random, 1 << 20) for _ in range(5)]
    for number, part in enumerate(parts):
        log.append(*part, np.full(1 << 20, 28_000_000 + number, np.uint32))
        state = log.snapshot()
        log.committed()
    assert sorted(len(segment) for segment in log._sealed.segments) == [1 << 20, 1 << 22]
    assert not log._tail
    assert log._sealed.cover.memory_bytes <= 2 * 1.25 * (5 << 20)
    files = sum(path.stat().st_size for path in (quick_path / "s").glob("segment-*"))
    assert log.disk_bytes == files < 24.5 * (5 << 20)
    log.close()
    log = IdLog.open(quick_path / "s", state, disk=HastyDisk(), background=False, probes=probes)
    for number, (hi, lo, content) in enumerate(parts):
        found, there, minute = log.find(hi[:5000], lo[:5000], 0)
        assert found.all()
        assert (there == content[:5000]).all()
        assert (minute == 28_000_000 + number).all()
        assert not log.find(hi[:5000], lo[:5000] ^ np.uint64(1), 0)[0].any()
    assert not log.find(hi ^ content, lo, 0)[0].any()
    log.close()


def _of_format_1(directory: Path) -> tuple[dict[str, Any], dict[Key, Record]]:
    """Unpack a log as release 0.1 left it, with its state and what it holds."""
    with tarfile.open(HERE / "segments-1.tar.xz") as archive:
        archive.extractall(directory, filter="data")
    newest = {}
    for batch in range(75):
        for number in (*range(batch * 10, batch * 10 + 10), batch * 5, 1000 + batch % 4):
            newest[key(number)] = (batch * 10_000 + number, 28_800_000 + batch * 300)
    return orjson.loads((directory / "state.json").read_bytes()), newest


@pytest.mark.parametrize("probes", [None, COMPILED])
def test_segments_of_format_1_are_read_beside_newer_ones_and_merged_with_them(
    quick_path: Path, probes: Probes | None
) -> None:
    state, newest = _of_format_1(quick_path / "s")
    log = IdLog.open(quick_path / "s", state, disk=HastyDisk(), seal_records=100, background=False, probes=probes)
    assert {type(segment) for segment in log._sealed.segments} == {Segment1}
    universe = [*newest, *(key(number) for number in range(2000, 2200))]
    assert find(log, universe) == newest
    for batch in range(40):
        records = [(key(number), number, 28_850_000) for number in range(740 + batch * 40, 780 + batch * 40)]
        append(log, records)
        newest.update({name: (content, at) for name, content, at in records})
        state = log.snapshot()
        log.committed()
    assert {type(segment) for segment in log._sealed.segments} == {Segment2}
    assert find(log, [*newest, key(9999)]) == newest
    log.close()
    log = IdLog.open(quick_path / "s", state, disk=HastyDisk(), seal_records=100, background=False, probes=probes)
    assert find(log, [*newest, key(9999)]) == newest
    log.close()


def test_damage_in_a_segment_of_format_1_is_found(quick_path: Path) -> None:
    state, _ = _of_format_1(quick_path / "s")
    path = min(quick_path.glob("s/segment-*"))
    intact = path.read_bytes()
    for at in range(5, len(intact), 401):
        path.write_bytes(intact[:at] + bytes([intact[at] ^ 4]) + intact[at + 1 :])
        with pytest.raises(StateMismatch, match=path.name):
            IdLog.open(quick_path / "s", state, disk=HastyDisk(), seal_records=100)
    path.write_bytes(intact)
    IdLog.open(quick_path / "s", state, disk=HastyDisk(), seal_records=100).close()


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
    universe = [key(number) for number in (*range(500), *range(1000, 1016))]
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
