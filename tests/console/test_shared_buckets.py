"""Rate limits that processes share, against the limiter of one process, and with real processes."""

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from console.limits import RateLimiter, full_of
from console.shared_buckets import SETS, SIZE_BYTES, WAYS, SharedBuckets, SharedLimiter, new_file
from core.clock import ManualClock


def _clock() -> ManualClock:
    return ManualClock(datetime(2026, 11, 25, tzinfo=UTC))


@pytest.fixture
def buckets() -> Iterator[SharedBuckets]:
    with new_file() as file:
        made = SharedBuckets(file.fileno())
        yield made
        made.close()


STEPS = st.lists(
    st.tuples(st.sampled_from("abc"), st.floats(0, 9), st.floats(0.5, 30), st.booleans(), st.booleans()), max_size=60
)


@settings(max_examples=60)
@given(STEPS)
def test_workers_together_are_limited_as_one_process_is(steps: list[tuple[str, float, float, bool, bool]]) -> None:
    clock = _clock()
    one = RateLimiter(3.0, clock)
    with new_file() as file:
        workers = [SharedLimiter(SharedBuckets(file.fileno()), "limit", 3.0, clock) for _ in range(2)]
        for key, waits_s, cost, second, looks in steps:
            clock.sleep(waits_s)
            if looks:
                assert workers[second].wait_s(key, cost) == one.wait_s(key, cost)
            else:
                assert workers[second].take(key, cost) == one.take(key, cost)


def test_limits_of_other_names_are_others(buckets: SharedBuckets) -> None:
    clock = _clock()
    first, second = (SharedLimiter(buckets, name, 1.0, clock) for name in ("requests", "events"))
    assert first.take("a", 4) == 0
    assert first.take("a") == 1.0
    assert second.take("a", 4) == 0


def test_a_clock_that_is_a_little_behind_gives_nothing_twice(buckets: SharedBuckets) -> None:
    assert buckets.take("a", 8, 2.0, 10.0, keep=True) == 0
    assert buckets.take("a", 1, 2.0, 9.0, keep=True) == 0.5
    assert buckets.take("a", 1, 2.0, 10.0, keep=True) == 0.5


def test_the_keys_used_longest_ago_make_room(buckets: SharedBuckets) -> None:
    clock = _clock()
    limiter = SharedLimiter(buckets, "limit", 0.001, clock)
    count = SETS * WAYS * 2
    for number in range(count):
        clock.sleep(0.001)
        assert limiter.take(str(number)) == 0
    recent = [limiter.take(str(number)) > 0 for number in range(count - 100, count)]
    early = [limiter.wait_s(str(number)) > 0 for number in range(100)]
    assert all(recent)
    assert sum(early) < 50


TAKING = """
import sys
from datetime import UTC, datetime
from console.shared_buckets import SharedBuckets, SharedLimiter
from core.clock import ManualClock
clock = ManualClock(datetime(2026, 11, 25, tzinfo=UTC))
limiter = SharedLimiter(SharedBuckets(int(sys.argv[1])), "limit", 500.0, clock)
sys.stdin.read(1)
print(sum(limiter.take("token") == 0 for _ in range(3000)))
"""


def test_processes_at_the_same_time_take_no_more_than_there_is() -> None:
    with new_file() as file:
        takers = [
            subprocess.Popen(
                [sys.executable, "-c", TAKING, str(file.fileno())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=(file.fileno(),),
                env=os.environ,
                text=True,
            )
            for _ in range(3)
        ]
        taken = [int(taker.communicate("x", timeout=120)[0]) for taker in takers]
    assert sum(taken) == full_of(500.0)


def test_the_table_has_its_room_on_the_disk_from_the_start() -> None:
    with new_file() as file:
        assert os.fstat(file.fileno()).st_blocks * 512 >= SIZE_BYTES
