"""The clock of one machine is set an hour forward and back under real processes: nothing is lost, doubled or stuck."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core.errors import RetryableError
from sinks import ledger
from sinks.ledger import postings, progress
from sources.producer import Producer
from tests.faults.clocks import SettableClock, needs_compiler
from tests.faults.streams import live_records, wait_until_read
from tests.faults.world import World
from tests.flows.harness import read_streams
from tests.flows.oracle import Oracle

pytestmark = [pytest.mark.slow, pytest.mark.timeout(500), needs_compiler]

HOUR_S = 3_600
TOLD_S_MAX = 60.0
GOES_ON_S_MAX = 60.0
LEASE_S_MAX = 150.0
"""A dead poster's lease of 60 s, seen for the first time and then for longer than that, on a busy machine."""
Make = Callable[[int], World]


@pytest.fixture
def clock(tmp_path: Path) -> SettableClock:
    return SettableClock(tmp_path / "clock")


def _send(world: World, events: int, seed: int) -> None:
    with Producer(world.settings.redis) as producer:
        producer.send(live_records(events, seed))


def _wait_until(reached: Callable[[], bool], seconds: float, world: World, name: str) -> float:
    began_s = time.monotonic()
    while not reached():
        assert time.monotonic() - began_s < seconds, world.said(name)[-2_000:]
        time.sleep(0.2)
    return time.monotonic() - began_s


def _commits(world: World) -> Callable[[], bool]:
    """Return a function that tells whether an epoch was made durable since now, as Redis' clock sees it."""
    engine = ledger.connect(world.settings.ledger_url)
    before_ms = progress.watermark_ms(engine)
    engine.dispose()

    def moved() -> bool:
        ours = ledger.connect(world.settings.ledger_url)
        try:
            return progress.watermark_ms(ours) > before_ms + 1_000
        finally:
            ours.dispose()

    return moved


def _books(world: World) -> Iterator[str]:
    engine = ledger.connect(world.settings.ledger_url)
    try:
        yield from postings.count_by_state(engine)
    finally:
        engine.dispose()


def test_the_flows_clock_set_forward_is_no_matter_and_set_back_ends_it_to_start_again(
    world: Make, clock: SettableClock
) -> None:
    made = world(61)
    made.start(2_000)
    with clock.applied():
        made.ensure("flow")
    made.wait_until_started("flow")
    wait_until_read(made)

    clock.set(HOUR_S)
    _send(made, 200, seed=11)
    wait_until_read(made, GOES_ON_S_MAX)
    _wait_until(_commits(made), GOES_ON_S_MAX, made, "flow")
    assert made.running("flow"), made.said("flow")[-2_000:]

    for number, seconds in enumerate((0, -HOUR_S)):
        clock.set(seconds)
        began_s = time.monotonic()
        assert made.wait("flow", TOLD_S_MAX) == RetryableError.exit_code, made.said("flow")[-2_000:]
        print(f"ended {time.monotonic() - began_s:.1f} s after the clock was set back")
        assert made.said("flow").count("clock was set back by 3600 s") == number + 1
        with clock.applied():
            made.ensure("flow")
        _send(made, 200, seed=12 + number)
        wait_until_read(made, GOES_ON_S_MAX)
        _wait_until(_commits(made), GOES_ON_S_MAX, made, "flow")
    made.settle()
    assert made.check() == []


def test_the_flow_is_started_again_by_its_supervisor(world: Make, clock: SettableClock) -> None:
    made = world(62)
    made.start(1_000)
    with clock.applied():
        made.ensure("flow", options=("--supervise",))
    made.wait_until_started("flow")
    wait_until_read(made)
    clock.set(-HOUR_S)
    _send(made, 300, seed=15)
    _wait_until(lambda: "is started again" in made.said("flow"), TOLD_S_MAX, made, "flow")
    wait_until_read(made, GOES_ON_S_MAX)
    _wait_until(_commits(made), GOES_ON_S_MAX, made, "flow")
    made.stop("flow", 30)
    made.settle()
    assert made.check() == []


def test_the_posters_clock_set_back_leaves_no_lease_or_retry_for_an_hour(world: Make, clock: SettableClock) -> None:
    """Given a poster that died under a clock an hour ahead; then another takes over without waiting for that hour."""
    made = world(63)
    made.start(2_000)
    process = made.deployment.start("run", "--drain")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors

    clock.set(HOUR_S)
    with clock.applied():
        made.ensure("poster", "poster.answered:1")
    assert made.wait("poster", 60) < 0, "it was to die with its lease and a request whose outcome it did not see"
    assert postings.SUBMITTED in set(_books(made))

    clock.set(0)
    with clock.applied():
        made.ensure("poster")
    done = {postings.POSTED}
    spent_s = _wait_until(lambda: set(_books(made)) == done, LEASE_S_MAX, made, "poster")
    print(f"taken over and posted {spent_s:.0f} s after the clock was set back")

    clock.set(HOUR_S)
    _send(made, 200, seed=16)
    time.sleep(3.0)
    clock.set(0)
    time.sleep(3.0)
    assert made.running("poster"), made.said("poster")[-2_000:]
    assert "clock was set back" in made.said("poster")
    made.stop("poster", 30)
    made.settle()
    assert made.check() == []


def test_redis_clock_set_forward_and_back_is_told_and_what_waits_is_booked_once_it_is_right(
    world: Make, clock: SettableClock
) -> None:
    """Ids only grow: after a step back they stand still, and so does the watermark, until the clock is there again."""
    made = world(64)
    made.start(2_000)
    made.kill("valkey")
    with clock.applied():
        made.start_servers()
    made.ensure("flow")
    made.wait_until_started("flow")
    wait_until_read(made)

    clock.set(HOUR_S)
    _send(made, 300, seed=17)
    wait_until_read(made, GOES_ON_S_MAX)
    clock.set(0)
    _send(made, 300, seed=18)
    spent_s = _wait_until(lambda: "ahead of the server's clock" in made.said("flow"), TOLD_S_MAX, made, "flow")
    print(f"told after {spent_s:.1f} s")
    assert made.running("flow"), made.said("flow")[-2_000:]

    clock.set(HOUR_S + 60)
    wait_until_read(made, GOES_ON_S_MAX)
    redis = made.settings.redis
    entries = read_streams(redis.url, redis.streams)
    expected = Oracle(made.deployment.configuration).run(entries)
    assert sum(expected.outcomes.values()) >= 2_600
    made.settle()
    assert made.check() == []


def test_clickhouse_keeps_no_time_of_its_own(world: Make, clock: SettableClock) -> None:
    made = world(65)
    made.start(2_000)
    made.kill("clickhouse")
    with clock.applied():
        made.start_servers()
    for name in ("flow", "poster"):
        made.ensure(name)
    made.wait_until_started("flow")
    for number, seconds in enumerate((HOUR_S, 0, -HOUR_S, 0)):
        clock.set(seconds)
        _send(made, 200, seed=20 + number)
        wait_until_read(made, GOES_ON_S_MAX)
    assert made.running("flow"), made.said("flow")[-2_000:]
    assert made.running("poster"), made.said("poster")[-2_000:]
    made.settle()
    assert made.check() == []
