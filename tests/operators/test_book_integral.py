from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.book_integral import Change, level_seconds

MINUTE_US = 60_000_000
ONE = 10**12


def change(time_us: int, level: int, place: int = 0) -> Change:
    return Change(time_us, 0, 0, place, 0, level, 0)


def naive(changes: list[Change], begin: int, end: int, expiry_us: int | None) -> int:
    """Look at every minute on its own, and at every change in it."""
    total = 0
    for minute in range(begin, end):
        exact = Fraction(0)
        for place, each in enumerate(changes):
            until = changes[place + 1].time_us if place + 1 < len(changes) else (minute + 1) * MINUTE_US
            if expiry_us is not None:
                until = min(until, each.time_us + expiry_us)
            held_us = min(until, (minute + 1) * MINUTE_US) - max(each.time_us, minute * MINUTE_US)
            exact += Fraction(each.level * max(0, held_us), 1_000_000)
        total += round(exact)
    return total


@pytest.mark.parametrize(
    ("changes", "expiry_us", "expected"),
    [
        # 2 for the whole hour: 2 x 3600 s.
        ([(-5 * MINUTE_US, 2 * ONE)], None, 7200 * ONE),
        # From minute 10.5 on: 2 x (3600 - 630) s.
        ([(630_000_000, 2 * ONE)], None, 5940 * ONE),
        # 2 for 600 s, then 5 for 3000 s; of two changes at one time the later position holds.
        ([(0, 2 * ONE), (600_000_000, 9 * ONE), (600_000_000, 5 * ONE)], None, 16_200 * ONE),
        # Expires after 90 s: 3 x 90 s.
        ([(60_000_000, 3 * ONE)], 90_000_000, 270 * ONE),
        # The least level for half a microsecond-second: 10^-12 x 0.5 s and 1.5 s are halves, and go to the even side.
        ([(0, 1), (500_000, 0)], None, 0),
        ([(0, 1), (1_500_000, 0)], None, 2),
        ([(0, -1), (1_500_000, 0)], None, -2),
        # Two thirds of a minute's last digit in each of two minutes: rounded in each, 1 + 1.
        ([(59_400_000, 1), (60_600_000, 0)], None, 2),
        ([], None, 0),
        # Only after the hour.
        ([(60 * MINUTE_US, ONE)], None, 0),
    ],
)
def test_hand_calculated(changes: list[tuple[int, int]], expiry_us: int | None, expected: int) -> None:
    made = [change(time_us, level, place) for place, (time_us, level) in enumerate(changes)]
    assert level_seconds(made, 0, 60, expiry_us) == expected == naive(made, 0, 60, expiry_us)


changes_strategy = st.lists(
    st.tuples(st.integers(-3 * MINUTE_US, 7 * MINUTE_US), st.integers(-(10**30) + 1, 10**30 - 1)), max_size=8
).map(lambda pairs: sorted(change(time_us, level, place) for place, (time_us, level) in enumerate(pairs)))


@settings(deadline=None)
@given(changes_strategy, st.one_of(st.none(), st.integers(1, 4 * MINUTE_US)))
def test_equals_the_naive_integral_and_pieces_add_up(changes: list[Change], expiry_us: int | None) -> None:
    whole = level_seconds(changes, 0, 6, expiry_us)
    assert whole == naive(changes, 0, 6, expiry_us)
    for cut in range(7):
        assert level_seconds(changes, 0, cut, expiry_us) + level_seconds(changes, cut, 6, expiry_us) == whole
