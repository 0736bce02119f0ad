"""Sealed segments of the id log: immutable sorted files, memory-mapped, with a filter in memory.

Layout: header; the columns hi, lo, content, minute, each sorted by digest and padded to 8 bytes; the filter's
words; the first `hi` of each block of 4,096 records; a checksum per block over its part of all columns. The
header carries the checksums of the last three sections and of itself, and the manifest the header's. A block is
checked when it is first read, so opening costs only the filter (2 bytes an id), and damage is never believed.
"""

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from xxhash import xxh3_64_intdigest

from operators import dedupe_filter
from operators.dedupe_disk import Buffer, Disk
from operators.dedupe_manifest import SegmentEntry
from operators.dedupe_run import U32, U64, Places, Records, Run
from operators.dedupe_tail import damaged

FORMAT: Final = 1
BLOCK_RECORDS: Final = 4096

_MAGIC: Final = b"MBIDSEGM"
_HEADER: Final = struct.Struct("<8sII16sQQQQIIQ")
_HEADER_BYTES: Final = _HEADER.size + 8
_CHECKSUM: Final = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class _Header:
    first: int
    end: int
    count: int
    words: int
    minute_min: int
    minute_max: int
    index_checksum: int

    def pack(self, log_id: bytes) -> bytes:
        fields = _HEADER.pack(
            _MAGIC, FORMAT, BLOCK_RECORDS, log_id, self.first, self.end, self.count, self.words,
            self.minute_min, self.minute_max, self.index_checksum,
        )  # fmt: skip
        return fields + _CHECKSUM.pack(xxh3_64_intdigest(fields))

    @property
    def blocks(self) -> int:
        return -(-self.count // BLOCK_RECORDS)

    @property
    def offsets(self) -> tuple[int, int, int, int, int, int, int, int]:
        """Return where hi, lo, content, minute, words, block starts and block checksums begin, and the end."""
        column, minutes = 8 * self.count, -(-4 * self.count // 8) * 8
        places = [_HEADER_BYTES]
        for size in (column, column, column, minutes, 8 * self.words, 8 * self.blocks, 8 * self.blocks):
            places.append(places[-1] + size)
        hi, lo, content, minute, words, starts, sums, end = places
        return hi, lo, content, minute, words, starts, sums, end


def file_name(first: int, end: int) -> str:
    """Return the name of the segment of that range of records."""
    return f"segment-{first:020d}-{end:020d}.ids"


def write(disk: Disk, directory: Path, log_id: bytes, first: int, end: int, records: Records) -> SegmentEntry:
    """Write the segment of a range and return its manifest entry; its name is durable when this returns.

    The bytes are a function of the arguments alone. If the process dies anywhere here, the manifest does not
    name the file, and it is removed at the next start.

    :param records: sorted by digest, each id once; at least one.
    """
    words = dedupe_filter.build(records.hi, records.lo)
    starts = np.ascontiguousarray(records.hi[::BLOCK_RECORDS])
    columns = (records.hi, records.lo, records.content, records.minute)
    blocks = range(0, len(records), BLOCK_RECORDS)
    sums = np.array([_block_checksum(columns, at) for at in blocks], dtype=np.uint64)
    index_checksum = _index_checksum(words, starts, sums)
    minutes = records.minute
    head = _Header(first, end, len(records), len(words), int(minutes.min()), int(minutes.max()), index_checksum).pack(
        log_id
    )

    name = file_name(first, end)
    temporary = directory / f"{name}.tmp"
    disk.remove(temporary)
    disk.append(temporary, head)
    for column in (*columns[:3], _padded(minutes), words, starts, sums):
        disk.append(temporary, _bytes(column))
    disk.sync(temporary)
    disk.rename(temporary, directory / name)
    disk.sync_directory(directory)
    return SegmentEntry(name, first, end, head[-8:].hex())


class Segment(Run):
    """A sealed segment, open for look-ups.

    :raises StateMismatch: the file is missing, is another one, or its header or index is damaged. `locate` and
        `read` raise it for a damaged block, before anything in it is believed.
    """

    __slots__ = ("_checked", "_starts", "_sums", "entry", "file_bytes", "minute_max", "path")

    def __init__(self, directory: Path, log_id: bytes, entry: SegmentEntry) -> None:
        self.path = directory / entry.name
        self.entry = entry
        if not self.path.exists():
            raise damaged(self.path, 0, "the file is missing, though the manifest names it")
        if self.path.stat().st_size < _HEADER_BYTES:
            raise damaged(self.path, 0, "the header is cut off")
        with self.path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        head = _read_header(self.path, data, log_id, entry)
        self.minute_max = head.minute_max
        self.file_bytes = len(data)
        hi, lo, content, minute, words, starts, sums, _ = head.offsets
        array = np.frombuffer
        filter_words = array(data, np.uint64, head.words, words).copy()
        self._starts = array(data, np.uint64, head.blocks, starts).copy()
        self._sums = array(data, np.uint64, head.blocks, sums).copy()
        if _index_checksum(filter_words, self._starts, self._sums) != head.index_checksum:
            raise damaged(self.path, words, "the index's checksum differs")
        self._checked = np.zeros(head.blocks, dtype=np.bool_)
        records = Records(
            array(data, np.uint64, head.count, hi),
            array(data, np.uint64, head.count, lo),
            array(data, np.uint64, head.count, content),
            array(data, np.uint32, head.count, minute),
        )
        super().__init__(records, filter_words)

    def locate(self, hi: U64, lo: U64) -> tuple[npt.NDArray[np.bool_], Places]:
        """Return for each key whether it is here, and where (only meaningful where it is)."""
        block = np.maximum(np.searchsorted(self._starts, hi, side="right") - 1, 0)
        self._check(block)
        left = block * BLOCK_RECORDS
        right = np.minimum(left + BLOCK_RECORDS, len(self))
        own_hi, own_lo = self.records.hi, self.records.lo
        while (wide := left < right).any():
            middle = (left + right) >> 1
            below = own_hi[np.where(wide, middle, 0)] < hi
            left = np.where(wide & below, middle + 1, left)
            right = np.where(wide & ~below, middle, right)
        place = np.minimum(left, len(self) - 1)
        # A key equal to a block's first half may also stand in the block before; that block is read below.
        half = own_hi[place] == hi
        found = half & (own_lo[place] == lo)
        for key in np.flatnonzero(half & ~found):
            found[key], place[key] = self._scan(int(place[key]), hi[key], lo[key])
        return found, place

    def _scan(self, place: int, hi: np.uint64, lo: np.uint64) -> tuple[bool, int]:
        """Look among the records that share the upper half, which may lie in several blocks."""
        own_hi, own_lo = self.records.hi, self.records.lo
        for step, at in ((1, place), (-1, place - 1)):
            while 0 <= at < len(self):
                self._check(np.array([at // BLOCK_RECORDS]))
                if own_hi[at] != hi:
                    break
                if own_lo[at] == lo:
                    return True, at
                at += step  # noqa: PLW2901
        return False, place

    def check_all(self) -> None:
        """Check every block that was not read yet."""
        self._check(np.arange(len(self._sums)))

    def _check(self, blocks: Places) -> None:
        for block in np.unique(blocks[~self._checked[blocks]]).tolist():
            columns = (self.records.hi, self.records.lo, self.records.content, self.records.minute)
            if _block_checksum(columns, block * BLOCK_RECORDS) != int(self._sums[block]):
                offset = _HEADER_BYTES + 8 * block * BLOCK_RECORDS
                raise damaged(self.path, offset, f"the checksum of block {block} differs")
            self._checked[block] = True


def _read_header(path: Path, data: mmap.mmap, log_id: bytes, entry: SegmentEntry) -> _Header:
    *_, first, end, count, words, minute_min, minute_max, index_checksum = _HEADER.unpack_from(data, 0)
    head = _Header(first, end, count, words, minute_min, minute_max, index_checksum)
    stored = data[:_HEADER_BYTES]
    same_range = (first, end) == (entry.first, entry.end)
    if head.pack(log_id) != stored or stored[-8:].hex() != entry.checksum or not same_range:
        raise damaged(path, 0, "the header is not the one that the manifest names")
    if head.offsets[-1] != len(data):
        raise damaged(path, len(data), f"the file should be {head.offsets[-1]} bytes long")
    return head


def _block_checksum(columns: tuple[U64, U64, U64, U32], at: int) -> int:
    checksum = 0
    for column in columns:
        checksum = xxh3_64_intdigest(_bytes(column[at : at + BLOCK_RECORDS]), checksum)
    return checksum


def _index_checksum(words: U64, starts: U64, sums: U64) -> int:
    checksum = 0
    for section in (words, starts, sums):
        checksum = xxh3_64_intdigest(_bytes(section), checksum)
    return checksum


def _padded(minutes: U32) -> U32:
    return np.append(minutes, np.zeros(len(minutes) % 2, dtype=np.uint32))


def _bytes(array: npt.NDArray[Any]) -> Buffer:
    return np.ascontiguousarray(array).data.cast("B") if len(array) else b""
