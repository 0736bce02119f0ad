"""Columns of what `events.read` found: texts are copied from the bytes at once, quantities are taken as they are."""

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from core.frames import QUANTITY
from operators.scan.words import PADDING_BYTES, compiled, copy

I32 = npt.NDArray[np.int32]


@compiled
def _gather(text: Any, begins: Any, offsets: Any, out: Any) -> None:
    """Copy the texts that begin there one behind the other; `offsets` says where each goes."""
    for row in range(len(begins)):
        copy(text, begins[row], offsets[row + 1] - offsets[row], out, offsets[row])


def texts(text: npt.NDArray[np.uint8], begins: I32, sizes: I32) -> pl.Series:
    """Return the parts of a padded, valid text as a String column."""
    offsets = np.zeros(len(begins) + 1, dtype=np.int64)
    np.cumsum(sizes, dtype=np.int64, out=offsets[1:])
    out = np.empty(int(offsets[-1]) + PADDING_BYTES, dtype=np.uint8)
    _gather(text, begins, offsets, out)
    return _column(pa.large_string(), offsets, _buffer(out))


def _column(kind: pa.DataType, offsets: npt.NDArray[np.int64], values: pa.Buffer) -> pl.Series:
    array = pa.Array.from_buffers(kind, len(offsets) - 1, [None, _buffer(offsets), values])
    return _series(array)


def quantities(words: npt.NDArray[np.uint64]) -> pl.Series:
    """Return 128-bit integers, the lower word first, as quantities scaled by 10^12."""
    whole = np.ascontiguousarray(words)
    array = pa.Array.from_buffers(pa.decimal128(QUANTITY.precision, QUANTITY.scale), len(whole), [None, _buffer(whole)])
    return _series(array)


def _buffer(array: Any) -> pa.Buffer:
    return pa.py_buffer(array)


def _series(array: "pa.Array[Any]") -> pl.Series:
    series = pl.from_arrow(array)
    if not isinstance(series, pl.Series):  # pragma: no cover  an array is a column
        message = f"expected a column, not {type(series)}"
        raise TypeError(message)
    return series
