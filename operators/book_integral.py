"""The integral of a level over time: exact, and rounded once per minute, so that any split at minutes adds up.

Levels are integers scaled by 10^12, times are Unix microseconds, minutes are whole minutes since 1970-01-01T00:00Z.
"""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Final, NamedTuple

from operators.book_time import US_PER_MINUTE

US_PER_SECOND: Final = 1_000_000
_SECONDS_PER_MINUTE: Final = 60


class Change(NamedTuple):
    """From `time_us` on the series has this level. Changes sort by time, then by position: the later one holds."""

    time_us: int
    entry_ms: int
    stream: int
    entry_seq: int
    entry_index: int
    level: int
    identity: int
    """Digest of the event's identity, by which a void finds it."""
    is_settled: bool = False
    """What came before it was folded: nothing earlier can be added any more, nor this one be taken back."""


def time_of(change: Change) -> int:
    """Return when the change takes place: the key to search changes by."""
    return change.time_us


def level_seconds(changes: Sequence[Change], begin: int, end: int, expiry_us: int | None) -> int:
    """Return the level-seconds from minute `begin` to minute `end` (exclusive), as an integer scaled by 10^12.

    `changes` are in order. Before the first one the level is 0; each holds until the next one, but no longer than
    `expiry_us`. Each minute's integral is rounded half-even to the scale. A minute in which the level changes at
    whole seconds only is exact.
    """
    begin_us, end_us = begin * US_PER_MINUTE, end * US_PER_MINUTE
    total = 0
    broken: dict[int, int] = {}
    place = max(bisect_right(changes, begin_us, key=time_of) - 1, 0)
    count = len(changes)
    while place < count and changes[place].time_us < end_us:
        change = changes[place]
        place += 1
        until_us = changes[place].time_us if place < count else end_us
        if expiry_us is not None:
            until_us = min(until_us, change.time_us + expiry_us)
        from_us, until_us = max(change.time_us, begin_us), min(until_us, end_us)
        if change.level and from_us < until_us:
            total += _whole_minutes(change.level, from_us, until_us, broken)
    return total + sum(_rounded(product) for product in broken.values())


def _whole_minutes(level: int, from_us: int, until_us: int, broken: dict[int, int]) -> int:
    """Return what the whole minutes come to; add the parts of minutes to `broken`, in level-microseconds."""
    first, last = -(-from_us // US_PER_MINUTE), until_us // US_PER_MINUTE
    if first > last:
        broken[last] = broken.get(last, 0) + level * (until_us - from_us)
        return 0
    if before_us := first * US_PER_MINUTE - from_us:
        broken[first - 1] = broken.get(first - 1, 0) + level * before_us
    if after_us := until_us - last * US_PER_MINUTE:
        broken[last] = broken.get(last, 0) + level * after_us
    return level * _SECONDS_PER_MINUTE * (last - first)


def _rounded(product: int) -> int:
    """Divide level-microseconds by a million, half-even."""
    quotient, rest = divmod(product, US_PER_SECOND)
    if 2 * rest > US_PER_SECOND or (2 * rest == US_PER_SECOND and quotient % 2):
        return quotient + 1
    return quotient
