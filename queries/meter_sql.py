"""Meters as ClickHouse expressions over `usage_events`: an account of what was metered that is not the flow's own.

The flow reads events in Python; these expressions read the stored raw events with ClickHouse's JSON functions. Where
both give the same counts and sums, neither has a fault of its own. What differs in grammar by design is left out of
comparison by value and counted: see `inexact`.
"""

from dataclasses import dataclass, field
from typing import Any

from config.meters import Meter
from core.reasons import VOID_TYPE


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
        conditions = [f"{event_type} = {sql._string(prefix, meter.event_type)}"]
        for name, allowed in meter.filter.items():
            text = sql._text(prefix, body, meter.filter_path(name))
            conditions.append(f"{text} IN {sql._strings(prefix, allowed)}")
        sql.applies = f"({' AND '.join(conditions)})"
        if meter.value is None:
            sql.text, sql.value, sql.inexact = "'1'", "toDecimal128(1, 12)", "0"
        else:
            sql.text = sql._text(prefix, body, meter.value)
            sql.value = f"toDecimal128OrNull({sql.text}, 12)"
            sql.inexact = f"(match({sql.text}, '[eE]') OR length(splitByChar('.', {sql.text})[2]) > 12)"
        pairs = [
            f"{sql._string(prefix, name)}, {sql._text(prefix, body, path)}"
            for name, path in sorted(meter.group_by.items())
        ]
        sql.dimensions = f"map({', '.join(pairs)})" if pairs else "CAST(map(), 'Map(String, String)')"
        return sql

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
