"""One filter over the ids of all sealed segments of a log, so that a new id meets one word and not one per segment.

It is in memory only. A sealed segment's ids are added to it; merging changes nothing; what expired stays in it, which
costs a look into the segments now and then. When it has taken up as many ids as it was made for, a new one is made
from the segments.
"""

from collections.abc import Iterable
from typing import Final

from operators import dedupe_filter
from operators.dedupe_probe import U64, Places, Probe
from operators.dedupe_segment import Segment

IDS_MIN: Final = 1 << 16
"""A filter is made for at least so many."""


class Cover:
    """The filter. Read by the worker while the thread beside it adds: bits are only ever set.

    :param segments: those whose ids it covers.
    """

    __slots__ = ("_ids", "_ids_max", "_words")

    def __init__(self, segments: Iterable[Segment], probe: Probe) -> None:
        segments = list(segments)
        ids = sum(map(len, segments))
        self._ids_max = max(IDS_MIN, ids + ids // 4)
        self._words: U64 = dedupe_filter.blank(self._ids_max)
        self._ids = 0
        for segment in segments:
            self._add(segment, probe)

    @property
    def memory_bytes(self) -> int:
        """Return what it holds."""
        return self._words.nbytes

    def candidates(self, query: object, probe: Probe) -> Places:
        """Return the places of the keys that may be in a segment."""
        return probe.candidates(self._words, query)

    def with_segment(self, segment: Segment, others: Iterable[Segment], probe: Probe) -> "Cover":
        """Return a filter that covers a new segment and the others: this one if it has room, else a new one."""
        if self._ids + len(segment) > self._ids_max:
            return Cover([*others, segment], probe)
        self._add(segment, probe)
        return self

    def _add(self, segment: Segment, probe: Probe) -> None:
        for hi in segment.known():
            probe.add(self._words, hi)
        self._ids += len(segment)
