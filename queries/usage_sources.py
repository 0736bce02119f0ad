"""Where a question about usage reads: sums where they answer it exactly, facts for all the rest. Pure.

Sums are by hour of use, those over all tenants by quarter of an hour. Of a span, the whole hours may come from sums, as
far as their booked hours are summed. Hours that the span cuts, booked minutes of an hour that `as_of` cuts, and what is
not summed yet come from facts. The two never overlap: sums are of booked hours before a border, facts are booked at or
behind it, or used in the hours that are cut.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from queries.stores import EPOCH
from sinks.clickhouse.usage_hours import UNTIL

_HOUR: Final = timedelta(hours=1)
_QUARTER: Final = timedelta(minutes=15)
SETTINGS: Final = "SETTINGS do_not_merge_across_partitions_select_final = 1, optimize_move_to_prewhere_if_final = 1"
"""All versions of a row are in one partition, and every condition here is on what they have in common."""


@dataclass(frozen=True)
class Asked:
    """What the rows must fulfil. `conditions` are on columns that sums and facts share; `columns` are, too.

    `tenants_matter`: tenants are chosen, told apart or merged one by one. `borders` are the windows' in Unix seconds.
    """

    begins: datetime
    ends: datetime
    as_of: datetime | None
    conditions: Sequence[str]
    columns: Sequence[str]
    borders: Sequence[int]
    tenants_matter: bool
    aggregation: str

    @property
    def in_totals(self) -> bool:
        """Tell whether sums over all tenants answer it."""
        return not self.tenants_matter and self.aggregation not in ("max", "min", "latest")

    @property
    def unit(self) -> timedelta:
        """Return what the sums that can answer it are by."""
        return _QUARTER if self.in_totals else _HOUR


def source(asked: Asked) -> tuple[str, dict[str, Any]]:
    """Return a subquery and its parameters; it gives `at`, `value`, `n`, `late`, `open_facts` and the asked columns.

    With `value` come `value_time` and `booked_minute` where the function is `latest`. `at` is the minute of use, or the
    hour or quarter where it comes from sums; no window divides that.
    """
    unit = asked.unit
    first, last = _ceiling(asked.begins, unit), _floor(asked.ends, unit)
    parameters: dict[str, Any] = {"begins": asked.begins, "ends": asked.ends}
    if asked.as_of is not None:
        parameters |= {"as_of": asked.as_of, "as_of_hour": _floor(asked.as_of, _HOUR)}
    facts = [
        *asked.conditions,
        "usage_minute >= {begins:DateTime}",
        "usage_minute < {ends:DateTime}",
        # Nothing is booked before it is used: this bounds the months that are read.
        "booked_minute >= {begins:DateTime}",
        *(["booked_minute < {as_of:DateTime}"] if asked.as_of is not None else []),
    ]
    if first >= last or any(border % unit.seconds for border in asked.borders[1:-1]):
        return _facts(asked, facts), parameters
    parameters |= {"first": first, "last": last, "begins_hour": _floor(asked.begins, _HOUR)}
    border = UNTIL if asked.as_of is None else f"least({UNTIL}, {{as_of_hour:DateTime}})"
    cut = [f"booked_minute >= {border}"]
    if first > asked.begins:
        cut.append("usage_minute < {first:DateTime}")
    if last < asked.ends:
        cut.append("usage_minute >= {last:DateTime}")
    facts.append(f"({' OR '.join(cut)})")
    sums = [
        *asked.conditions,
        f"{_used(asked)} >= {{first:DateTime}}",
        f"{_used(asked)} < {{last:DateTime}}",
        "booked_hour >= {begins_hour:DateTime}",
        f"booked_hour < {border}",
    ]
    return f"{_sums(asked, sums)} UNION ALL {_facts(asked, facts)}", parameters


def _sums(asked: Asked, conditions: Sequence[str]) -> str:
    table = "@usage_totals" if asked.in_totals else "@usage_hours"
    late = "late_hour_events" if asked.aggregation == "weighted_sum" else "late_events"
    columns = [f"toUInt32({_used(asked)}) AS at", *_values(asked), "events AS n", f"{late} AS late", "0 AS open_facts"]
    return _select([*columns, *asked.columns], f"{table} FINAL", conditions)


def _used(asked: Asked) -> str:
    return "usage_quarter" if asked.in_totals else "usage_hour"


def _facts(asked: Asked, conditions: Sequence[str]) -> str:
    in_time = "usage_minute + INTERVAL 59 MINUTE" if asked.aggregation == "weighted_sum" else "usage_minute"
    late = f"if(booked_minute > {in_time}, events, 0) AS late"
    columns = [
        "toUInt32(usage_minute) AS at",
        *_values(asked),
        "events AS n",
        late,
        "toUInt8(sealed = 0) AS open_facts",
    ]
    return _select([*columns, *asked.columns], "@usage_facts FINAL", conditions)


def _values(asked: Asked) -> list[str]:
    return ["value", "value_time", "booked_minute"] if asked.aggregation == "latest" else ["value"]


def _select(columns: Sequence[str], table: str, conditions: Sequence[str]) -> str:
    return f"SELECT {', '.join(columns)} FROM {table} WHERE {' AND '.join(conditions)}"  # noqa: S608  # our own text


def _floor(when: datetime, unit: timedelta) -> datetime:
    return when - (when - EPOCH) % unit


def _ceiling(when: datetime, unit: timedelta) -> datetime:
    floor = _floor(when, unit)
    return floor if floor == when else floor + unit
