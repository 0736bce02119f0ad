"""What sealing levels gives: facts, and exceptions by kind, meter, tenant and booked minute."""

from typing import Final

import orjson
import polars as pl

from core.frames import EXCEPTION_SCHEMA, FACT_SCHEMA
from core.quantities import decimal_of_scaled
from operators.book_level_store import Series
from operators.book_limit import KIND, OVERFLOW

SETTLED: Final = "level_settled"
UNMATCHED: Final = "level_void_unmatched"
LIMITED: Final = "level_changes_limit"

_DETAILS: Final = {
    KIND: f"changes are in the series {OVERFLOW}, whose level is that of its last change, since as many series as "
    "allowed hold a level; group by fewer properties, or raise rules.series_per_tenant_minute_max",
    SETTLED: "changes or voids are about a time that is settled, and change no quantity; raise "
    "rules.level_changes_per_meter_max if this is not meant",
    UNMATCHED: "voids take back a level change that this meter does not know, and change no quantity; probably the "
    "meter is newer than the event",
    LIMITED: "old changes were settled before their time, since there are more than "
    "rules.level_changes_per_meter_max; what arrives for that time now changes no quantity",
}
"""What a number of events is said to be."""


class BookedLevels:
    """Collects what sealing books."""

    def __init__(self) -> None:
        self._facts: list[tuple[object, ...]] = []
        self._problems: dict[tuple[str, str, str, int], int] = {}

    def book(self, series: Series, usage_minute: int, booked_minute: int, value: int, counts: tuple[int, int]) -> None:
        """Add a fact, unless it says nothing; `value` is scaled by 10^12, `counts` are events and inputs."""
        meter, tenant, dimensions = series
        events, inputs = counts
        if value or inputs:
            amount = decimal_of_scaled(value)
            self._facts.append((tenant, meter, dimensions, usage_minute, booked_minute, amount, 0, events, inputs, 1))

    def complain(self, kind: str, series: Series, booked_minute: int, events: int = 1) -> None:
        """Add to an exception."""
        place = (kind, series[0], series[1], booked_minute)
        self._problems[place] = self._problems.get(place, 0) + events

    def facts(self) -> pl.DataFrame:
        """Return the facts (FACT_SCHEMA), all sealed."""
        return pl.DataFrame(self._facts, schema=FACT_SCHEMA, orient="row")

    def exceptions(self) -> pl.DataFrame:
        """Return the exceptions (EXCEPTION_SCHEMA)."""
        rows = [
            {
                "kind": kind,
                "identity": orjson.dumps([tenant, meter, minute]).decode(),
                "tenant": tenant,
                "meter": meter,
                "booked_minute": minute,
                "detail": f"{events} {_DETAILS[kind]}",
                "events": events,
            }
            for (kind, meter, tenant, minute), events in sorted(self._problems.items())
        ]
        return pl.DataFrame(rows, schema=EXCEPTION_SCHEMA)


class Tally:
    """How many events (accepted minus voided) and inputs came per series and usage minute, until they are booked."""

    def __init__(self, data: bytes | None = None) -> None:
        self._counts: dict[Series, dict[int, tuple[int, int]]] = {}
        for meter, tenant, dimensions, minute, events, inputs in orjson.loads(data) if data else ():
            self._counts.setdefault((meter, tenant, dimensions), {})[minute] = (events, inputs)

    def __len__(self) -> int:
        """Return the number of series that were counted."""
        return len(self._counts)

    def add(self, series: Series, usage_minute: int, sign: int) -> None:
        """Count one event or void."""
        minutes = self._counts.setdefault(series, {})
        events, inputs = minutes.get(usage_minute, (0, 0))
        minutes[usage_minute] = (events + sign, inputs + 1)

    def series(self) -> list[Series]:
        """Return the series that were counted, in order."""
        return sorted(self._counts)

    def hours(self, series: Series) -> set[int]:
        """Return the usage hours in which the series was counted."""
        return {minute // 60 for minute in self._counts.get(series, ())}

    def take(self, series: Series, begin: int, end: int) -> tuple[int, int]:
        """Remove and return what was counted in those usage minutes."""
        minutes = self._counts.get(series)
        if not minutes:
            return 0, 0
        chosen = [minutes.pop(minute) for minute in list(minutes) if begin <= minute < end]
        if not minutes:
            del self._counts[series]
        return sum(events for events, _ in chosen), sum(inputs for _, inputs in chosen)

    def plain(self) -> bytes:
        """Return the counts as bytes."""
        rows = [
            (*series, minute, *counts)
            for series, minutes in sorted(self._counts.items())
            for minute, counts in sorted(minutes.items())
        ]
        return orjson.dumps(rows)
