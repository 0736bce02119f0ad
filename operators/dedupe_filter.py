"""Blocked Bloom filter over 128-bit digests, in columns: one 64-bit word per key, five bits in it.

A key looks at exactly one word, so a look-up costs one cache miss however many ids there are. At 16 bits a key
about one new key in 200 is sent on in vain; no key that is present is ever missed. Word and bits come from the upper
48 bits of the digest alone: those are what a sealed segment keeps side by side (see `operators.dedupe_layout`).
"""

from typing import Final

import numpy as np
import numpy.typing as npt

U64 = npt.NDArray[np.uint64]

BITS_PER_KEY: Final = 16
KNOWN_BITS: Final = 48
"""Bits of a digest, from the top, that decide where it is in a filter."""
PROBES: Final = 5
FACTOR: Final = 0x9E37_79B9_7F4A_7C15
"""Odd, so that the product's upper bits depend on all 48; keys of one word share the upper ones of these."""
_ONE: Final = np.uint64(1)
_SIX_BITS: Final = np.uint64(63)
_HALF: Final = np.uint64(32)
_UNKNOWN: Final = np.uint64(64 - KNOWN_BITS)


def masks(hi: U64) -> U64:
    """Return, per key, the bits that its word must have."""
    mixed = (hi >> _UNKNOWN) * np.uint64(FACTOR)
    mask = np.zeros_like(hi)
    for probe in range(PROBES):
        mask |= _ONE << ((mixed >> np.uint64(58 - 6 * probe)) & _SIX_BITS)
    return mask


def tops(hi: U64) -> U64:
    """Return the upper 32 bits of the digest's high half, from which the word's place is scaled."""
    return hi >> _HALF


def blank(keys: int) -> U64:
    """Return the words of a filter that will hold up to that many keys."""
    return np.zeros(max(1, -(-keys * BITS_PER_KEY // 64)), dtype=np.uint64)


def add(words: U64, hi: U64) -> None:
    """Add keys, sorted, to a filter."""
    if len(hi):
        place = _places(tops(hi), len(words))
        starts = np.flatnonzero(np.concatenate(([True], place[1:] != place[:-1])))
        words[place[starts]] |= np.bitwise_or.reduceat(masks(hi), starts)


def maybe(words: U64, top: U64, mask: U64) -> npt.NDArray[np.intp]:
    """Return the places of the keys that may be present, given `tops` and `masks` of the keys."""
    return np.flatnonzero((words[_places(top, len(words))] & mask) == mask)


def _places(top: U64, words: int) -> U64:
    """Scale the digest to a word: monotonic in `hi`, so that sorted keys walk the filter forward."""
    return (top * np.uint64(words)) >> _HALF
