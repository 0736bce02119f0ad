"""The flow as a process: signals, kills, and a second instance."""

import signal
import time
from datetime import UTC, datetime, timedelta

import pytest

from flows.verify import verify
from sources.producer import Producer
from sources.workload import Workload
from tests.flows.conftest import Deploy
from tests.flows.harness import Deployment, differences, read_streams
from tests.flows.oracle import Oracle

START = datetime(2026, 11, 20, 6, 0, tzinfo=UTC)


def _send(deployed: Deployment, events: int) -> None:
    workload = Workload(seed=events, events=events, start=START, end=START + timedelta(hours=7))
    Producer(deployed.settings.redis).send(workload)


def _wait_for_rows(deployed: Deployment, rows: int, seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if deployed.query("SELECT count() FROM @usage_events")[0][0] >= rows:
            return
        time.sleep(0.1)
    pytest.fail(f"{rows} rows did not arrive within {seconds} s")


def _check_against_oracle(deployed: Deployment) -> None:
    expected = Oracle(deployed.configuration).run(
        read_streams(deployed.settings.redis.url, deployed.settings.redis.streams)
    )
    assert deployed.outcomes() == dict(expected.outcomes)
    assert differences(deployed.facts(), expected) == []


def test_sigterm_drains_and_exits_0_within_10_s(deployment: Deploy) -> None:
    deployed = deployment(epoch_s=2.0)
    _send(deployed, 3_000)
    process = deployed.start("run")
    try:
        _wait_for_rows(deployed, 1)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 0, errors
        assert time.monotonic() - began < 10
    finally:
        process.kill()
    deployed.start("run", "--drain").communicate(timeout=60)
    _check_against_oracle(deployed)


def test_a_second_flow_on_the_same_state_directory_is_refused(deployment: Deploy) -> None:
    deployed = deployment()
    _send(deployed, 1_000)
    first = deployed.start("run")
    try:
        _wait_for_rows(deployed, 1)
        second = deployed.start("run", "--drain")
        _, errors = second.communicate(timeout=30)
        assert second.returncode != 0
        assert str(first.pid) in errors
    finally:
        first.terminate()
        first.communicate(timeout=30)


@pytest.mark.parametrize("seed", [1, 2])
def test_kill_9_loses_and_doubles_nothing(deployment: Deploy, seed: int) -> None:
    """Given four kills at times that fall into start-up, reading and snapshots; then all is as the oracle's."""
    deployed = deployment(epoch_s=0.15, item_events_max=400, workers=seed)
    _send(deployed, 30_000)
    moments_s = {1: (0.9, 1.6, 2.1, 1.3), 2: (1.1, 1.9, 1.4, 2.4)}[seed]
    for moment_s in moments_s:
        process = deployed.start("run", METERBRIDGE_REDIS__READ_ENTRIES="50")
        time.sleep(moment_s)
        process.kill()
        process.communicate()
    last = deployed.start("run", "--drain")
    _, errors = last.communicate(timeout=120)
    assert last.returncode == 0, errors
    _check_against_oracle(deployed)
    assert verify(deployed.settings).equal
