"""Writes sealed segments of the id log from sorted parts, so that memory does not grow with the segment."""

from pathlib import Path
from typing import Final

import numpy as np
from xxhash import xxh3_64_intdigest

from operators import dedupe_filter, dedupe_segment
from operators.dedupe_disk import Disk
from operators.dedupe_manifest import SegmentEntry
from operators.dedupe_run import EMPTY, Records, concatenate
from operators.dedupe_segment import BLOCK_RECORDS_MAX, Footer, block_type

SYNC_BYTES: Final = 32 << 20
"""Written bytes after which the file is synced, so that no single sync takes long."""


class SegmentWriter:
    """Writes one segment. The bytes are a function of the range, the records and `count_max` alone.

    If the process dies before `finish` returned and the manifest names the file, it is removed at the next start.

    :param count_max: at least as many as records will come; sizes the filter.
    """

    def __init__(self, disk: Disk, directory: Path, log_id: bytes, first: int, end: int, count_max: int) -> None:
        self._disk = disk
        self._directory = directory
        self._log_id = log_id
        self._range = (first, end)
        self._name = dedupe_segment.file_name(first, end)
        self._temporary = directory / f"{self._name}.tmp"
        self._block_records = min(BLOCK_RECORDS_MAX, 1 << max(0, count_max - 1).bit_length())
        self._words = dedupe_filter.blank(count_max)
        self._starts: list[int] = []
        self._sums: list[int] = []
        self._waiting = EMPTY
        self._minute_min, self._minute_max = 0xFFFF_FFFF, 0
        self._count = self._unsynced_bytes = 0
        disk.remove(self._temporary)

    def add(self, records: Records) -> None:
        """Add records behind those added before: sorted by digest, each id once over all parts."""
        if not len(records):
            return
        dedupe_filter.add(self._words, records.hi, records.lo)
        self._minute_min = min(self._minute_min, int(records.minute.min()))
        self._minute_max = max(self._minute_max, int(records.minute.max()))
        self._count += len(records)
        waiting = concatenate([self._waiting, records])
        whole = len(waiting) - len(waiting) % self._block_records
        self._write(waiting.take(slice(0, whole)))
        self._waiting = waiting.take(slice(whole, None))

    def _write(self, records: Records) -> None:
        """Write whole blocks; the last one of the file may be padded."""
        size = self._block_records
        blocks = np.zeros(-(-len(records) // size), dtype=block_type(size))
        for number in range(len(blocks)):
            part = records.take(slice(number * size, (number + 1) * size))
            block, filled = blocks[number], len(part)
            block["hi"][:filled], block["lo"][:filled] = part.hi, part.lo
            block["content"][:filled], block["minute"][:filled] = part.content, part.minute
            self._starts.append(int(part.hi[0]))
            self._sums.append(xxh3_64_intdigest(block.tobytes()))
        if len(blocks):
            data = blocks.tobytes()
            self._disk.append(self._temporary, data)
            self._unsynced_bytes += len(data)
            if self._unsynced_bytes >= SYNC_BYTES:
                self._disk.sync(self._temporary)
                self._unsynced_bytes = 0

    def finish(self) -> SegmentEntry | None:
        """Complete the file and return its manifest entry; its name is durable then. None if nothing was added."""
        if not self._count:
            return None
        self._write(self._waiting)
        starts, sums = np.array(self._starts, np.uint64), np.array(self._sums, np.uint64)
        first, end = self._range
        foot = Footer(
            self._block_records, first, end, self._count, len(self._words), self._minute_min, self._minute_max,
            dedupe_segment.index_checksum(self._words, starts, sums),
        ).pack(self._log_id)  # fmt: skip
        self._disk.append(self._temporary, b"".join((self._words.tobytes(), starts.tobytes(), sums.tobytes(), foot)))
        self._disk.sync(self._temporary)
        self._disk.rename(self._temporary, self._directory / self._name)
        self._disk.sync_directory(self._directory)
        return SegmentEntry(self._name, first, end, foot[-8:].hex())
