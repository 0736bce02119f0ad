"""Events as places in one text: millions of them pass through without an object for each."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from core.reasons import RAW_BYTES_MAX, Reason

Places = npt.NDArray[np.int64]
RejectRow = tuple[int, int, int, int, str, str, bytes, bool]
"""A row of REJECT_SCHEMA."""

DETAIL_CHARS_MAX: Final = 512
PADDING_BYTES: Final = 16
"""So many bytes stand behind the last line, since compiled code reads eight at a time."""
_VIEW_BYTES_MAX: Final = (1 << 31) - 1
_SHORT_BYTES: Final = 12
"""Texts up to this size stand in their view itself; none of them is an event."""


@dataclass
class Lines:
    """Events as bytes without surrounding whitespace, in position order, with their positions.

    `entry_index` is the place of the line in its entry, blank lines counted. Line n is `text[begins[n]:ends[n]]`.
    """

    stream: npt.NDArray[np.uint16]
    entry_ms: npt.NDArray[np.int64]
    entry_seq: npt.NDArray[np.int64]
    entry_index: npt.NDArray[np.int32]
    text: bytes
    begins: Places
    ends: Places
    rejects: list[RejectRow] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.begins)

    def line(self, row: int) -> bytes:
        """Return one line."""
        return self.text[self.begins[row] : self.ends[row]]

    def raw(self, rows: Places) -> list[bytes]:
        """Return some lines."""
        text = self.text
        return [
            text[begin:end] for begin, end in zip(self.begins[rows].tolist(), self.ends[rows].tolist(), strict=True)
        ]

    @cached_property
    def is_utf8(self) -> bool:
        """Tell whether all lines are valid text."""
        if self.text.isascii():
            return True
        try:
            self.text.decode("utf-8")
        except UnicodeDecodeError:
            return False
        return True

    def column(self) -> pl.Series:
        """Return the lines as a column, usually without a copy: String if all are valid, else Binary.

        Lines too short for an event are empty in it.
        """
        if len(self.text) > _VIEW_BYTES_MAX:
            return pl.Series(self.raw(np.arange(len(self))), dtype=pl.Binary)
        sizes = self.ends - self.begins
        text = np.frombuffer(self.text, dtype=np.uint8)
        views = np.zeros((len(sizes), 4), dtype=np.uint32)
        views[:, 0] = sizes
        for place in range(4):  # the first bytes, the number of the buffer (0), the offset in it
            views[:, 1] |= text[self.begins + place].astype(np.uint32) << np.uint32(8 * place)
        views[:, 3] = self.begins
        views[sizes <= _SHORT_BYTES] = 0
        kind = pa.string_view() if self.is_utf8 else pa.binary_view()
        buffers = [None, pa.py_buffer(views.tobytes()), pa.py_buffer(self.text)]
        series = pl.from_arrow(pa.Array.from_buffers(kind, len(sizes), buffers))
        if not isinstance(series, pl.Series):  # pragma: no cover  an array is a column
            message = f"expected a column, not {type(series)}"
            raise TypeError(message)
        return series

    def reject(self, row: int, reason: Reason, detail: str, *, counted: bool = True) -> None:
        """Add a reject for the event of that row."""
        position = (
            int(self.entry_ms[row]),
            int(self.stream[row]),
            int(self.entry_seq[row]),
            int(self.entry_index[row]),
        )
        self.rejects.append(reject_row(position, reason, detail, self.line(row), counted=counted))


def reject_row(
    position: tuple[int, int, int, int], reason: Reason, detail: str, raw: bytes, *, counted: bool
) -> RejectRow:
    """Return a row of REJECT_SCHEMA; long details and raw bytes are cut, the latter is said."""
    detail = detail[:DETAIL_CHARS_MAX]
    if len(raw) > RAW_BYTES_MAX:
        detail = f"{detail} (raw cut at {RAW_BYTES_MAX} of {len(raw)} bytes)"
    return (*position, reason, detail, raw[:RAW_BYTES_MAX], counted)
