"""Sealed segments of format 1, as releases up to 0.1 wrote them: read until they are merged or expire.

Layout: blocks of up to 4,096 records, each holding its part of the columns hi, lo, content, minute (the last block is
padded with zeros); a filter's words, not used any more; the first `hi` of each block; a checksum per block; the footer.
The footer carries the checksum of the three sections before it and its own, and the manifest the footer's. A block is
checked when it is first read; opening reads all, since the filter over all segments wants to know their keys.
"""

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from xxhash import xxh3_64_intdigest

from operators.dedupe_layout import index_checksum
from operators.dedupe_manifest import SegmentEntry
from operators.dedupe_probe import Probe
from operators.dedupe_run import EMPTY, U32, U64, Places, Records
from operators.dedupe_segment_base import SegmentBase, check_footer
from operators.dedupe_tail import damaged

FORMAT: Final = 1
_LOW_HALF: Final = np.uint64(0xFFFF_FFFF)
_PART_BLOCKS: Final = 64

_MAGIC: Final = b"MBIDSEGM"
_FOOTER: Final = struct.Struct("<8sII16sQQQQIIQ")
FOOTER_BYTES: Final = _FOOTER.size + 8
_CHECKSUM: Final = struct.Struct("<Q")


@cache
def block_type(records: int) -> np.dtype[Any]:
    """Return the layout of a block of that many records."""
    wide = (records,)
    return np.dtype([("hi", "<u8", wide), ("lo", "<u8", wide), ("content", "<u8", wide), ("minute", "<u4", wide)])


@dataclass(frozen=True, slots=True)
class Footer:
    """What a segment file says about itself."""

    block_records: int
    first: int
    end: int
    count: int
    words: int
    minute_min: int
    minute_max: int
    index_checksum: int

    def pack(self, log_id: bytes) -> bytes:
        """Return the footer's bytes."""
        fields = _FOOTER.pack(
            _MAGIC, FORMAT, self.block_records, log_id, self.first, self.end, self.count, self.words,
            self.minute_min, self.minute_max, self.index_checksum,
        )  # fmt: skip
        return fields + _CHECKSUM.pack(xxh3_64_intdigest(fields))

    @property
    def blocks(self) -> int:
        """Return the number of blocks."""
        return -(-self.count // self.block_records)

    @property
    def index_at(self) -> int:
        """Return where the filter's words begin."""
        return self.blocks * block_type(self.block_records).itemsize

    @property
    def file_bytes(self) -> int:
        """Return the length of the file."""
        return self.index_at + 8 * self.words + 16 * self.blocks + FOOTER_BYTES


class Segment1(SegmentBase):
    """A segment of format 1."""

    __slots__ = ("_starts",)

    def __init__(self, path: Path, data: mmap.mmap, log_id: bytes, entry: SegmentEntry) -> None:
        foot = _read_footer(path, data, log_id, entry)
        array, at = np.frombuffer, foot.index_at
        words = array(data, np.uint64, foot.words, at)
        self._starts: U64 = array(data, np.uint64, foot.blocks, at + 8 * foot.words)
        sums: U64 = array(data, np.uint64, foot.blocks, at + 8 * (foot.words + foot.blocks))
        if index_checksum((words, self._starts, sums)) != foot.index_checksum:
            raise damaged(path, at, "the index's checksum differs")
        super().__init__(path, entry, array(data, block_type(foot.block_records), foot.blocks), sums, foot)

    @property
    def starts(self) -> U64:
        """Return `hi` of the first record of each block, the lower 32 bits zero."""
        return self._starts & ~_LOW_HALF

    def known(self) -> Iterator[U64]:
        """Yield `hi` of all records in order, in parts."""
        step = self._block_records * _PART_BLOCKS
        for begin in range(0, len(self), step):
            yield self.slice(begin, min(begin + step, len(self))).hi

    def locate(self, hi: U64, lo: U64, probe: Probe) -> tuple[Places, Places]:
        """Return the places of the keys that are here, and where each is."""
        size = self._block_records
        block = np.maximum(np.searchsorted(self._starts, hi, side="right") - 1, 0)
        self._check(block)
        filled = np.minimum(size, len(self) - block * size)
        left, right = np.zeros_like(block), filled.copy()
        own_hi = self._blocks["hi"]
        while (wide := left < right).any():
            middle = np.minimum((left + right) >> 1, filled - 1)
            below = own_hi[block, middle] < hi
            left = np.where(wide & below, middle + 1, left)
            right = np.where(wide & ~below, middle, right)
        left = np.minimum(left, filled - 1)
        half = own_hi[block, left] == hi
        found = half & (self._blocks["lo"][block, left] == lo)
        place: Places = block * size + left
        for key in np.flatnonzero(half & ~found):
            found[key], place[key] = self._scan(int(place[key]), hi[key], lo[key])
        return np.flatnonzero(found), place[found]

    def _scan(self, place: int, hi: np.uint64, lo: np.uint64) -> tuple[bool, int]:
        """Look among the records that share the upper half, which may lie in several blocks."""
        size = self._block_records
        for step, start in ((1, place), (-1, place - 1)):
            at = start
            while 0 <= at < len(self):
                self._check(np.array([at // size]))
                block = self._blocks[at // size]
                if block["hi"][at % size] != hi:
                    break
                if block["lo"][at % size] == lo:
                    return True, at
                at += step
        return False, place

    def read(self, places: Places) -> tuple[U64, U32]:
        """Return payload and arrival minute of the records that `locate` found."""
        block, at = np.divmod(places, self._block_records)
        return self._blocks["content"][block, at], self._blocks["minute"][block, at]

    def lower_bound(self, hi: np.uint64) -> int:
        """Return the place of the first record whose upper half is at least that; the lower 32 bits must be zero."""
        size = self._block_records
        block = max(0, int(np.searchsorted(self._starts, hi)) - 1)
        self._check(np.array([block]))
        filled = min(size, len(self) - block * size)
        return block * size + int(np.searchsorted(self._blocks["hi"][block, :filled], hi))

    def slice(self, begin: int, end: int) -> Records:
        """Return a copy of the records from place `begin` to `end`, checked."""
        if begin >= end:
            return EMPTY
        return Records(*self._columns(begin, end, ("hi", "lo", "content", "minute")))


def _read_footer(path: Path, data: mmap.mmap, log_id: bytes, entry: SegmentEntry) -> Footer:
    stored = data[len(data) - FOOTER_BYTES :]
    _, _, block_records, _, *numbers, _ = struct.unpack("<8sII16sQQQQIIQQ", stored)
    foot = Footer(block_records, *numbers)
    check_footer(path, stored, foot, log_id, entry, len(data))
    return foot
