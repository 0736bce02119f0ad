"""The protocol of the id log: a crash at every single disk operation, damage, and what is refused."""

import random
import shutil
import threading
import time
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from core.errors import StateMismatch
from operators.dedupe_disk import DiskFailed, SystemDisk
from operators.dedupe_log import IdLog
from operators.dedupe_sealed import WAITING_MAX
from tests.operators.dedupe_cases import HastyDisk, Key, Record, RememberingDisk, append, find, key, lay_out

State = dict[str, Any] | None


class CrashEverywhere:
    """Runs a log and, before each disk operation, opens what a crash there would leave, in every variant."""

    def __init__(self, scratch: Path, seal_records: int) -> None:
        self._scratch = scratch
        self._numbers = count()
        self._seal_records = seal_records
        self.newest: dict[Key, Record] = {}
        # What the engine may come back with, and what the log must then hold.
        self.possible: list[tuple[State, dict[Key, Record]]] = [(None, {})]
        self.used: set[Key] = set()
        self.crashes = 0
        self.operations: set[str] = set()
        self._seen: set[tuple[Any, ...]] = set()

    def __call__(self, disk: RememberingDisk, operation: str) -> None:
        self.operations.add(operation.split("-", maxsplit=1)[0])
        for image in disk.images():
            for state, expected in self.possible:
                self._crash(image, state, expected, operation)

    def _crash(self, image: dict[str, bytes], state: State, expected: dict[Key, Record], operation: str) -> None:
        seen = (hash(tuple(sorted(image.items()))), state and state["length"])
        if seen in self._seen:
            return
        self._seen.add(seen)
        directory = self._scratch / str(next(self._numbers))
        lay_out(image, directory)
        log = IdLog.open(directory, state, disk=HastyDisk(), seal_records=self._seal_records, background=False)
        assert find(log, sorted(self.used)) == expected, operation
        self.crashes += 1
        if self.crashes % 2:
            log.close()
            shutil.rmtree(directory)
            return
        append(log, [(key(9999), 1, 1)])
        again = log.snapshot()
        log.committed()
        log.close()
        log = IdLog.open(directory, again, disk=HastyDisk(), seal_records=self._seal_records, background=False)
        assert find(log, [*sorted(self.used), key(9999)]) == expected | {key(9999): (1, 1)}, operation
        log.close()
        shutil.rmtree(directory)


@pytest.mark.parametrize("seal_records", [6, 25])
def test_a_crash_at_any_disk_operation_loses_and_doubles_nothing(quick_path: Path, seal_records: int) -> None:
    chance = random.Random(seal_records)
    crash = CrashEverywhere(quick_path / "crashed", seal_records)
    log = IdLog.open(quick_path / "s", None, disk=RememberingDisk(crash), seal_records=seal_records, background=False)
    minute = 0
    for epoch in range(18):
        for _ in range(chance.randrange(1, 3)):
            minute += chance.choice([0, 500])
            chosen = [key(chance.randrange(60)) for _ in range(chance.randrange(1, 9))]
            records = [(name, chance.randrange(2**64), minute) for name in chosen]
            crash.used |= set(chosen)
            append(log, records)
            crash.newest.update({name: (content, at) for name, content, at in records})
        state = log.snapshot()
        # Until the engine calls again, its own commit may have happened or not.
        crash.possible = [crash.possible[-1], (state, dict(crash.newest))]
        if epoch % 5 == 4:
            append(log, [(key(77), 7, minute)])  # behind the state: has to be cut off
            crash.used.add(key(77))
            log.close()
            disk = RememberingDisk(crash)
            for path in (quick_path / "s").iterdir():
                if path.name != "lock":
                    disk.adopt(path)
            log = IdLog.open(quick_path / "s", state, disk=disk, seal_records=seal_records, background=False)
            crash.possible = crash.possible[-1:]
        else:
            crash.possible = crash.possible[-1:]
            log.committed()
    log.close()
    assert crash.crashes > 200
    expected = {"append tail", "sync tail", "append segment", "rename segment", "rename manifest.tmp", "cut tail"}
    assert expected <= crash.operations


def _filled(directory: Path, *, committed: bool = True) -> tuple[dict[str, Any], dict[Key, Record]]:
    """Make a log with two segments and a tail, and return its state and content."""
    log = IdLog.open(directory, None, seal_records=30, background=False)
    newest = {}
    for batch in range(7):
        records = [(key(batch * 10 + number), batch * 1000 + number, 100 + batch) for number in range(10)]
        append(log, records)
        newest.update({name: (content, at) for name, content, at in records})
        state = log.snapshot()
        if committed:
            log.committed()
    log.close()
    return state, newest


def test_every_flipped_byte_is_found_or_harmless(quick_path: Path) -> None:
    state, newest = _filled(quick_path / "s")
    files = sorted(path for path in (quick_path / "s").iterdir() if path.name != "lock")
    assert [path.name.split("-")[0] for path in files] == ["manifest.json", "segment", "segment", "tail"]
    refused = harmless = 0
    for path in files:
        intact = path.read_bytes()
        for at in {*range(0, len(intact), 13), *range(max(0, len(intact) - 120), len(intact))}:
            path.write_bytes(intact[:at] + bytes([intact[at] ^ (1 << at % 8)]) + intact[at + 1 :])
            try:
                log = IdLog.open(quick_path / "s", state, disk=HastyDisk(), seal_records=30, background=False)
                try:
                    assert find(log, list(newest)) == newest
                    harmless += 1
                finally:
                    log.close()
            except StateMismatch as error:
                assert path.name in str(error) or "log ends at record" in str(error)  # noqa: PT017
                refused += 1
        path.write_bytes(intact)
    assert refused > 500
    assert harmless == 0


def test_a_cut_or_missing_file_is_refused(quick_path: Path) -> None:
    state, _ = _filled(quick_path / "s")
    for path in sorted(quick_path.glob("s/*[sgn]")):
        intact = path.read_bytes()
        for damaged in (None, b"", intact[:-1], intact[: len(intact) // 2]):
            if damaged is None:
                path.unlink()
            else:
                path.write_bytes(damaged)
            with pytest.raises(StateMismatch, match=r"restore the whole state directory|copy the directory here"):
                IdLog.open(quick_path / "s", state, disk=HastyDisk(), seal_records=30, background=False)
            path.write_bytes(intact)
    IdLog.open(quick_path / "s", state, disk=HastyDisk(), seal_records=30, background=False).close()


def test_bytes_behind_the_state_are_cut_off(quick_path: Path) -> None:
    state, newest = _filled(quick_path / "s")
    tail = next(quick_path.glob("s/tail-*"))
    length = tail.stat().st_size
    with tail.open("ab") as file:
        file.write(b"a frame that was torn")
    log = IdLog.open(quick_path / "s", state, disk=HastyDisk(), seal_records=30, background=False)
    assert tail.stat().st_size == length
    assert find(log, list(newest)) == newest


def test_no_state_for_a_log_in_use_is_refused(quick_path: Path) -> None:
    _filled(quick_path / "s")
    with pytest.raises(
        StateMismatch, match=r"no state for it: starting empty would count events twice.*meterbridge rebuild"
    ):
        IdLog.open(quick_path / "s", None)


def test_no_state_before_the_first_commit_starts_anew(quick_path: Path) -> None:
    _, newest = _filled(quick_path / "s", committed=False)
    log = IdLog.open(quick_path / "s", None)
    assert find(log, list(newest)) == {}
    assert not list(quick_path.glob("s/tail-*"))


def test_a_state_older_than_the_sealed_range_is_refused(quick_path: Path) -> None:
    log = IdLog.open(quick_path / "s", None, seal_records=5, background=False)
    append(log, [(key(1), 1, 1)])
    old = log.snapshot()
    log.committed()
    append(log, [(key(number), 1, 1) for number in range(2, 20)])
    log.snapshot()
    log.committed()
    log.close()
    with pytest.raises(StateMismatch, match="recovery directory is older than the log"):
        IdLog.open(quick_path / "s", old, seal_records=5, background=False)


def test_a_state_newer_than_the_log_is_refused(quick_path: Path) -> None:
    log = IdLog.open(quick_path / "s", None)
    append(log, [(key(1), 1, 1)])
    log.snapshot()
    log.close()
    shutil.copytree(quick_path / "s", quick_path / "backup")
    log = IdLog.open(quick_path / "s", None)
    append(log, [(key(1), 1, 1)])
    log.snapshot()
    append(log, [(key(2), 1, 1)])
    newer = log.snapshot()
    with pytest.raises(StateMismatch, match="records that were durable are gone"):
        IdLog.open(quick_path / "backup", newer)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"log": "00" * 16}, "another installation or backup"),
        ({"chain": 1}, "records that were durable are gone"),
        ({"length": 69}, "records that were durable are gone"),
        ({"format": 2}, "run the release that wrote it"),
    ],
)
def test_a_state_that_does_not_belong_to_the_log_is_refused(
    quick_path: Path, change: dict[str, Any], message: str
) -> None:
    state, _ = _filled(quick_path / "s")
    with pytest.raises(StateMismatch, match=message):
        IdLog.open(quick_path / "s", state | change, seal_records=30, background=False)
    IdLog.open(quick_path / "s", state, disk=HastyDisk(), seal_records=30, background=False).close()


def test_a_state_without_its_log_is_refused(quick_path: Path) -> None:
    state, _ = _filled(quick_path / "s")
    with pytest.raises(StateMismatch, match="copy the directory here"):
        IdLog.open(quick_path / "other", state)


def test_log_files_without_a_manifest_are_refused(quick_path: Path) -> None:
    _filled(quick_path / "s")
    (quick_path / "s" / "manifest.json").unlink()
    with pytest.raises(StateMismatch, match="but no manifest"):
        IdLog.open(quick_path / "s", None)


class FullDisk(SystemDisk):
    """Refuses the n-th append after half of its bytes, as a full disk does."""

    def __init__(self, appends: int) -> None:
        self._left = appends

    def append(self, path: Path, data: Any) -> None:
        self._left -= 1
        if self._left == 0:
            super().append(path, data[: len(data) // 2])
            message = f"cannot write {path}: No space left on device"
            raise DiskFailed(message)
        super().append(path, data)


@pytest.mark.parametrize("appends", range(2, 14))
def test_a_full_disk_stops_and_the_last_snapshot_counts(quick_path: Path, appends: int) -> None:
    log = IdLog.open(quick_path / "s", None, disk=FullDisk(appends), seal_records=3, background=False)
    state: State = None
    newest: dict[Key, Record] = {}
    durable: dict[Key, Record] = {}
    with pytest.raises(DiskFailed, match="No space left"):  # noqa: PT012
        for number in range(100):
            append(log, [(key(number), number, 1)])
            newest[key(number)] = (number, 1)
            state, durable = log.snapshot(), dict(newest)
            log.committed()
    log.close()
    log = IdLog.open(quick_path / "s", state, seal_records=3, background=False)
    assert find(log, [key(number) for number in range(100)]) == durable


class DiskWithoutSegments(HastyDisk):
    """Refuses to write segments, which happens on the thread beside the flow."""

    def append(self, path: Path, data: Any) -> None:
        if path.name.startswith("segment"):
            message = f"cannot write {path}: No space left on device"
            raise DiskFailed(message)
        super().append(path, data)


def test_a_failure_on_the_thread_stops_the_flow_at_the_next_call(quick_path: Path) -> None:
    log = IdLog.open(quick_path / "s", None, disk=DiskWithoutSegments(), seal_records=5)
    append(log, [(key(number), number, 1) for number in range(9)])
    state = log.snapshot()
    with pytest.raises(DiskFailed, match="No space left"):  # noqa: PT012
        for _ in range(100):  # the thread may need a moment
            log.committed()
            log.snapshot()
            time.sleep(0.05)
    log.close()
    log = IdLog.open(quick_path / "s", state, seal_records=5)
    assert len(find(log, [key(number) for number in range(20)])) == 9
    log.close()


class SlowDisk(HastyDisk):
    """Lets segments wait until told."""

    def __init__(self) -> None:
        self.go = threading.Event()

    def append(self, path: Path, data: Any) -> None:
        if path.name.startswith("segment"):
            assert self.go.wait(30)
        super().append(path, data)


def test_a_slow_thread_delays_only_when_too_many_files_wait(quick_path: Path) -> None:
    disk = SlowDisk()
    log = IdLog.open(quick_path / "s", None, disk=disk, seal_records=1)
    for number in range(WAITING_MAX):
        append(log, [(key(number), number, 1)])
        log.snapshot()
        log.committed()
    assert len(list(quick_path.glob("s/tail-*"))) == WAITING_MAX
    assert len(find(log, [key(number) for number in range(20)])) == WAITING_MAX
    threading.Timer(0.2, disk.go.set).start()
    append(log, [(key(number), number, 1) for number in range(10, 20)])
    log.snapshot()
    log.committed()  # one file too many: waits for the thread
    assert disk.go.is_set()
    assert len(find(log, [key(number) for number in range(20)])) == WAITING_MAX + 10
    log.close()


def test_only_durable_records_are_sealed(quick_path: Path) -> None:
    log = IdLog.open(quick_path / "s", None, seal_records=2, background=False)
    append(log, [(key(number), number, 1) for number in range(3)])
    state = log.snapshot()
    append(log, [(key(number), number, 1) for number in range(3, 6)])
    append(log, [(key(number), number, 1) for number in range(6, 9)])
    log.committed()
    assert log._sealed.manifest.sealed_end == 3
    log.close()
    log = IdLog.open(quick_path / "s", state, seal_records=2, background=False)
    assert set(find(log, [key(number) for number in range(9)])) == {key(number) for number in range(3)}
    log.close()
