"""Usage of a meter by window, tenant and dimensions, as known now or at an earlier booked time.

Within a series facts merge by the meter's own function, series add up: the same rule by which charges are computed, so
that usage of a billing period is the quantity that is priced.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from config.meters import Meter
from core.errors import InvalidRequest
from queries.stores import EPOCH, Row, Stores
from queries.usage_sources import SETTINGS, Asked, source
from queries.windows import Window, borders, windows, zone_of

TENANT: Final = "tenant"
_MERGED: Final = {
    "max": "max(f.value)",
    "min": "min(f.value)",
    "latest": "argMax(f.value, (f.value_time, f.booked_minute))",
}


@dataclass(frozen=True)
class UsageQuestion:
    """What is asked. `tenants`: only these, None for all. `group_by`: `tenant` and names of dimensions.

    `as_of`: what was booked before that time. `after`: the last row's window and group values of the page before.
    """

    meter: str
    window: Window
    begins: datetime
    ends: datetime
    zone: str = "UTC"
    tenants: Sequence[str] | None = None
    dimensions: Mapping[str, Sequence[str]] = field(default_factory=dict)
    group_by: tuple[str, ...] = ()
    as_of: datetime | None = None
    after: tuple[Any, ...] | None = None
    limit: int = 1_000


@dataclass(frozen=True)
class UsagePage:
    """Rows in order of window and group; `next` is where the following page begins, None at the end."""

    rows: list[Row]
    next: tuple[Any, ...] | None


def usage(stores: Stores, question: UsageQuestion) -> UsagePage:
    """Return the usage asked for: value, events, late events, and whether anything of it is still open.

    :raises InvalidRequest: the meter, a dimension, the zone or the span is none.
    """
    meter = _meter(stores, question)
    found = borders(question.window, zone_of(question.zone), question.begins, question.ends)
    text, parameters = usage_sql(question, meter, [int(moment.timestamp()) for moment in found])
    ends = windows(found)
    rows = []
    names = [name for name in question.group_by if name != TENANT]
    for row in stores.rows(text, parameters):
        group = [row[f"g{place}"] for place in range(len(question.group_by))]
        by_name = dict(zip(question.group_by, group, strict=True))
        begins = _moment(row["bucket"])
        rows.append(
            {
                "window_start": begins,
                "window_end": ends[begins],
                "tenant": by_name.get(TENANT),
                "dimensions": {name: by_name[name] for name in names},
                "value": row["amount"],
                "events": int(row["n"]),
                "late_events": int(row["late"]),
                "open": bool(row["open_facts"]),
            }
        )
    full = len(rows) > question.limit
    rows = rows[: question.limit]
    return UsagePage(rows, _position(rows[-1], question.group_by) if full else None)


def _position(row: Row, group_by: tuple[str, ...]) -> tuple[Any, ...]:
    values = [row["tenant"] if name == TENANT else row["dimensions"][name] for name in group_by]
    return (int(row["window_start"].timestamp()), *values)


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, EPOCH.tzinfo)


def _meter(stores: Stores, question: UsageQuestion) -> Meter:
    known = {name: meter for revision in stores.history.revisions for name, meter in revision.meters.items()}
    meter = known.get(question.meter)
    if meter is None:
        message = f"unknown meter {question.meter[:64]!r}: known are {', '.join(sorted(known))}"
        raise InvalidRequest(message)
    for name in [*question.dimensions, *(name for name in question.group_by if name != TENANT)]:
        if name not in meter.group_by:
            has = ", ".join(sorted(meter.group_by)) or "none"
            message = f"the meter {meter.id} has no dimension {name[:64]!r}: it has {has}"
            raise InvalidRequest(message)
    return meter


def usage_sql(question: UsageQuestion, meter: Meter, moments: Sequence[int]) -> tuple[str, dict[str, Any]]:
    """Return the query and its parameters; `moments` are the windows' borders in Unix seconds."""
    conditions = ["meter = {meter:String}"]
    parameters: dict[str, Any] = {"meter": meter.id, "limit": question.limit + 1}
    if question.tenants is not None:
        conditions.append("tenant IN {tenants:Array(String)}")
        parameters["tenants"] = list(question.tenants)
    for place, (name, values) in enumerate(sorted(question.dimensions.items())):
        conditions.append(f"dimensions[{{d{place}:String}}] IN {{v{place}:Array(String)}}")
        parameters |= {f"d{place}": name, f"v{place}": list(values)}
    columns = []
    for place, name in enumerate(question.group_by):
        if name == TENANT:
            columns.append(f"tenant AS g{place}")
        else:
            columns.append(f"dimensions[{{k{place}:String}}] AS g{place}")
            parameters[f"k{place}"] = name
    merged = _MERGED.get(meter.aggregation)
    if merged is not None:
        columns += ["tenant AS owner", "series"]
    asked = Asked(
        begins=question.begins,
        ends=question.ends,
        as_of=question.as_of,
        conditions=conditions,
        columns=columns,
        borders=moments,
        tenants_matter=question.tenants is not None or TENANT in question.group_by,
        aggregation=meter.aggregation,
    )
    rows, more = source(asked)
    parameters |= more
    names = [f"g{place}" for place in range(len(question.group_by))]
    keys = ", ".join(["bucket", *names])
    listed = ",".join(str(int(moment)) for moment in moments[:-1])
    found = ", ".join([f"roundDown(f.at, [{listed}]) AS bucket", *(f"f.{name} AS {name}" for name in names)])
    measures = "sum(f.n) AS n, sum(f.late) AS late, sum(f.open_facts) AS open_facts"
    if merged is None:
        text = f"SELECT {found}, sum(f.value) AS amount, {measures} FROM ({rows}) AS f GROUP BY {keys}"  # noqa: S608
    else:
        # One row per series first: a maximum over series would not be what is priced.
        text = (
            f"SELECT {keys}, sum(f.merged) AS amount, {measures} FROM"  # noqa: S608
            f" (SELECT {found}, {merged} AS merged, {measures} FROM ({rows}) AS f"
            f" GROUP BY {keys}, f.owner, f.series) AS f GROUP BY {keys}"
        )
    if question.after is not None:
        places = ", ".join(f"{{a{place}:{'String' if place else 'UInt32'}}}" for place in range(len(question.after)))
        text += f" HAVING ({keys},) > ({places},)" if not names else f" HAVING ({keys}) > ({places})"
        parameters |= {f"a{place}": value for place, value in enumerate(question.after)}
    return f"{text} ORDER BY {keys} LIMIT {{limit:UInt32}} {SETTINGS}", parameters
