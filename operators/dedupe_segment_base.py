"""What sealed segments of every format share: blocks with checksums, behind a footer that the manifest names."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from xxhash import xxh3_64_intdigest

from operators.dedupe_manifest import SegmentEntry
from operators.dedupe_run import U64, Places
from operators.dedupe_tail import damaged


class SegmentBase:
    """A segment's length, times and blocks, each of which is checked when it is first read."""

    __slots__ = (
        "_block_records", "_blocks", "_checked", "_count", "_sums",
        "entry", "file_bytes", "minute_max", "minute_min", "path",
    )  # fmt: skip

    def __init__(self, path: Path, entry: SegmentEntry, blocks: npt.NDArray[Any], sums: U64, foot: Any) -> None:
        self.path, self.entry = path, entry
        self._blocks, self._sums = blocks, sums
        self._count: int = foot.count
        self._block_records: int = foot.block_records
        self.file_bytes: int = foot.file_bytes
        """Length of the file."""
        self.minute_min: int = foot.minute_min
        """Earliest arrival minute in the segment."""
        self.minute_max: int = foot.minute_max
        """Latest arrival minute in the segment."""
        self._checked = np.zeros(len(blocks), dtype=np.bool_)

    def __len__(self) -> int:
        return self._count

    def _columns(self, begin: int, end: int, names: tuple[str, ...]) -> list[npt.NDArray[Any]]:
        """Return columns of the records from place `begin` to `end`, checked."""
        size = self._block_records
        first, last = begin // size, (end - 1) // size
        self._check(np.arange(first, last + 1))
        blocks = self._blocks[first : last + 1]
        part = slice(begin - first * size, end - first * size)
        return [blocks[name].reshape(-1)[part] for name in names]

    def _check(self, blocks: Places) -> None:
        for block in np.unique(blocks[~self._checked[blocks]]).tolist():
            if xxh3_64_intdigest(self._blocks[block].tobytes()) != int(self._sums[block]):
                offset = block * self._blocks.dtype.itemsize
                raise damaged(self.path, offset, f"the checksum of block {block} differs")
            self._checked[block] = True


def check_footer(path: Path, stored: bytes, foot: Any, log_id: bytes, entry: SegmentEntry, file_bytes: int) -> None:
    """Compare a footer, its bytes and the file's length with each other and with the manifest.

    :raises StateMismatch: they differ.
    """
    same_range = (foot.first, foot.end) == (entry.first, entry.end)
    if foot.pack(log_id) != stored or stored[-8:].hex() != entry.checksum or not same_range:
        raise damaged(path, file_bytes - len(stored), "the footer is not the one that the manifest names")
    if foot.file_bytes != file_bytes:
        raise damaged(path, file_bytes, f"the file should be {foot.file_bytes} bytes long")
