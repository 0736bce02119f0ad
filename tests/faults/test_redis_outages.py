"""Redis that is away, comes back with less than it had, or was trimmed: waited for, or refused with what to do."""

import shutil
from collections.abc import Callable
from typing import Any

import pytest
import redis

from core.errors import FatalError
from sources.producer import Producer
from tests.faults.streams import entries_of, exceptions_of, live_records, wait_until_read
from tests.faults.world import World
from tests.flows.harness import differences
from tests.flows.oracle import Oracle

Make = Callable[[int], World]


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_an_older_copy_of_redis_is_refused_until_accepted_and_nothing_is_counted_twice(world: Make) -> None:
    """Given a server put back to a copy without its newest entries; then the running flow ends and says what to do.

    Producers send the lost part again under its old ids, which are known: they count as duplicates.
    """
    made = world(32)
    made.start(2_000)
    directory = made.settings.state_dir / "stack" / "valkey"
    made.kill("valkey")
    shutil.copytree(directory, directory.with_name("older"))
    made.start_servers()
    lost = live_records(600, seed=5)
    with Producer(made.settings.redis) as producer:
        producer.send(lost)
    made.ensure("flow")
    wait_until_read(made)
    before = entries_of(made)

    made.kill("valkey")
    shutil.rmtree(directory)
    shutil.copytree(directory.with_name("older"), directory)
    made.start_servers()
    assert made.wait("flow", 60) == FatalError.exit_code, made.said("flow")[-2_000:]
    assert "went backward" in made.said("flow")
    assert "run --accept-gap" in made.said("flow")

    refused = made.deployment.start("run", "--drain")
    _, errors = refused.communicate(timeout=60)
    assert refused.returncode == FatalError.exit_code
    assert "run --accept-gap" in errors

    with Producer(made.settings.redis) as producer:
        producer.send(lost)
    accepted = made.deployment.start("run", "--drain", "--accept-gap")
    _, errors = accepted.communicate(timeout=120)
    assert accepted.returncode == 0, errors
    assert {kind for kind, _ in exceptions_of(made)} >= {"stream_loss"}

    further = made.deployment.start("run", "--drain")
    _, errors = further.communicate(timeout=120)
    assert further.returncode == 0, f"what was accepted is refused again: {errors}"

    known = {(entry.stream, entry.ms, entry.seq) for entry in before}
    again = [entry for entry in entries_of(made) if (entry.stream, entry.ms, entry.seq) not in known]
    assert len(again) == len(lost)
    expected = Oracle(made.deployment.configuration).run(before + again)
    assert made.deployment.outcomes() == dict(expected.outcomes)
    assert differences(made.deployment.facts(), expected) == []


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_entries_trimmed_unread_are_counted_and_only_those_are_missing(world: Make) -> None:
    made = world(33)
    made.start(2_000)
    first = made.deployment.start("run", "--drain")
    _, errors = first.communicate(timeout=120)
    assert first.returncode == 0, errors

    history = {(entry.stream, entry.ms, entry.seq) for entry in entries_of(made)}
    with Producer(made.settings.redis) as producer:
        producer.send(live_records(400, seed=6))
    entries = entries_of(made)
    kept = [entry for entry in entries if entry.stream != 1 or (entry.stream, entry.ms, entry.seq) in history]
    client: Any = redis.Redis.from_url(made.settings.redis.url)
    client.xtrim(made.settings.redis.streams[1], maxlen=0, approximate=False)
    client.close()

    refused = made.deployment.start("run", "--drain")
    _, errors = refused.communicate(timeout=60)
    assert refused.returncode == FatalError.exit_code
    assert "were trimmed or deleted before they were read" in errors
    assert "run --accept-gap" in errors

    accepted = made.deployment.start("run", "--drain", "--accept-gap")
    _, errors = accepted.communicate(timeout=120)
    assert accepted.returncode == 0, errors
    (detail,) = [detail for kind, detail in exceptions_of(made) if kind == "stream_loss"]
    assert int(detail.split(" ", 1)[0]) == len(entries) - len(kept) > 0
    expected = Oracle(made.deployment.configuration).run(kept)
    assert made.deployment.outcomes() == dict(expected.outcomes)
    assert differences(made.deployment.facts(), expected) == []
