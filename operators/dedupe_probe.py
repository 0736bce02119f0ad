"""How the id log looks keys up: a filter in front, then a search by the upper bits. In numpy here; compiled elsewhere.

`operators.dedupe_compiled` has the same by numba. Which of the two answers never changes the answer.
"""

from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from operators import dedupe_filter
from operators.dedupe_table import TailTable

U64 = npt.NDArray[np.uint64]
U32 = npt.NDArray[np.uint32]
Places = npt.NDArray[np.intp]


class Probe(Protocol):
    """Called on a worker's thread or on the one beside it; does not block."""

    def query(self, hi: U64) -> Any:
        """Return what `candidates` wants to know of keys, computed once for all filters."""
        ...

    def candidates(self, words: U64, query: Any) -> Places:
        """Return the places of the keys that a filter lets pass, ascending."""
        ...

    def add(self, words: U64, hi: U64) -> None:
        """Add sorted keys to a filter."""
        ...

    def table(self) -> TailTable | None:
        """Return an empty index for a tail file; None: sorted runs do."""
        ...

    def search(self, hi: U64, prefixes: U32, offsets: U32, bits: int) -> tuple[Places, Places]:
        """Find keys by their upper `bits` + 32 bits among sorted records.

        :param prefixes: of each record, the 32 bits below the upper `bits`. :param offsets: where the records of each
            value of the upper `bits` begin, and the end.
        :return: the places of the keys that are found, ascending, and the first record of each.
        """
        ...


class NumpyProbe:
    """The look-ups in numpy, for where there is no compiled code."""

    def query(self, hi: U64) -> tuple[U64, U64]:
        """Return the keys' tops and masks."""
        return dedupe_filter.tops(hi), dedupe_filter.masks(hi)

    def candidates(self, words: U64, query: tuple[U64, U64]) -> Places:
        """Return the places of the keys that a filter lets pass."""
        return dedupe_filter.maybe(words, *query)

    def add(self, words: U64, hi: U64) -> None:
        """Add sorted keys to a filter."""
        dedupe_filter.add(words, hi)

    def table(self) -> None:
        """Return that sorted runs do."""

    def search(self, hi: U64, prefixes: U32, offsets: U32, bits: int) -> tuple[Places, Places]:
        """Find keys by their upper bits: a binary search of all keys at once."""
        bucket = (hi >> np.uint64(64 - bits)).astype(np.intp) if bits else np.zeros(len(hi), dtype=np.intp)
        wanted = ((hi >> np.uint64(32 - bits)) & np.uint64(0xFFFF_FFFF)).astype(np.uint32)
        left, right = offsets[bucket].astype(np.intp), offsets[bucket + 1].astype(np.intp)
        end = right.copy()
        last = len(prefixes) - 1
        while (wide := left < right).any():
            middle = np.minimum((left + right) >> 1, last)
            below = prefixes[middle] < wanted
            left = np.where(wide & below, middle + 1, left)
            right = np.where(wide & ~below, middle, right)
        rows = np.flatnonzero((left < end) & (prefixes[np.minimum(left, last)] == wanted))
        return rows, left[rows]


NUMPY: Final = NumpyProbe()
