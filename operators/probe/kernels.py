"""The loops of an id log's look-ups, compiled; `operators.dedupe_probe` says what each means."""

from collections.abc import Callable
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
from numba import njit

from operators import dedupe_filter

F = TypeVar("F", bound=Callable[..., Any])
U64 = npt.NDArray[np.uint64]
U32 = npt.NDArray[np.uint32]
I64 = npt.NDArray[np.int64]

_FACTOR: Final = np.uint64(dedupe_filter.FACTOR)
_UNKNOWN: Final = np.uint64(64 - dedupe_filter.KNOWN_BITS)
_ONE: Final = np.uint64(1)
_SIX_BITS: Final = np.uint64(63)
_HALF: Final = np.uint64(32)
_SIXTY_FOUR: Final = np.uint64(64)
_LOW_HALF: Final = np.uint64(0xFFFF_FFFF)


def _compiled(function: F) -> F:
    made: F = njit(cache=True, nogil=True, boundscheck=False, _nrt=False)(function)
    return made


@_compiled
def _mask(hi: np.uint64) -> np.uint64:
    mixed = (hi >> _UNKNOWN) * _FACTOR
    mask = _ONE << (mixed >> np.uint64(58))
    mask |= _ONE << ((mixed >> np.uint64(52)) & _SIX_BITS)
    mask |= _ONE << ((mixed >> np.uint64(46)) & _SIX_BITS)
    mask |= _ONE << ((mixed >> np.uint64(40)) & _SIX_BITS)
    mask |= _ONE << ((mixed >> np.uint64(34)) & _SIX_BITS)
    return mask


@_compiled
def add(words: U64, hi: U64) -> None:
    """Add keys to a filter."""
    size = np.uint64(len(words))
    for row in range(len(hi)):
        words[((hi[row] >> _HALF) * size) >> _HALF] |= _mask(hi[row])


@_compiled
def candidates(words: U64, hi: U64, read: U64, places: I64) -> int:
    """Write the places of keys that the filter lets pass and return how many there are.

    Words are read first, into `read`: keys do not depend on each other, so the processor waits for many at once.
    """
    size = np.uint64(len(words))
    for row in range(len(hi)):
        read[row] = words[((hi[row] >> _HALF) * size) >> _HALF]
    count = 0
    for row in range(len(hi)):
        mask = _mask(hi[row])
        if read[row] & mask == mask:
            places[count] = row
            count += 1
    return count


@_compiled
def search(hi: U64, prefixes: U32, offsets: U32, bits: int, rows: I64, places: I64) -> int:
    """Write the keys whose known bits are there, and where they first are; return how many there are."""
    count = 0
    for row in range(len(hi)):
        key = hi[row]
        bucket = np.int64(key >> (_SIXTY_FOUR - np.uint64(bits))) if bits else np.int64(0)
        wanted = np.uint32((key >> (_HALF - np.uint64(bits))) & _LOW_HALF)
        left, right = np.int64(offsets[bucket]), np.int64(offsets[bucket + 1])
        end = right
        while left < right:
            middle = (left + right) >> 1
            if prefixes[middle] < wanted:
                left = middle + 1
            else:
                right = middle
        if left < end and prefixes[left] == wanted:
            rows[count] = row
            places[count] = left
            count += 1
    return count


@_compiled
def insert(slots: U32, hi: U64, lo: U64, begin: int, end: int) -> int:
    """Put records `begin` to `end` into a table of places, the newest of an id in the others' stead.

    :param slots: places + 1, 0 where there is none; a power of two of them, at most half of them taken.
    :return: how many ids are new.
    """
    mask = np.uint64(len(slots) - 1)
    new = 0
    for row in range(begin, end):
        at = lo[row] & mask
        while True:
            place = np.int64(slots[at]) - 1
            if place < 0:
                new += 1
                break
            if hi[place] == hi[row] and lo[place] == lo[row]:
                break
            at = (at + _ONE) & mask
        slots[at] = np.uint32(row + 1)
    return new


@_compiled
def lookup(slots: U32, own_hi: U64, own_lo: U64, hi: U64, lo: U64, read: U32, rows: I64, places: I64) -> int:
    """Write the keys that are in a table, and where; return how many there are. Slots are read first, as above."""
    mask = np.uint64(len(slots) - 1)
    for row in range(len(lo)):
        read[row] = slots[lo[row] & mask]
    count = 0
    for row in range(len(lo)):
        place = np.int64(read[row]) - 1
        at = lo[row] & mask
        while place >= 0:
            if own_lo[place] == lo[row] and own_hi[place] == hi[row]:
                rows[count] = row
                places[count] = place
                count += 1
                break
            at = (at + _ONE) & mask
            place = np.int64(slots[at]) - 1
    return count
