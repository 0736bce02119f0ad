"""A state directory that is full, read-only or damaged: the flow ends with what to do, and goes on once mended."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from config.settings import LedgerSettings
from core.clock import SystemClock
from core.errors import FatalError, StateMismatch
from flows import runtime
from flows.verify import Replay, verify
from sinks import ledger
from sources.producer import Producer
from sources.workload import Record, Workload
from tests.flows.harness import Deployment, deploy, differences, read_streams
from tests.flows.oracle import Oracle

START = datetime(2026, 11, 20, 6, 0, tzinfo=UTC)
DISK_BYTES = 16 << 20
LEFT_BYTES = 16 << 10
LEFT_TO_LEDGER_BYTES = 200 << 10
"""Enough to open it, too little for the documents."""


def _records(events: int) -> list[Record]:
    return list(Workload(seed=3, events=events, start=START, end=START + timedelta(hours=5)))


def _send(deployed: Deployment, records: list[Record]) -> None:
    with Producer(deployed.settings.redis) as producer:
        producer.send([(None, subject, payload) for _, subject, payload in records])


def _equals_oracle(deployed: Deployment) -> None:
    expected = Oracle(deployed.configuration).run(
        read_streams(deployed.settings.redis.url, deployed.settings.redis.streams)
    )
    assert deployed.outcomes() == dict(expected.outcomes)
    assert differences(deployed.facts(), expected) == []


def _drain(deployed: Deployment) -> None:
    runtime.run(deployed.settings, deployed.configuration, drain=True)


# --- full and read-only ------------------------------------------------------------------------------------


def _mount(*arguments: object) -> bool:
    """Mount or unmount, and tell whether that was possible."""
    program = shutil.which(str(arguments[0]))
    return program is not None and subprocess.run([program, *map(str, arguments[1:])], check=False).returncode == 0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() != 0 or not _mount("mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", place):
        pytest.skip("mounting a small disk is not permitted here")
    yield place
    assert _mount("umount", "-l", place)


def _on(disk: Path, redis_url: str, clickhouse_settings: Any, tmp_path: Path) -> Deployment:
    """Return a deployment with its working state on that disk, and its ledger elsewhere."""
    deployed = deploy(
        redis_url,
        clickhouse_settings.url,
        disk / "state",
        clickhouse_settings.database,
        epoch_s=0.2,
        item_events_max=400,
    )
    elsewhere = LedgerSettings(url=SecretStr(f"sqlite:///{tmp_path / 'ledger.sqlite'}"))
    deployed.settings = deployed.settings.model_copy(update={"ledger": elsewhere})
    ledger.migrate(deployed.settings.ledger_url)
    return deployed


def _ended(deployed: Deployment, *arguments: str) -> tuple[int, str]:
    process = deployed.start(
        *arguments, METERBRIDGE_LEDGER__URL=deployed.settings.ledger_url, METERBRIDGE_REDIS__READ_ENTRIES="50"
    )
    try:
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    return process.returncode, errors


@pytest.mark.slow
def test_a_full_disk_ends_the_flow_and_freed_space_lets_it_go_on(
    disk: Path, redis_url: str, clickhouse_settings: Any, tmp_path: Path
) -> None:
    deployed = _on(disk, redis_url, clickhouse_settings, tmp_path)
    records = _records(6_000)
    _send(deployed, records[:1_000])
    assert _ended(deployed, "run", "--drain")[0] == 0

    space = os.statvfs(disk)
    filler = disk / "filler"
    filler.write_bytes(b"x" * (space.f_bavail * space.f_frsize - LEFT_BYTES))
    _send(deployed, records[1_000:])
    code, errors = _ended(deployed, "run", "--drain")
    assert code == FatalError.exit_code, errors
    assert "free space or repair the disk" in errors
    assert str(disk / "state") in errors

    filler.unlink()
    code, errors = _ended(deployed, "run", "--drain")
    assert code == 0, errors
    _equals_oracle(deployed)


@pytest.mark.slow
def test_a_read_only_disk_is_named_and_nothing_is_lost_behind_it(
    disk: Path, redis_url: str, clickhouse_settings: Any, tmp_path: Path
) -> None:
    deployed = _on(disk, redis_url, clickhouse_settings, tmp_path)
    records = _records(2_000)
    _send(deployed, records[:1_000])
    assert _ended(deployed, "run", "--drain")[0] == 0

    _send(deployed, records[1_000:])
    assert _mount("mount", "-o", "remount,ro", disk)
    code, errors = _ended(deployed, "run", "--drain")
    assert code == FatalError.exit_code, errors
    assert "Read-only file system" in errors
    assert str(disk / "state") in errors

    assert _mount("mount", "-o", "remount,rw", disk)
    code, errors = _ended(deployed, "run", "--drain")
    assert code == 0, errors
    _equals_oracle(deployed)


@pytest.mark.slow
def test_a_full_disk_under_the_ledger_alone_is_waited_for(
    disk: Path, redis_url: str, clickhouse_settings: Any, tmp_path: Path
) -> None:
    """Given a ledger that can take nothing more; then the flow waits, as for one that is away, and says so."""
    deployed = deploy(redis_url, clickhouse_settings.url, tmp_path / "state", clickhouse_settings.database, epoch_s=0.2)
    full = LedgerSettings(url=SecretStr(f"sqlite:///{disk / 'ledger.sqlite'}"))
    deployed.settings = deployed.settings.model_copy(update={"ledger": full})
    ledger.migrate(deployed.settings.ledger_url)
    Producer(deployed.settings.redis).send(_records(4_000))
    runtime.prepare_history(deployed.settings, deployed.configuration, SystemClock())

    space = os.statvfs(disk)
    filler = disk / "filler"
    filler.write_bytes(b"x" * (space.f_bavail * space.f_frsize - LEFT_TO_LEDGER_BYTES))
    process = deployed.start("run", "--drain", METERBRIDGE_LEDGER__URL=deployed.settings.ledger_url)
    try:
        try:
            _, errors = process.communicate(timeout=15)
        except subprocess.TimeoutExpired:
            pass
        else:
            pytest.fail(f"it did not wait: {errors}")
        filler.unlink()
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    assert "The ledger database does not answer; the flow waits." in errors
    assert "disk is full" in errors
    _equals_oracle(deployed)


# --- damaged -----------------------------------------------------------------------------------------------


def _partition(state_dir: Path, number: int) -> Path:
    return state_dir / "recovery" / f"part-{number}.sqlite3"


def _missing(state_dir: Path, _older: Path, _other: Path) -> None:
    _partition(state_dir, 1).unlink()


def _no_database(state_dir: Path, _older: Path, _other: Path) -> None:
    _partition(state_dir, 0).write_bytes(b"these are no tables" * 1_000)


def _emptied(state_dir: Path, _older: Path, _other: Path) -> None:
    _partition(state_dir, 2).write_bytes(b"")


def _scribbled(state_dir: Path, _older: Path, _other: Path) -> None:
    """Damage pages behind the first, which holds the names of the tables."""
    for path in (state_dir / "recovery").glob("part-*.sqlite3"):
        content = bytearray(path.read_bytes())
        content[4096:] = bytes(255 - byte for byte in content[4096:])
        path.write_bytes(content)


def _of_another_time(state_dir: Path, older: Path, _other: Path) -> None:
    shutil.copy(_partition(older, 3), _partition(state_dir, 3))


def _of_another_installation(state_dir: Path, _older: Path, other: Path) -> None:
    shutil.rmtree(state_dir / "recovery")
    shutil.copytree(other / "recovery", state_dir / "recovery")


def _log_flipped(state_dir: Path, _older: Path, _other: Path) -> None:
    path = max((state_dir / "dedupe").rglob("tail-*.log"), key=lambda path: path.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


def _log_torn(state_dir: Path, _older: Path, _other: Path) -> None:
    path = max((state_dir / "dedupe").rglob("tail-*.log"), key=lambda path: path.stat().st_size)
    os.truncate(path, path.stat().st_size - 100)


def _log_of_before(state_dir: Path, older: Path, _other: Path) -> None:
    shutil.rmtree(state_dir / "dedupe")
    shutil.copytree(older / "dedupe", state_dir / "dedupe")


def _manifest_flipped(state_dir: Path, _older: Path, _other: Path) -> None:
    path = next((state_dir / "dedupe").rglob("manifest.json"))
    path.write_bytes(path.read_bytes().replace(b"true", b"trve").replace(b"false", b"fa1se"))


def _no_recovery(state_dir: Path, _older: Path, _other: Path) -> None:
    shutil.rmtree(state_dir / "recovery")


def _nothing_left(state_dir: Path, _older: Path, _other: Path) -> None:
    for name in ("recovery", "dedupe", "unique"):
        shutil.rmtree(state_dir / name)


DAMAGES: tuple[Callable[[Path, Path, Path], None], ...] = (
    _missing,
    _no_database,
    _emptied,
    _scribbled,
    _of_another_time,
    _of_another_installation,
    _log_flipped,
    _log_torn,
    _log_of_before,
    _manifest_flipped,
    _no_recovery,
    _nothing_left,
)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_damaged_state_is_refused_with_the_way_out_and_the_whole_one_goes_on(
    redis_url: str, clickhouse_settings: Any, tmp_path: Path
) -> None:
    """Given each damage to a copy of the state; then the flow ends before it counts anything, and names `rebuild`."""
    state_dir, whole, older, other = (tmp_path / name for name in ("state", "whole", "older", "other"))
    deployed = deploy(redis_url, clickhouse_settings.url, state_dir, clickhouse_settings.database, epoch_s=0.05)
    records = _records(3_000)
    _send(deployed, records[:1_000])
    _drain(deployed)
    shutil.copytree(state_dir, older)
    another = deploy(redis_url, clickhouse_settings.url, other, clickhouse_settings.database, epoch_s=0.05)
    _drain(another)
    _send(deployed, records[1_000:2_000])
    _drain(deployed)
    shutil.copytree(state_dir, whole)
    _send(deployed, records[2_000:])

    answers = {}
    for damage in DAMAGES:
        _put_back(whole, state_dir)
        damage(state_dir, older, other)
        answers[damage.__name__] = _answer(deployed)
    assert {name: text for name, text in answers.items() if "meterbridge rebuild" not in text} == {}

    for backup in (whole, older):  # both are of one time each; what came behind it is read again
        _put_back(backup, state_dir)
        _drain(deployed)
        _equals_oracle(deployed)
    assert verify(deployed.settings, replay=Replay(workers=1, epoch_s=0.3)).equal


def _answer(deployed: Deployment) -> str:
    """Return why the flow refused to start; empty if it ran."""
    try:
        _drain(deployed)
    except StateMismatch as refused:
        return str(refused)
    return ""


def _put_back(whole: Path, state_dir: Path) -> None:
    for name in ("recovery", "dedupe", "unique"):
        shutil.rmtree(state_dir / name, ignore_errors=True)
        shutil.copytree(whole / name, state_dir / name)
