"""Rate limits against a naive oracle that looks back over all that was taken."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from console.limits import BURST_S, KEYS_MAX, RateLimiter, Room, check
from console.problems import Problem
from core.clock import ManualClock


def _clock() -> ManualClock:
    return ManualClock(datetime(2026, 11, 24, tzinfo=UTC))


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 12)), max_size=40))
def test_takes_what_the_rate_allows_and_no_more(steps: list[tuple[int, int]]) -> None:
    clock, per_s = _clock(), 2.0
    limiter = RateLimiter(per_s, clock)
    full = per_s * BURST_S
    level = full
    for waits, cost in steps:
        clock.sleep(waits / 8)  # binary fractions: no rounding on either side
        level = min(full, level + waits / 8 * per_s)
        wait_s = limiter.take("a", cost)
        if wait_s == 0:
            assert level >= min(cost, full)
            level -= cost
        else:
            assert level < min(cost, full)
            assert wait_s == (min(cost, full) - level) / per_s
    assert limiter.take("b", full) == 0, "another key has its own"


def test_what_is_refused_passes_after_the_time_it_was_told() -> None:
    clock = _clock()
    limiter = RateLimiter(10, clock)
    assert limiter.take("a", 40) == 0
    with pytest.raises(Problem) as refused:
        check(limiter, "a", 25)
    assert (refused.value.status, refused.value.headers) == (429, {"Retry-After": "3"})
    clock.sleep(3)
    check(limiter, "a", 25)


def test_more_than_a_full_bucket_passes_and_is_paid_off() -> None:
    clock = _clock()
    limiter = RateLimiter(10, clock)
    assert limiter.take("a", 400) == 0
    assert limiter.take("a", 1) == pytest.approx(36.1)


def test_old_keys_are_forgotten() -> None:
    limiter = RateLimiter(1, _clock())
    for number in range(KEYS_MAX + 5):
        limiter.take(str(number))
    assert len(limiter._buckets) == KEYS_MAX


def test_there_is_room_for_so_many_bytes_at_once() -> None:
    room = Room(100)
    with room.take(60), room.take(40), pytest.raises(Problem, match="unavailable"), room.take(1):
        pytest.fail("there is no room")
    with room.take(1_000), pytest.raises(Problem, match="unavailable"), room.take(1):
        pytest.fail("one body too large for the room passes alone")
    with room.take(100):
        pass
