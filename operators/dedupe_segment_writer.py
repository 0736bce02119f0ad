"""Writes sealed segments of the id log from sorted parts; in memory stays 4 bytes a record, the prefixes."""

from pathlib import Path
from typing import Final

import numpy as np
from xxhash import xxh3_64_intdigest

from operators import dedupe_layout, dedupe_segment
from operators.dedupe_disk import Disk
from operators.dedupe_layout import BLOCK_RECORDS_MAX, SHORT_MINUTES, Footer, block_type
from operators.dedupe_manifest import SegmentEntry
from operators.dedupe_run import EMPTY, U32, Records, concatenate

SYNC_BYTES: Final = 32 << 20
"""Written bytes after which the file is synced, so that no single sync takes long."""
_BLOCK_RECORDS_MIN: Final = 4
"""Keeps the sections behind the blocks aligned."""


class SegmentWriter:
    """Writes one segment. The bytes are a function of the range, the records and the bounds alone.

    If the process dies before `finish` returned and the manifest names the file, it is removed at the next start.

    :param count_max: at least as many as records will come.
    :param minutes: no arrival will be before the first or after the second of them.
    """

    def __init__(
        self,
        disk: Disk,
        directory: Path,
        log_id: bytes,
        first: int,
        end: int,
        count_max: int,
        minutes: tuple[int, int],
    ) -> None:
        self._disk = disk
        self._directory = directory
        self._log_id = log_id
        self._range = (first, end)
        self._name = dedupe_segment.file_name(first, end)
        self._temporary = directory / f"{self._name}.tmp"
        size = max(_BLOCK_RECORDS_MIN, 1 << max(0, count_max - 1).bit_length())
        self._block_records = min(BLOCK_RECORDS_MAX, size)
        self._bucket_bits = dedupe_layout.bucket_bits(count_max)
        self._minute_base = minutes[0]
        self._minute_bytes = 2 if minutes[1] - minutes[0] < SHORT_MINUTES else 4
        self._prefixes: list[U32] = []
        self._in_bucket = np.zeros(1 << self._bucket_bits, dtype=np.int64)
        self._sums: list[int] = []
        self._waiting = EMPTY
        self._minute_min, self._minute_max = 0xFFFF_FFFF, 0
        self._count = self._unsynced_bytes = 0
        disk.remove(self._temporary)

    def add(self, records: Records) -> None:
        """Add records behind those added before: sorted by digest, each id once over all parts."""
        if not len(records):
            return
        prefixes = records.hi >> np.uint64(32 - self._bucket_bits)
        self._prefixes.append((prefixes & np.uint64(0xFFFF_FFFF)).astype(np.uint32))
        buckets = (prefixes >> np.uint64(32)).astype(np.int64)
        first = int(buckets[0])
        sizes = np.bincount(buckets - first)
        self._in_bucket[first : first + len(sizes)] += sizes
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
        blocks = np.zeros(-(-len(records) // size), dtype=block_type(size, self._bucket_bits, self._minute_bytes))
        rest = records.hi & np.uint64((1 << (32 - self._bucket_bits)) - 1)
        minute = records.minute - np.uint32(self._minute_base)
        for number in range(len(blocks)):
            part = slice(number * size, (number + 1) * size)
            block, filled = blocks[number], len(records.lo[part])
            block["lo"][:filled], block["content"][:filled] = records.lo[part], records.content[part]
            block["rest"][:filled], block["minute"][:filled] = rest[part], minute[part]
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
        offsets = np.concatenate(([0], np.cumsum(self._in_bucket))).astype(np.uint32)
        sections = (np.concatenate(self._prefixes), offsets, np.array(self._sums, np.uint64))
        first, end = self._range
        foot = Footer(
            self._block_records, first, end, self._count, self._bucket_bits, self._minute_bytes, self._minute_base,
            self._minute_min, self._minute_max, dedupe_layout.index_checksum(sections),
        ).pack(self._log_id)  # fmt: skip
        self._disk.append(self._temporary, b"".join((*(section.tobytes() for section in sections), foot)))
        self._disk.sync(self._temporary)
        self._disk.rename(self._temporary, self._directory / self._name)
        self._disk.sync_directory(self._directory)
        return SegmentEntry(self._name, first, end, foot[-8:].hex())
