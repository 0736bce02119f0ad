"""A clock that is set back: seen by the flow, which ends, and by the poster, which goes on."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import structlog

from core.clock import ManualClock, SystemClock
from core.errors import ClockSetBack, RetryableError
from flows.clock_watch import LOOK_S, ClockWatch, StepDetector
from flows.poster_pace import BACKOFF_MAX_S
from sinks.ledger import postings
from tests.flows.poster_world import World, many, postings_of
from tests.sinks.ledger.samples import entity

START = datetime(2026, 11, 24, 12, tzinfo=UTC)
HOUR_S = 3_600.0


class SteppedClock(SystemClock):
    """The machine's clock, off by what a test sets."""

    off_s = 0.0

    def now(self) -> datetime:
        return datetime.fromtimestamp(time.time() + self.off_s, UTC)


def test_only_steps_of_the_wall_clock_are_told_not_time_that_passes() -> None:
    clock = ManualClock(START)
    detector = StepDetector(clock)
    clock.sleep(100_000)
    assert detector.set_back_s() == pytest.approx(0, abs=1e-3)
    clock.step(-HOUR_S)
    clock.sleep(5)
    assert detector.set_back_s() == pytest.approx(HOUR_S)
    assert detector.set_back_s() == pytest.approx(0, abs=1e-3)
    clock.step(HOUR_S)
    assert detector.set_back_s() == pytest.approx(-HOUR_S)


def _work(seconds: float) -> bool:
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        time.sleep(0.01)
    return True


def test_a_step_back_ends_what_the_main_thread_does_with_an_error_that_may_be_tried_again() -> None:
    clock = SteppedClock()

    def run() -> None:
        with ClockWatch(clock):
            _work(2 * LOOK_S)
            clock.off_s = -HOUR_S
            _work(60)

    with pytest.raises(ClockSetBack, match=r"set back by 3600 s.*start it again"):
        run()
    assert issubclass(ClockSetBack, RetryableError)


@pytest.mark.parametrize("seconds", [HOUR_S, -1.0], ids=["forward", "slewed"])
def test_steps_that_hold_nothing_up_end_nothing(seconds: float) -> None:
    clock = SteppedClock()
    with ClockWatch(clock):
        clock.off_s = seconds
        assert _work(4 * LOOK_S)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    yield made
    made.engine.dispose()


def test_retries_of_a_clock_that_was_ahead_are_made_after_a_step_back(world: World) -> None:
    """Given a posting that was refused while the clock was an hour ahead; then it does not wait for that hour."""
    world.configure(entity())
    world.book(*many(1))
    world.clock.step(HOUR_S)
    world.erp.script = ["not_sent"]
    poster = world.poster()
    poster.pass_once()
    (row,) = postings_of(world)
    assert row.state == postings.PENDING

    world.clock.step(-HOUR_S)
    with structlog.testing.capture_logs() as logs:
        poster.pass_once()
    (row,) = postings_of(world)
    assert row.state == postings.POSTED
    assert any("clock was set back" in entry["event"] for entry in logs)


def test_a_poster_that_starts_behind_a_step_back_finds_them_too_and_leaves_ordinary_waits(world: World) -> None:
    world.configure(entity())
    world.book(*many(1))
    world.erp.script = ["not_sent"]
    world.poster().pass_once()
    (row,) = postings_of(world)
    assert row.due_at_ms <= world.clock.now().timestamp() * 1000 + BACKOFF_MAX_S * 1000
    assert postings_of(world)[0].state == postings.PENDING
    world.poster().pass_once()
    (later,) = postings_of(world)
    assert later.due_at_ms == row.due_at_ms, "an ordinary wait is not cut short by a start"

    world.clock.step(-HOUR_S)
    successor = world.poster()
    for _ in range(7):  # the first one never gave its lease of a minute back
        assert successor.pass_once() == 0
        world.clock.sleep(10)
    successor.pass_once()
    assert world.states() == {postings.POSTED: 1}
