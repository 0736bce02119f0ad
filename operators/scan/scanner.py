"""The compiled path of decode: plain events of a batch to columns at once (see `operators.decode_scan`)."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from core.errors import InvariantViolation
from core.reasons import CONTROL_TYPE, VOID_TYPE
from operators.decode_assemble import Decoded, Part
from operators.decode_columns import Dimensions, Mask, dimensions_column, meter_columns, only
from operators.decode_lines import Lines
from operators.decode_plan import ATTRIBUTE_CHARS_MAX, SUBJECT_CHARS_MAX, MeterPlan, Path, RevisionPlan
from operators.decode_slow import Rejected, decode_event
from operators.scan import columns
from operators.scan.attributes import ATTRIBUTES, ID, SOURCE, SUBJECT, TYPE
from operators.scan.events import Limits, Wanted, read
from operators.scan.members import AS_QUANTITY, AS_TEXT, MEMBERS_MAX
from operators.scan.tokens import NOTHING, NUMBER, STRING
from operators.scan.words import PADDING_BYTES
from operators.scan.xxh3 import SECRET, STRIPES

TEXT_BYTES_MAX: Final = (1 << 31) - 1
VALUES_BYTES_MAX: Final = 1 << 30
"""Room that is asked for, of which only what is written to is taken; with more than this others decode the batch."""
_VALUE_BYTES: Final = 25
_SAMPLE: Final = (
    b'{"specversion":"1.0","id":"1","source":"/check","type":"meterbridge.check","subject":"S\xc3\xa9","x":[{},null],'
    b'"time":"2026-10-31T10:59:59.25+01:00","data": {"a": [1, "b c"], "d": -0.5}}'
)
_SCRATCH_BYTES: Final = 4 * (ATTRIBUTE_CHARS_MAX + 16) + PADDING_BYTES


@dataclass(frozen=True, slots=True)
class _Found:
    """What `read` wrote: by event, by attribute and event, by property and event of its type."""

    text: npt.NDArray[np.uint8]
    row: npt.NDArray[np.int64]
    begin: npt.NDArray[np.int32]
    size: npt.NDArray[np.int32]
    event_us: npt.NDArray[np.int64]
    high: npt.NDArray[np.uint64]
    low: npt.NDArray[np.uint64]
    content: npt.NDArray[np.uint64]
    type: npt.NDArray[np.int16]
    kind: npt.NDArray[np.uint8]
    value_begin: npt.NDArray[np.int32]
    value_size: npt.NDArray[np.int32]
    quantity: npt.NDArray[np.uint64]

    def attribute(self, name: int) -> pl.Series:
        """Return an attribute of all events."""
        return columns.texts(self.text, self.begin[name], self.size[name])


class Scanner:
    """Reads the plain events of one revision. Holds no state between calls."""

    def __init__(self, plan: RevisionPlan) -> None:
        self._types = tuple(sorted(plan.meters_by_type))
        self._meters = tuple(plan.meters_by_type[name] for name in self._types)
        self._uses = tuple(_uses(meters) for meters in self._meters)
        self._wanted = _wanted(self._types, self._uses)
        self._properties = len(self._wanted.properties)
        self._limits = Limits(
            plan.rules.event_bytes_max,
            ATTRIBUTE_CHARS_MAX,
            SUBJECT_CHARS_MAX,
            plan.rules.future_s * 1_000_000,
            plan.rules.too_old_days * 86_400_000_000,
        )

    def decode(self, lines: Lines) -> Decoded | None:
        """Return the plain events with all columns; None if there are none. What it leaves out others decode.

        Guarantee: pure; every event in the answer is one that the slow path accepts with the same columns.
        """
        values_bytes = len(lines) * self._properties * _VALUE_BYTES
        if len(lines.text) > TEXT_BYTES_MAX or values_bytes > VALUES_BYTES_MAX:
            return None
        found = self._read(lines)
        if not len(found.row):
            return None
        kept = np.ones(len(found.row), dtype=np.bool_)
        parts: list[tuple[pl.DataFrame, npt.NDArray[np.int64]]] = []
        for number, places in _by_type(found.type, len(self._types)):
            parts.append((self._meter(found, lines, number, places, kept), places))
        rows = np.where(kept, found.row, len(lines))
        return Decoded(_base(found), rows, [Part(frame, rows[places]) for frame, places in parts])

    def _read(self, lines: Lines) -> _Found:
        events, properties = len(lines), self._properties
        text = np.frombuffer(lines.text, dtype=np.uint8)
        attributes = (
            np.empty(events, np.int64),
            np.empty((ATTRIBUTES, events), np.int32),
            np.empty((ATTRIBUTES, events), np.int32),
            np.empty(events, np.int64),
            np.empty(events, np.uint64),
            np.empty(events, np.uint64),
            np.empty(events, np.uint64),
            np.empty(events, np.int16),
        )
        values = (
            np.empty((properties, events), np.uint8),
            np.empty((properties, events), np.int32),
            np.empty((properties, events), np.int32),
            np.empty((properties, events, 2), np.uint64),
        )
        count = read(
            text,
            lines.begins,
            lines.ends,
            np.ascontiguousarray(lines.entry_ms, dtype=np.int64),
            lines.is_utf8,
            self._wanted,
            self._limits,
            SECRET,
            np.empty(int((lines.ends - lines.begins).max(initial=0)) + _SCRATCH_BYTES, np.uint8),
            np.empty(STRIPES, np.uint64),
            np.zeros((ATTRIBUTES, 3), np.int64),
            np.empty((2 * MEMBERS_MAX, 5), np.int64),
            np.zeros(len(self._wanted.types), np.int64),
            attributes,
            values,
        )
        arrays: list[Any] = [*(array[..., :count] for array in attributes), *values]
        return _Found(text, *arrays)

    def _meter(
        self, found: _Found, lines: Lines, number: int, places: npt.NDArray[np.int64], kept: Mask
    ) -> pl.DataFrame:
        """Return the meters' columns of the events of one type; those in doubt are taken from `kept`."""
        batch = _Properties(found, self._uses[number], int(self._wanted.types[number + 1, 2]), len(places))
        metered = meter_columns(self._meters[number], batch, np.zeros(len(places), dtype=np.bool_))
        kept[places[metered.doubtful]] = False
        for meter, unread in metered.exceptions:
            for row in found.row[places[unread]].tolist():
                lines.reject(row, "invalid_quantity", meter.unreadable_detail, counted=False)
        return pl.DataFrame(metered.columns)


class _Properties:
    """The properties of the events of one type, as `meter_columns` asks for them."""

    def __init__(self, found: _Found, uses: dict[Path, int], first: int, events: int) -> None:
        self.events = events
        self._found = found
        self._place_of = {path: first + index for index, path in enumerate(uses)}
        self._texts: dict[Path, pl.Series] = {}
        self._quantities: dict[Path, pl.Series] = {}
        self._dimensions: dict[Dimensions, pl.Series] = {}

    def _kind(self, path: Path) -> npt.NDArray[np.uint8]:
        return self._found.kind[self._place_of[path], : self.events]

    def _text(self, path: Path) -> pl.Series:
        series = self._texts.get(path)
        if series is None:
            place = self._place_of[path]
            begin, size = self._found.value_begin[place], self._found.value_size[place]
            series = columns.texts(self._found.text, begin[: self.events], size[: self.events])
            self._texts[path] = series
        return series

    def is_one_of(self, path: Path, allowed: frozenset[str]) -> Mask:
        """Tell which events have one of those texts as a dimension's text."""
        mask: Mask = self._text(path).is_in(sorted(allowed)).to_numpy().copy()
        return mask

    def quantities(self, path: Path) -> pl.Series:
        """Return the quantities, of either sign; null where it is none."""
        series = self._quantities.get(path)
        if series is None:
            kind = self._kind(path)
            words = self._found.quantity[self._place_of[path], : self.events]
            series = only(columns.quantities(words), (kind == STRING) | (kind == NUMBER))
            self._quantities[path] = series
        return series

    def counted(self, path: Path) -> pl.Series:
        """Return the texts that are counted, null where there is nothing."""
        return only(self._text(path), self._kind(path) != NOTHING)

    def dimensions(self, dimensions: Dimensions) -> pl.Series:
        """Return the canonical JSON text of the dimensions; a plain event has nothing to be escaped."""
        series = self._dimensions.get(dimensions)
        if series is None:
            series = self._dimensions[dimensions] = dimensions_column(dimensions, self._text, self.events)
        return series


def prove(scanner: Scanner, plan: RevisionPlan) -> None:
    """Decode an event with it and one by one, and compare: whatever does not compile here, or not to the same, shows.

    :raises InvariantViolation: they differ.
    """
    entry_ms = np.array([1_793_440_800_000])
    zero = np.zeros(1, dtype=np.int32)
    begins, text = zero.astype(np.int64), _SAMPLE + bytes(PADDING_BYTES)
    lines = Lines(zero.astype(np.uint16), entry_ms, begins, zero, text, begins, begins + len(_SAMPLE))
    found, expected = scanner.decode(lines), decode_event(_SAMPLE, int(entry_ms[0]), plan)
    read = None if found is None else found.base.row(0, named=True)
    if isinstance(expected, Rejected) or read != {name: expected.columns[name] for name in read or ()}:
        message = "compiled code decodes a sample event in another way than the reference"
        raise InvariantViolation(message)


def _uses(meters: tuple[MeterPlan, ...]) -> dict[Path, int]:
    """Return the properties that meters of one type read, and for what."""
    uses: dict[Path, int] = {}
    for meter in meters:
        if meter.value is not None:
            uses[meter.value] = uses.get(meter.value, 0) | (AS_TEXT if meter.counts_unique else AS_QUANTITY)
        for path in (*(path for _, path in meter.dimensions), *(path for path, _ in meter.filters)):
            uses[path] = uses.get(path, 0) | AS_TEXT
    return uses


def _wanted(types: tuple[str, ...], uses: tuple[dict[Path, int], ...]) -> Wanted:
    """Return what is wanted in arrays; the first type is that of voids, the last that of control totals."""
    names: list[bytes] = []

    def place(name: str) -> tuple[int, int]:
        names.append(name.encode())
        return sum(map(len, names[:-1])), len(names[-1])

    type_rows = [(*place(VOID_TYPE), 0, 0)]
    property_rows: list[tuple[int, int, int]] = []
    key_rows: list[tuple[int, int]] = []
    for name, of_type in zip(types, uses, strict=True):
        first = len(property_rows)
        for path, use in of_type.items():
            property_rows.append((len(key_rows), len(key_rows) + len(path), use))
            key_rows.extend(place(key) for key in path)
        type_rows.append((*place(name), first, len(property_rows)))
    type_rows.append((*place(CONTROL_TYPE), 0, 0))
    return Wanted(
        np.frombuffer(b"".join([*names, bytes(PADDING_BYTES)]), dtype=np.uint8),
        np.array(type_rows, dtype=np.int64).reshape(-1, 4),
        np.array(property_rows, dtype=np.int64).reshape(-1, 3),
        np.array(key_rows, dtype=np.int64).reshape(-1, 2),
    )


def _by_type(numbers: npt.NDArray[np.int16], types: int) -> list[tuple[int, npt.NDArray[np.int64]]]:
    """Return each metered type that occurs, from 0, with the places of its events. VOID stands before the first."""
    counts = np.bincount(numbers + 1, minlength=types + 2)[2:]
    if counts.max(initial=0) == len(numbers):
        return [(int(counts.argmax()), np.arange(len(numbers)))]
    return [(number, np.flatnonzero(numbers == number + 1)) for number in np.flatnonzero(counts).tolist()]


def _base(found: _Found) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "source": found.attribute(SOURCE),
            "id": found.attribute(ID),
            "type": found.attribute(TYPE),
            "tenant": found.attribute(SUBJECT),
            "event_time_us": pl.Series(found.event_us),
            "usage_time_us": pl.Series(found.event_us),
            "identity_hi": pl.Series(found.high),
            "identity_lo": pl.Series(found.low),
            "content": pl.Series(found.content),
        }
    ).with_columns(void_content=pl.lit(0, dtype=pl.UInt64), sign=pl.lit(1, dtype=pl.Int8))
