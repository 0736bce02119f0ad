"""Sorted runs of id records in columns: the index of the id log's tail, in memory.

A run is immutable and holds each id once, its newest record. Runs merge when enough of one size stand
together, so a look-up meets few of them and each record is sorted a logarithmic number of times.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from operators import dedupe_filter
from operators.dedupe_answer import Answer

if TYPE_CHECKING:
    from operators.dedupe_probe import Probe

U64 = npt.NDArray[np.uint64]
U32 = npt.NDArray[np.uint32]
Places = npt.NDArray[np.intp]

_TIER: Final = 8
"""Runs of one size class that merge into one of the next."""


@dataclass(frozen=True, slots=True)
class Records:
    """Id records in columns: a 128-bit digest in two halves, its payload, its arrival (minutes since 1970)."""

    hi: U64
    lo: U64
    content: U64
    minute: U32

    def __len__(self) -> int:
        return len(self.hi)

    def take(self, places: Places | npt.NDArray[np.bool_] | slice) -> "Records":
        """Return some of the records."""
        return Records(self.hi[places], self.lo[places], self.content[places], self.minute[places])


def concatenate(parts: Sequence[Records]) -> Records:
    """Return the records of all parts, one behind the other."""
    if len(parts) == 1:
        return parts[0]
    return Records(
        np.concatenate([part.hi for part in parts]),
        np.concatenate([part.lo for part in parts]),
        np.concatenate([part.content for part in parts]),
        np.concatenate([part.minute for part in parts]),
    )


EMPTY: Final = Records(np.empty(0, np.uint64), np.empty(0, np.uint64), np.empty(0, np.uint64), np.empty(0, np.uint32))


def digest_order(hi: U64, lo: U64) -> tuple[Places, npt.NDArray[np.bool_]]:
    """Return the stable order by digest, and for each place in it whether a new digest begins there."""
    order = np.argsort(hi, kind="stable")
    sorted_hi = hi[order]
    begins = np.ones(len(hi), dtype=np.bool_)
    same_hi = sorted_hi[1:] == sorted_hi[:-1]
    if same_hi.any():
        sorted_lo = lo[order]
        differs = sorted_lo[1:] != sorted_lo[:-1]
        if (same_hi & differs).any():  # two digests that share 64 bits: all but never, yet it has to be right
            order = np.lexsort((lo, hi))
            sorted_hi, sorted_lo = hi[order], lo[order]
            same_hi = sorted_hi[1:] == sorted_hi[:-1]
            differs = sorted_lo[1:] != sorted_lo[:-1]
        begins[1:] = ~same_hi | differs
    return order, begins


def sorted_newest(records: Records) -> Records:
    """Return the records in digest order, of each id the last one only."""
    order, begins = digest_order(records.hi, records.lo)
    if not begins.all():
        last = np.ones(len(order), dtype=np.bool_)
        last[:-1] = begins[1:]
        order = order[last]
    return records.take(order)


class Run:
    """Records sorted by digest, each id once, with a filter in front.

    :param records: must be what `sorted_newest` returns.
    """

    __slots__ = ("records", "words")

    def __init__(self, records: Records) -> None:
        self.records = records
        self.words = dedupe_filter.blank(len(records))
        dedupe_filter.add(self.words, records.hi)

    def __len__(self) -> int:
        return len(self.records)

    def locate(self, hi: U64, lo: U64) -> tuple[Places, Places]:
        """Return the places of the keys that are here, and where each is."""
        own_hi, own_lo = self.records.hi, self.records.lo
        place = np.searchsorted(own_hi, hi)
        last = len(own_hi) - 1
        bounded = np.minimum(place, last)
        found = (own_hi[bounded] == hi) & (own_lo[bounded] == lo)
        # Digests that share their upper half stand together, so step on while the half matches.
        for key in np.flatnonzero(~found & (own_hi[bounded] == hi)):
            at = int(bounded[key]) + 1
            while at <= last and own_hi[at] == hi[key]:
                if own_lo[at] == lo[key]:
                    found[key], bounded[key] = True, at
                    break
                at += 1
        return np.flatnonzero(found), bounded[found]

    def read(self, places: Places) -> tuple[U64, U32]:
        """Return payload and arrival minute of the records at those places."""
        return self.records.content[places], self.records.minute[places]


class RunStack:
    """Runs of a growing range of records, oldest first."""

    __slots__ = ("runs",)

    def __init__(self) -> None:
        self.runs: list[Run] = []

    def __len__(self) -> int:
        return sum(map(len, self.runs))

    def add(self, records: Records) -> None:
        """Put newer records on top, and merge what has become many."""
        run = Run(sorted_newest(records))
        while take := self._count_to_merge(_size_class(len(run))):
            parts = [part.records for part in self.runs[-take:]] + [run.records]
            del self.runs[-take:]
            run = Run(sorted_newest(concatenate(parts)))
        self.runs.append(run)

    def _count_to_merge(self, size: int) -> int:
        """Return how many of the newest runs merge with a run of that size class.

        Smaller ones always do, so that sizes fall from old to new; equal ones once a tier is full.
        """
        smaller = equal = 0
        for run in reversed(self.runs):
            other = _size_class(len(run))
            if other > size:
                break
            equal += 1
            if other < size and smaller == equal - 1:
                smaller = equal
        return equal if equal >= _TIER - 1 else smaller

    def find(self, hi: U64, lo: U64, answer: Answer, probe: "Probe", query: Any) -> None:
        """Answer the keys that are here and were not found yet; `query` is what `probe` made of `hi`."""
        for run in reversed(self.runs):
            keys = answer.open(probe.candidates(run.words, query))
            if len(keys):
                rows, places = run.locate(hi[keys], lo[keys])
                answer.take(keys[rows], *run.read(places))

    def merged(self) -> Records:
        """Return all records, sorted, each id once."""
        if not self.runs:
            return EMPTY
        if len(self.runs) == 1:
            return self.runs[0].records
        return sorted_newest(concatenate([run.records for run in self.runs]))


def _size_class(records: int) -> int:
    """Return the power of the tier width that a run's size falls in."""
    size = 0
    while records >= _TIER:
        records //= _TIER
        size += 1
    return size
