"""`meterbridge trim` as a user runs it: only what is durably booked and old enough leaves the streams."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import redis

from flows import runtime
from sources.producer import Producer
from sources.workload import Workload
from tests.flows.harness import Deployment, deploy, differences, read_streams
from tests.flows.oracle import Oracle

START = datetime(2026, 11, 20, 6, 0, tzinfo=UTC)
HOURS = 4


def _send(deployed: Deployment, start: datetime, *, as_history: bool) -> None:
    workload = Workload(seed=start.hour, events=8_000, start=start, end=start + timedelta(hours=HOURS))
    Producer(deployed.settings.redis).send(
        (at_ms if as_history else None, subject, event) for at_ms, subject, event in workload
    )


def _trim(deployed: Deployment, *options: str) -> Any:
    process = deployed.start("trim", "--json", *options)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    return json.loads(output)


def _lengths(deployed: Deployment) -> dict[str, int]:
    with redis.Redis.from_url(deployed.settings.redis.url) as client:
        return {name: int(client.xlen(name)) for name in deployed.settings.redis.streams}


def test_only_what_is_booked_and_old_enough_goes_and_the_flow_goes_on(
    redis_url: str, clickhouse_settings: Any, tmp_path: Path
) -> None:
    deployed = deploy(redis_url, clickhouse_settings.url, tmp_path, clickhouse_settings.database)
    _send(deployed, START, as_history=True)
    whole = read_streams(redis_url, deployed.settings.redis.streams)
    assert sum(_trim(deployed, "--keep-minutes", "1")["entries_removed"].values()) == 0
    assert sum(_lengths(deployed).values()) == len(whole)

    runtime.run(deployed.settings, deployed.configuration, drain=True)
    ends_ms = max(entry.ms for entry in whole)
    durable_ms = _trim(deployed, "--keep-minutes", str(366 * 24 * 60))["durable_until_ms"]
    assert durable_ms > ends_ms, "everything was read"
    # What is kept is counted from what is durable, not from the clock of the one who calls.
    minutes = (durable_ms - ends_ms) // 60_000 + 60
    said = _trim(deployed, "--keep-minutes", str(minutes))

    kept = read_streams(redis_url, deployed.settings.redis.streams)
    assert len(whole) - len(kept) == sum(said["entries_removed"].values()) > len(whole) // 2
    positions = {(entry.stream, entry.ms, entry.seq) for entry in kept}
    gone = [entry for entry in whole if (entry.stream, entry.ms, entry.seq) not in positions]
    assert max(entry.ms for entry in gone) < said["before_ms"] <= ends_ms

    _send(deployed, START + timedelta(hours=HOURS), as_history=False)
    assert runtime.run(deployed.settings, deployed.configuration, drain=True).drained
    everything = gone + read_streams(redis_url, deployed.settings.redis.streams)
    expected = Oracle(deployed.configuration).run(everything)
    assert deployed.outcomes() == dict(expected.outcomes)
    assert differences(deployed.facts(), expected) == []
