"""The meters' columns of many events of one type at once (`v:`, `u:` and `d:`, see `core.frames`)."""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import msgspec
import numpy as np
import numpy.typing as npt
import orjson
import polars as pl

from core.frames import QUANTITY
from core.quantities import (
    decimal_of_scaled,
    double_text,
    scaled_of_double,
    scaled_of_integer,
    scaled_of_text,
)
from operators.decode_plan import BLOCK_LINES, MeterPlan, Path

Mask = npt.NDArray[np.bool_]
_FAILURES: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_INTEGER_END: Final = 10**18

Dimensions = tuple[tuple[str, Path], ...]
"""Names and paths, by name."""


@dataclass(slots=True)
class MeterColumns:
    """Columns of one type's events. `doubtful` ones belong to the slow path, whatever the columns say.

    `exceptions`: for each meter that could not read some accepted events, which they are.
    """

    columns: dict[str, pl.Series]
    doubtful: Mask
    exceptions: list[tuple[MeterPlan, npt.NDArray[np.int64]]]


class PropertyColumns(Protocol):
    """The properties of the events of one type, column by column. Asking may mark events as doubtful."""

    events: int

    def is_one_of(self, path: Path, allowed: frozenset[str]) -> Mask:
        """Tell which events have one of those texts as a dimension's text."""
        ...

    def quantities(self, path: Path) -> pl.Series:
        """Return the quantities, of either sign; null where it is none."""
        ...

    def counted(self, path: Path) -> pl.Series:
        """Return the texts that `unique_count` counts, null where there is none."""
        ...

    def dimensions(self, dimensions: Dimensions) -> pl.Series:
        """Return the canonical JSON text of the dimensions."""
        ...


def meter_columns(meters: tuple[MeterPlan, ...], batch: PropertyColumns, doubtful: Mask) -> MeterColumns:
    """Return the columns of all meters of a type. `doubtful` is what is doubtful already; `batch` may add to it."""
    columns: dict[str, pl.Series] = {}
    wanted_by_any = np.zeros(batch.events, dtype=np.bool_)
    read_by_any = np.zeros(batch.events, dtype=np.bool_)
    unread: list[tuple[MeterPlan, Mask]] = []
    for meter in meters:
        wanted = np.ones(batch.events, dtype=np.bool_)
        for path, allowed in meter.filters:
            wanted &= batch.is_one_of(path, allowed)
        values = _values(meter, batch)
        read = wanted & values.is_not_null().to_numpy()
        columns[meter.value_column] = only(values, read)
        columns[meter.dimensions_column] = only(batch.dimensions(meter.dimensions), read)
        wanted_by_any |= wanted
        read_by_any |= read
        if (wanted & ~read).any():
            unread.append((meter, wanted & ~read))
    # An event that nobody can read is refused; the slow path words the reason.
    doubtful |= wanted_by_any & ~read_by_any
    exceptions = [(meter, np.flatnonzero(rows & ~doubtful)) for meter, rows in unread]
    return MeterColumns(columns, doubtful, exceptions)


class TypeDecoder:
    """Reads the properties that the meters of one event type need. Holds no state between calls."""

    def __init__(self, meters: tuple[MeterPlan, ...]) -> None:
        self.meters = meters
        paths = {meter.value for meter in meters if meter.value is not None}
        paths |= {path for meter in meters for _, path in meter.dimensions}
        paths |= {path for meter in meters for path, _ in meter.filters}
        keys = sorted({path[0] for path in paths})
        self._field_by_key = {key: f"f{index}" for index, key in enumerate(keys)}
        properties = msgspec.defstruct(
            "Properties",
            [(name, Any, msgspec.field(name=key, default=None)) for key, name in self._field_by_key.items()],
            gc=False,
        )
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(properties)
        self._nothing = properties()

    def decode(self, data: list[bytes], doubtful: Mask) -> MeterColumns:
        """Return the columns for events whose `data` is given as compact JSON text.

        Guarantee: pure; every event that is not doubtful has the columns that the slow path gives it.
        `doubtful` are those that are already known to be.
        """
        doubtful = doubtful.copy()
        has_escapes = any(b"\\" in text for text in data)
        batch = _Properties(self._parse(data, doubtful), self._field_by_key, doubtful, has_escapes=has_escapes)
        return meter_columns(self.meters, batch, doubtful)

    def _parse(self, data: list[bytes], doubtful: Mask) -> list[Any]:
        properties: list[Any] = []
        for start in range(0, len(data), BLOCK_LINES):
            block = data[start : start + BLOCK_LINES]
            try:
                # Each text is one valid JSON value, so joining them by line feeds keeps them apart.
                properties += self._decoder.decode_lines(b"\n".join(block))
                continue
            except _FAILURES:
                pass  # some `data` is not an object or holds a number out of range: find out which
            for index, text in enumerate(block, start=start):
                try:
                    properties.append(self._decoder.decode(text))
                except _FAILURES:
                    doubtful[index] = True
                    properties.append(self._nothing)
        return properties


class _Properties:
    """The values at each path, as a list with one element per event; worked out once."""

    def __init__(self, structs: list[Any], field_by_key: dict[str, str], doubtful: Mask, *, has_escapes: bool) -> None:
        self.events = len(structs)
        self.has_escapes = has_escapes
        self._structs = structs
        self._field_by_key = field_by_key
        self._doubtful = doubtful
        self._values: dict[Path, list[Any]] = {}
        self._texts: dict[Path, list[str]] = {}
        self._text_columns: dict[Path, pl.Series] = {}
        self._quantities: dict[Path, pl.Series] = {}
        self._dimensions: dict[Dimensions, pl.Series] = {}

    def values(self, path: Path) -> list[Any]:
        """Return the values as parsed; None if there is none or it is null."""
        found = self._values.get(path)
        if found is None:
            found = list(map(operator.attrgetter(self._field_by_key[path[0]]), self._structs))
            for key in path[1:]:
                found = [value.get(key) if type(value) is dict else None for value in found]
            self._values[path] = found
        return found

    def texts(self, path: Path) -> list[str]:
        """Return the values as dimension texts. Objects and arrays make the event doubtful."""
        found = self._texts.get(path)
        if found is None:
            values = self.values(path)
            kinds = set(map(type, values))
            if kinds & {dict, list}:
                self._doubtful |= np.array([type(value) in (dict, list) for value in values], dtype=np.bool_)
            found = values if kinds == {str} else [_text(value) for value in values]
            self._texts[path] = found
        return found

    def text_column(self, path: Path) -> pl.Series:
        """Return the dimension texts as a column."""
        found = self._text_columns.get(path)
        if found is None:
            found = self._text_columns[path] = pl.Series(self.texts(path), dtype=pl.String)
        return found

    def is_one_of(self, path: Path, allowed: frozenset[str]) -> Mask:
        """Tell which events have one of those texts as a dimension's text."""
        return np.array([text in allowed for text in self.texts(path)], dtype=np.bool_)

    def quantities(self, path: Path) -> pl.Series:
        """Return the values as quantities, of either sign; null where it is none."""
        found = self._quantities.get(path)
        if found is None:
            found = self._quantities[path] = _quantities(self.values(path))
        return found

    def counted(self, path: Path) -> pl.Series:
        """Return the texts that are counted, null where there is none."""
        values = self.values(path)
        if set(map(type, values)) == {str}:
            return pl.Series(values, dtype=pl.String)
        counted = [None if value is None or type(value) in (dict, list) else _text(value) for value in values]
        return pl.Series(counted, dtype=pl.String)

    def dimensions(self, dimensions: Dimensions) -> pl.Series:
        """Return the canonical JSON text of the dimensions."""
        found = self._dimensions.get(dimensions)
        if found is None:
            found = self._dimensions[dimensions] = _dimensions(dimensions, self)
        return found


def _text(value: Any) -> str:
    kind = type(value)
    if kind is str:
        return str(value)
    if kind is bool:
        return "true" if value else "false"
    if kind is float:
        return double_text(value)
    return str(value) if kind is int else ""


def only(series: pl.Series, rows: Mask) -> pl.Series:
    """Keep the values of those rows; the others become null."""
    if rows.all():
        return series
    return pl.select(pl.when(pl.Series(rows)).then(series)).to_series()


def _values(meter: MeterPlan, batch: PropertyColumns) -> pl.Series:
    if meter.value is None:
        return pl.repeat(1, batch.events, dtype=pl.Int64, eager=True).cast(QUANTITY)
    if meter.counts_unique:
        return batch.counted(meter.value)
    series = batch.quantities(meter.value)
    if meter.allow_negative or series.null_count() == len(series) or not bool(series.min() < 0):  # type: ignore[operator]
        return series
    return only(series, (series >= 0).fill_null(value=False).to_numpy())


# --- dimensions --------------------------------------------------------------------------------------------


def _dimensions(dimensions: Dimensions, batch: _Properties) -> pl.Series:
    """Return the canonical JSON text of every event's dimensions."""
    if dimensions and batch.has_escapes:
        names = [name for name, _ in dimensions]
        keys = zip(*(batch.texts(path) for _, path in dimensions), strict=True)
        texts = [orjson.dumps(dict(zip(names, key, strict=True))).decode() for key in keys]
        return pl.Series(texts, dtype=pl.String)
    # Without a backslash in the JSON no text holds anything that has to be escaped.
    return dimensions_column(dimensions, batch.text_column, batch.events)


def dimensions_column(dimensions: Dimensions, text_column: Callable[[Path], pl.Series], events: int) -> pl.Series:
    """Return the canonical JSON text of dimensions whose texts hold nothing that has to be escaped."""
    if not dimensions:
        return pl.repeat("{}", events, dtype=pl.String, eager=True)
    # Names are sorted in the plan.
    pieces: list[pl.Expr | pl.Series] = []
    for name, path in dimensions:
        before = '","' if pieces else '{"'
        pieces += [pl.lit(f'{before}{orjson.dumps(name).decode()[1:-1]}":"'), text_column(path)]
    return pl.select(pl.concat_str(*pieces, pl.lit('"}'))).to_series()


# --- quantities --------------------------------------------------------------------------------------------

# What the column cast reads exactly, without rounding and below the limit.
_PLAIN: Final = r"^-?[0-9]{1,18}(?:\.[0-9]{1,12})?$"


def _quantities(values: list[Any]) -> pl.Series:
    series = _integers(values) if set(map(type, values)) == {int} else None
    return _mixed(values) if series is None else series


def _integers(values: list[Any]) -> pl.Series | None:
    try:
        integers = np.array(values, dtype=np.int64)
    except OverflowError:
        return None
    good = (integers > -_INTEGER_END) & (integers < _INTEGER_END)
    if good.all():
        return pl.Series(integers, dtype=pl.Int64).cast(QUANTITY)
    return only(pl.Series(np.where(good, integers, 0), dtype=pl.Int64).cast(QUANTITY), good)


def _mixed(values: list[Any]) -> pl.Series:
    """Read strings, integers and doubles by their text; what is not plain is read one by one."""
    texts = values if set(map(type, values)) == {str} else [_number_or_text(value) for value in values]
    text = pl.Series(texts, dtype=pl.String)
    plain = text.str.contains(_PLAIN).fill_null(value=False)
    quantities = only(text, plain.to_numpy()).cast(QUANTITY)
    special = np.flatnonzero((text.is_not_null() & ~plain).to_numpy())
    if not len(special):
        return quantities
    scaled = [_scaled(values[index]) for index in special.tolist()]
    found = pl.Series([None if one is None else decimal_of_scaled(one) for one in scaled], dtype=QUANTITY)
    return quantities.scatter(special, found)


def _number_or_text(value: Any) -> str | None:
    kind = type(value)
    if kind is str:
        return str(value)
    return repr(value) if kind is float or kind is int else None


def _scaled(value: Any) -> int | None:
    if type(value) is str:
        return scaled_of_text(value)
    return scaled_of_double(value) if type(value) is float else scaled_of_integer(value)
