"""Meters as ClickHouse expressions over `usage_events`: an account of what was metered that is not the flow's own.

The flow reads events in Python; these expressions read the stored raw events with ClickHouse's JSON functions. Where
both give the same counts and sums, neither has a fault of its own. What differs in grammar by design is left out of
comparison by value and counted: see `inexact`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from config.meters import TAKES_VOIDS, Meter
from core.reasons import VOID_TYPE

LIMIT: Final = "toDecimal128('999999999999999999.999999999999', 12)"
"""The largest quantity there is."""


@dataclass
class MeterSql:
    """Expressions for one meter; they share the parameters, which go with the query.

    `applies`: the event (or the void of one) is of the meter's type and passes its filter. `sign`: 1, or -1 for a
    void. `text`: the value as text. `value`: Decimal(38, 12), null where it cannot be read. `inexact`: the value has
    more places than Decimal(38, 12) or an exponent, so the two roundings may differ. `dimensions`: a map of texts.
    """

    applies: str = ""
    sign: str = ""
    text: str = ""
    value: str = ""
    inexact: str = ""
    dimensions: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, meter: Meter, prefix: str = "m") -> "MeterSql":
        """Return the expressions; parameter names begin with the prefix."""
        sql = cls()
        is_void = f"(type = {sql._string(prefix, VOID_TYPE)})"
        original = "JSONExtractRaw(data, 'data')"
        sql.sign = f"if({is_void}, -1, 1)"
        event_type = f"if({is_void}, JSONExtractString({original}, 'type'), toString(type))"
        body = f"if({is_void}, JSONExtractRaw({original}, 'data'), {original})"
        sql._read(meter, prefix, event_type, lambda path: sql._text(prefix, body, path))
        pairs = [
            f"{sql._string(prefix, name)}, {sql._text(prefix, body, path)}"
            for name, path in sorted(meter.group_by.items())
        ]
        sql.dimensions = f"map({', '.join(pairs)})" if pairs else "CAST(map(), 'Map(String, String)')"
        return sql

    def _read(self, meter: Meter, prefix: str, event_type: str, text_at: Callable[[str], str]) -> None:
        """Add the expressions that look at texts, which `text_at` gives by path."""
        conditions = [f"{event_type} = {self._string(prefix, meter.event_type)}"]
        for name, allowed in meter.filter.items():
            conditions.append(f"{text_at(meter.filter_path(name))} IN {self._strings(prefix, allowed)}")
        self.applies = f"({' AND '.join(conditions)})"
        self.text, self.value, self.inexact = "'1'", "toDecimal128(1, 12)", "0"
        if meter.value is not None:
            self.text = text_at(meter.value)
            self.value = f"toDecimal128OrNull({self.text}, 12)"
            point = f"position({self.text}, '.')"
            long = f"({point} > 0 AND length({self.text}) - {point} > 12)"
            self.inexact = f"({long} OR positionCaseInsensitive({self.text}, 'e') > 0)"

    def readable(self, meter: Meter) -> str:
        """Return the condition under which the flow takes the value, where the event is of the meter's type."""
        if meter.aggregation == "unique_count":
            return f"({self.text} != '')"
        if meter.value is None:
            return "1"
        lower = f"-{LIMIT}" if meter.allow_negative else "0"
        return f"ifNull({self.value} >= {lower} AND {self.value} <= {LIMIT}, 0)"

    def _add(self, prefix: str, value: Any) -> str:
        name = f"{prefix}{len(self.parameters)}"
        self.parameters[name] = value
        return name

    def _string(self, prefix: str, value: str) -> str:
        return f"{{{self._add(prefix, value)}:String}}"

    def _strings(self, prefix: str, values: tuple[str, ...]) -> str:
        return f"{{{self._add(prefix, list(values))}:Array(String)}}"

    def _text(self, prefix: str, body: str, path: str) -> str:
        """Return the property's text: strings unquoted, nothing or null as "", the rest as it is written."""
        keys = ", ".join(self._string(prefix, key) for key in path.removeprefix("$.").split("."))
        raw = f"JSONExtractRaw({body}, {keys})"
        return f"multiIf({raw} = 'null', '', startsWith({raw}, '\"'), JSONExtractString({body}, {keys}), {raw})"


@dataclass
class EventTexts:
    """One reading of each event for many meters: `columns` of a subquery, which the meters' expressions then use.

    A function of JSON parses the whole event anew, so all properties that any meter looks at are taken by one.
    Columns: `sign` (1, or -1 for a void), `event_type` (of a void, its original's) and `texts`.
    """

    columns: str
    types: list[str]
    parameters: dict[str, Any]
    _deep: dict[str, str]

    @classmethod
    def of(cls, meters: Iterable[Meter]) -> "EventTexts":
        """Return the reading that serves these meters."""
        known = list(meters)
        paths = {path for meter in known for path in _paths(meter)}
        flat = sorted(path.removeprefix("$.") for path in paths if path.count(".") == 1)
        # An element of a tuple is also found by its place in a JSON array: `data` is never one, what is deeper may be.
        deep = {path: f"deep_{number}" for number, path in enumerate(sorted(paths)) if path.count(".") > 1}
        shape = f"Tuple({', '.join(f'`{name}` String' for name in ['', *flat] if name)})" if flat else ""
        parameters: dict[str, Any] = {"void_type": VOID_TYPE}
        columns = [
            "type = {void_type:String} AS is_void",
            "if(is_void, -1, 1) AS sign",
            "if(is_void, JSONExtractString(data, 'data', 'type'), toString(type)) AS event_type",
        ]
        if shape:
            void = f"JSONExtract(data, 'data', 'data', '{shape}')"
            columns.append(f"if(is_void, {void}, JSONExtract(data, 'data', '{shape}')) AS texts")
        for path, name in deep.items():
            keys = ", ".join(f"'{key}'" for key in path.removeprefix("$.").split("."))
            raw = f"if(is_void, JSONExtractRaw(data, 'data', 'data', {keys}), JSONExtractRaw(data, 'data', {keys}))"
            unquoted = f"JSONExtractString({name}_raw)"
            columns += [
                f"{raw} AS {name}_raw",
                f"multiIf({name}_raw = 'null', '', startsWith({name}_raw, '\"'), {unquoted}, {name}_raw) AS {name}",
            ]
        types = sorted({VOID_TYPE, *(meter.event_type for meter in known)})
        return cls(", ".join(columns), types, parameters, deep)

    def meter(self, meter: Meter, prefix: str) -> MeterSql:
        """Return the meter's expressions over the columns; `dimensions` is left out."""
        sql = MeterSql(sign="sign")
        sql._read(
            meter, prefix, "event_type", lambda path: self._deep.get(path) or f"tupleElement(texts, '{path[2:]}')"
        )
        return sql


def _paths(meter: Meter) -> set[str]:
    paths = {meter.filter_path(name) for name in meter.filter}
    return paths if meter.value is None else paths | {meter.value}


def takes(meter: Meter, sign: str) -> str:
    """Return the condition under which a row of that sign counts: not everything can be taken back."""
    return "1" if meter.aggregation in TAKES_VOIDS else f"{sign} = 1"
