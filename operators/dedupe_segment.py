"""Sealed segments of the id log: immutable sorted files, memory-mapped (layout: `operators.dedupe_layout`)."""

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Protocol

import numpy as np

from operators import dedupe_layout, dedupe_segment_1
from operators.dedupe_layout import FOOTER_BYTES, Footer
from operators.dedupe_manifest import SegmentEntry
from operators.dedupe_probe import Probe
from operators.dedupe_run import EMPTY, U32, U64, Places, Records
from operators.dedupe_segment_base import SegmentBase, check_footer
from operators.dedupe_tail import damaged

_PART_RECORDS: Final = 1 << 18
_LOW_HALF: Final = np.uint64(0xFFFF_FFFF)


def file_name(first: int, end: int) -> str:
    """Return the name of the segment of that range of records."""
    return f"segment-{first:020d}-{end:020d}.ids"


class Segment(Protocol):
    """A sealed segment, open for look-ups. `locate` and `slice` raise StateMismatch for a damaged block."""

    entry: SegmentEntry
    path: Path

    def __len__(self) -> int:
        """Return how many records it holds."""
        ...

    @property
    def file_bytes(self) -> int:
        """Return the length of the file."""
        ...

    @property
    def minute_min(self) -> int:
        """Return the earliest arrival minute in the segment."""
        ...

    @property
    def minute_max(self) -> int:
        """Return the latest arrival minute in the segment."""
        ...

    @property
    def starts(self) -> U64:
        """Return `hi` of the first record of each block, the lower 32 bits zero."""
        ...

    def known(self) -> Iterator[U64]:
        """Yield `hi` of all records in order, in parts; at least its upper 48 bits are right."""
        ...

    def locate(self, hi: U64, lo: U64, probe: Probe) -> tuple[Places, Places]:
        """Return the places of the keys that are here, and where each is."""
        ...

    def read(self, places: Places) -> tuple[U64, U32]:
        """Return payload and arrival minute of the records that `locate` found."""
        ...

    def lower_bound(self, hi: np.uint64) -> int:
        """Return the place of the first record whose upper half is at least that; the lower 32 bits must be zero."""
        ...

    def slice(self, begin: int, end: int) -> Records:
        """Return a copy of the records from place `begin` to `end`, checked."""
        ...


def open_segment(directory: Path, log_id: bytes, entry: SegmentEntry) -> Segment:
    """Open a segment of whichever format.

    :raises StateMismatch: the file is missing, is another one, or its footer or index is damaged.
    """
    path = directory / entry.name
    if not path.exists():
        raise damaged(path, 0, "the file is missing, though the manifest names it")
    if path.stat().st_size < FOOTER_BYTES:
        raise damaged(path, 0, "the footer is cut off")
    with path.open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if dedupe_layout.format_of(data[-FOOTER_BYTES:]) == dedupe_segment_1.FORMAT:
        return dedupe_segment_1.Segment1(path, data, log_id, entry)
    return Segment2(path, data, log_id, entry)


class Segment2(SegmentBase):
    """A segment of format 2."""

    __slots__ = ("_footer", "_offsets", "_prefixes")

    def __init__(self, path: Path, data: mmap.mmap, log_id: bytes, entry: SegmentEntry) -> None:
        self._footer = foot = _read_footer(path, data, log_id, entry)
        self._prefixes: U32 = np.frombuffer(data, np.uint32, foot.count, foot.prefixes_at)
        self._offsets: U32 = np.frombuffer(data, np.uint32, foot.buckets + 1, foot.offsets_at)
        sums: U64 = np.frombuffer(data, np.uint64, foot.blocks, foot.sums_at)
        if dedupe_layout.index_checksum((self._prefixes, self._offsets, sums)) != foot.index_checksum:
            raise damaged(path, foot.prefixes_at, "the index's checksum differs")
        super().__init__(path, entry, np.frombuffer(data, foot.block_type, foot.blocks), sums, foot)

    @property
    def starts(self) -> U64:
        """Return `hi` of the first record of each block, the lower 32 bits zero."""
        places = np.arange(0, len(self), self._block_records)
        bucket = np.searchsorted(self._offsets, places, side="right") - 1
        return self._known(bucket, self._prefixes[places]) & ~_LOW_HALF

    def known(self) -> Iterator[U64]:
        """Yield `hi` of all records in order, in parts; at least its upper 48 bits are right."""
        for begin in range(0, len(self), _PART_RECORDS):
            end = min(begin + _PART_RECORDS, len(self))
            if self._footer.bucket_bits:
                yield self._known(self._buckets(begin, end), self._prefixes[begin:end])
            else:
                yield self.slice(begin, end).hi

    def locate(self, hi: U64, lo: U64, probe: Probe) -> tuple[Places, Places]:
        """Return the places of the keys that are here, and where each is."""
        rows, places = probe.search(hi, self._prefixes, self._offsets, self._footer.bucket_bits)
        if not len(rows):
            return rows, places
        wanted_rest, wanted_lo = self._rest(hi[rows]), lo[rows]
        block, at = np.divmod(places, self._block_records)
        self._check(block)
        same = (self._blocks["rest"][block, at] == wanted_rest) & (self._blocks["lo"][block, at] == wanted_lo)
        for key in np.flatnonzero(~same).tolist():
            same[key], places[key] = self._scan(int(places[key]), hi[rows[key]], wanted_lo[key])
        return rows[same], places[same]

    def _scan(self, place: int, hi: np.uint64, lo: np.uint64) -> tuple[bool, int]:
        """Look among the records behind `place` that share its prefix, which may lie in several blocks."""
        size = self._block_records
        bucket_end = int(self._offsets[self._bucket(hi) + 1])
        prefix, rest = self._prefixes[place], self._rest(np.array([hi]))[0]
        for at in range(place, bucket_end):
            if self._prefixes[at] != prefix:
                break
            self._check(np.array([at // size]))
            block = self._blocks[at // size]
            if block["rest"][at % size] == rest and block["lo"][at % size] == lo:
                return True, at
        return False, place

    def read(self, places: Places) -> tuple[U64, U32]:
        """Return payload and arrival minute of the records that `locate` found."""
        block, at = np.divmod(places, self._block_records)
        minute = self._blocks["minute"][block, at].astype(np.uint32) + np.uint32(self._footer.minute_base)
        return self._blocks["content"][block, at], minute

    def lower_bound(self, hi: np.uint64) -> int:
        """Return the place of the first record whose upper half is at least that; the lower 32 bits must be zero."""
        bucket = self._bucket(hi)
        begin, end = int(self._offsets[bucket]), int(self._offsets[bucket + 1])
        prefix = np.uint32((int(hi) >> (32 - self._footer.bucket_bits)) & 0xFFFF_FFFF)
        return begin + int(np.searchsorted(self._prefixes[begin:end], prefix))

    def slice(self, begin: int, end: int) -> Records:
        """Return a copy of the records from place `begin` to `end`, checked."""
        if begin >= end:
            return EMPTY
        lo, content, rest, minute = self._columns(begin, end, ("lo", "content", "rest", "minute"))
        hi = self._known(self._buckets(begin, end), self._prefixes[begin:end]) | rest
        return Records(hi, lo, content, minute.astype(np.uint32) + np.uint32(self._footer.minute_base))

    # --- inside ------------------------------------------------------------------------------------------

    def _bucket(self, hi: np.uint64) -> int:
        return int(hi) >> (64 - self._footer.bucket_bits)

    def _rest(self, hi: U64) -> U64:
        """Return what is below the prefix."""
        return hi & np.uint64((1 << (32 - self._footer.bucket_bits)) - 1)

    def _known(self, bucket: Places, prefixes: U32) -> U64:
        """Return the upper halves as far as bucket and prefix say."""
        below = np.uint64(32 - self._footer.bucket_bits)
        known: U64 = prefixes.astype(np.uint64) << below
        return known | (bucket.astype(np.uint64) << (below + np.uint64(32))) if self._footer.bucket_bits else known

    def _buckets(self, begin: int, end: int) -> Places:
        """Return the bucket of each record from place `begin` to `end`."""
        first = int(np.searchsorted(self._offsets, begin, side="right")) - 1
        last = int(np.searchsorted(self._offsets, end - 1, side="right"))
        edges = np.clip(self._offsets[first : last + 1].astype(np.intp), begin, end)
        return np.repeat(np.arange(first, last), edges[1:] - edges[:-1])


def _read_footer(path: Path, data: mmap.mmap, log_id: bytes, entry: SegmentEntry) -> Footer:
    stored = data[len(data) - FOOTER_BYTES :]
    foot = Footer.unpack(stored)
    check_footer(path, stored, foot, log_id, entry, len(data))
    return foot
