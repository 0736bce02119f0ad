"""One flow as one process, as two, and as one again: shards move between processes, and between hosts."""

import shutil
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from core.errors import FatalError
from flows.verify import Replay, verify
from sources.producer import Producer
from sources.workload import Workload
from tests.faults.conftest import free_port
from tests.flows.harness import Deployment, deploy, differences, read_streams
from tests.flows.oracle import Oracle

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

START = datetime(2026, 11, 20, 6, 0, tzinfo=UTC)
PART = 1_500
ENDS_S_MAX = 180
NOTICED_S_MAX = 60.0
REPLAY = Replay(workers=1, epoch_s=0.5, item_events=2_000)


def _hold_clocks(deployed: Deployment) -> None:
    """Keep the idle clock from passing the history that is still to be sent."""
    with redis.Redis.from_url(deployed.settings.redis.url) as client:
        for stream in deployed.settings.redis.streams:
            client.set(f"meterbridge:loading:{stream}", "test", ex=600)


def _release_clocks(deployed: Deployment) -> None:
    with redis.Redis.from_url(deployed.settings.redis.url) as client:
        client.delete(*(f"meterbridge:loading:{stream}" for stream in deployed.settings.redis.streams))


def _cluster(deployed: Deployment, *options: str) -> list["subprocess.Popen[str]"]:
    addresses = ";".join(f"127.0.0.1:{free_port()}" for _ in range(2))
    return [
        deployed.start("run", *options, "--addresses", addresses, "--process-id", str(number)) for number in range(2)
    ]


def _drained(processes: list["subprocess.Popen[str]"]) -> None:
    for process in processes:
        _, errors = process.communicate(timeout=ENDS_S_MAX)
        assert process.returncode == 0, errors[-3_000:]


def _counted(deployed: Deployment) -> int:
    return sum(deployed.outcomes().values())


def _kill_one_of_two(deployed: Deployment, more_than: int) -> None:
    """Kill the second process under way; the first must not go on as if nothing had happened."""
    processes = _cluster(deployed)
    try:
        until_s = time.monotonic() + ENDS_S_MAX
        while _counted(deployed) <= more_than:
            assert time.monotonic() < until_s
            time.sleep(0.1)
        processes[1].kill()
        processes[1].wait()
        code = processes[0].wait(timeout=NOTICED_S_MAX)
        assert code != 0, "the rest of a cluster ended as if it were whole"
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def test_one_process_two_and_one_again_keep_all_totals_also_if_one_of_two_is_killed(
    redis_url: str, clickhouse_settings: Any, tmp_path: Path
) -> None:
    deployed = deploy(redis_url, clickhouse_settings.url, tmp_path, clickhouse_settings.database, epoch_s=0.2)
    records = list(Workload(seed=8, events=3 * PART, start=START, end=START + timedelta(hours=6)))
    producer = Producer(deployed.settings.redis)
    producer.send(records[:PART])
    _hold_clocks(deployed)
    _drained([deployed.start("run", "--drain")])

    before = _counted(deployed)
    producer.send(records[PART : 2 * PART])
    _hold_clocks(deployed)
    _kill_one_of_two(deployed, before)
    _drained(_cluster(deployed, "--drain"))

    producer.send(records[2 * PART :])
    _release_clocks(deployed)
    _drained([deployed.start("run", "--drain")])

    expected = Oracle(deployed.configuration).run(read_streams(redis_url, deployed.settings.redis.streams))
    assert deployed.outcomes() == dict(expected.outcomes)
    assert differences(deployed.facts(), expected) == []
    assert verify(deployed.settings, replay=REPLAY).equal


def test_a_shard_on_a_host_without_its_log_is_refused_and_goes_on_once_the_log_is_there(
    redis_url: str, clickhouse_settings: Any, tmp_path: Path
) -> None:
    """Given the state directory moved to another host without one shard's log; then nothing starts empty."""
    here, there = tmp_path / "here", tmp_path / "there"
    deployed = deploy(redis_url, clickhouse_settings.url, here, clickhouse_settings.database, epoch_s=0.2)
    records = list(Workload(seed=9, events=2 * PART, start=START, end=START + timedelta(hours=6)))
    producer = Producer(deployed.settings.redis)
    producer.send(records[:PART])
    _hold_clocks(deployed)
    _drained([deployed.start("run", "--drain")])
    producer.send(records[PART:])
    _release_clocks(deployed)

    shutil.copytree(here, there)
    (lost, *_) = sorted((there / "dedupe").iterdir())
    shutil.rmtree(lost)
    moved = Deployment(deployed.settings.model_copy(update={"state_dir": there}), deployed.configuration)
    refused = moved.start("run", "--drain")
    _, errors = refused.communicate(timeout=ENDS_S_MAX)
    assert refused.returncode == FatalError.exit_code, errors[-2_000:]
    assert "copy the directory here" in errors
    assert str(lost) in errors

    shutil.copytree(here / "dedupe" / lost.name, lost, dirs_exist_ok=True)
    _drained([moved.start("run", "--drain")])
    expected = Oracle(deployed.configuration).run(read_streams(redis_url, deployed.settings.redis.streams))
    assert moved.outcomes() == dict(expected.outcomes)
    assert differences(moved.facts(), expected) == []
