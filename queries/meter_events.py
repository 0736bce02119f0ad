"""The events behind a point of usage: what a meter counts in a window, of one tenant or all, page by page."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from config.meters import Meter
from config.revision import Rules
from core.errors import InvalidRequest
from core.reasons import VOID_TYPE
from queries.meter_sql import MeterSql
from queries.stores import EPOCH, Row, Stores

Position = tuple[int, str, int, int, int]
"""Microseconds of the event's time, stream, milliseconds and number of the stream entry, index in it: unique."""

_LATEST: Final = datetime(2100, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_ENTRY_SEQ: Final = "toUInt64(substring(entry_id, position(entry_id, '-') + 1))"
_COLUMNS: Final = (
    "source, id, type, tenant, event_time, ingest_time, booked_minute, stream, entry_id, entry_index,"
    f" {_ENTRY_SEQ} AS seq, toUnixTimestamp64Micro(event_time) AS event_us, toUnixTimestamp64Milli(ingest_time) AS ms,"
    " data"
)
_PLACE: Final = "(event_us, stream, ms, seq, entry_index)"


@dataclass(frozen=True, slots=True)
class EventsQuestion:
    """Which events: those the meter counts in [begins, ends).

    `tenants`: only these, None for all. `dimensions`: only that value of each. `as_of`: booked before that time.
    """

    meter: str
    begins: datetime
    ends: datetime
    tenants: Sequence[str] | None = None
    dimensions: dict[str, str] = field(default_factory=dict)
    as_of: datetime | None = None
    after: Position | None = None
    limit: int = 500


@dataclass(frozen=True, slots=True)
class EventsPage:
    """Events in order of their time; `next` is where the following page begins, None at the end."""

    rows: list[Row]
    next: Position | None


def meter_events(stores: Stores, question: EventsQuestion) -> EventsPage:
    """Return accepted events and voids, each with its sign and the value it brings.

    :raises InvalidRequest: there is no such meter, or it has no such dimension.
    """
    meter = stores.history.latest.meters.get(question.meter)
    if meter is None:
        message = f"no meter {question.meter[:64]!r}"
        raise InvalidRequest(message)
    for name in question.dimensions:
        if name not in meter.group_by:
            message = f"the meter {meter.id} has no dimension {name[:64]!r}"
            raise InvalidRequest(message)
    text, parameters = events_sql(question, meter, stores.history.latest.rules)
    rows = stores.rows(text, parameters)
    more = len(rows) > question.limit
    rows = rows[: question.limit]
    return EventsPage(rows, _place(rows[-1]) if more else None)


def _place(row: Row) -> Position:
    event_us = (row["event_time"].replace(tzinfo=UTC) - EPOCH) // _MICROSECOND
    return event_us, row["stream"], int(row["ms"]), int(row["seq"]), int(row["entry_index"])


def events_sql(question: EventsQuestion, meter: Meter, rules: Rules) -> tuple[str, dict[str, Any]]:
    """Return the query and its parameters.

    Events and voids are asked for apart: the one by the index on event times, the other, which are used when their
    original was, by that on types. Values and dimensions are read of the page's events only.
    """
    sql = MeterSql.of(meter)
    late = timedelta(days=rules.too_old_days + 1)
    # An original may arrive so late, and its void as long after that as it is still found.
    void_late = late + timedelta(days=rules.dedupe_horizon_days + 1)
    parameters: dict[str, Any] = sql.parameters | {
        "void": VOID_TYPE,
        "from": question.begins,
        "to": question.ends,
        "first": question.begins - timedelta(seconds=rules.future_s),
        "last": min(question.ends + late, _LATEST),
        "void_last": min(question.ends + void_late, _LATEST),
        "limit": question.limit + 1,
    }
    conditions = ["ingest_time >= {first:DateTime64(3)}", sql.applies]
    if question.tenants is not None:
        conditions.append("tenant IN {tenants:Array(String)}")
        parameters["tenants"] = list(question.tenants)
    if question.as_of is not None:
        conditions.append("booked_minute < {as_of:DateTime}")
        parameters["as_of"] = question.as_of
    for place, (name, value) in enumerate(sorted(question.dimensions.items())):
        conditions.append(f"{sql.dimensions}[{{k{place}:String}}] = {{v{place}:String}}")
        parameters |= {f"k{place}": name, f"v{place}": value}
    if question.after is not None:
        kinds = ("Int64", "String", "Int64", "UInt64", "UInt32")
        places = ", ".join(f"{{a{place}:{kind}}}" for place, kind in enumerate(kinds))
        conditions.append(f"{_PLACE} > ({places})")
        parameters |= {f"a{place}": value for place, value in enumerate(question.after)}
    chosen = " AND ".join(conditions)
    original = "parseDateTime64BestEffortOrNull(JSONExtractString(data, 'data', 'time'), 6, 'UTC')"
    used = f"ifNull({original}, event_time)"
    source = f"SELECT {_COLUMNS} FROM @usage_events_current WHERE {chosen}"  # noqa: S608
    own = (
        "ingest_time < {last:DateTime64(3)} AND type != {void:String}"
        " AND event_time >= {from:DateTime64(6)} AND event_time < {to:DateTime64(6)}"
    )
    void = (
        "ingest_time < {void_last:DateTime64(3)} AND type = {void:String}"
        f" AND {used} >= {{from:DateTime64(6)}} AND {used} < {{to:DateTime64(6)}}"
    )
    page = f"SELECT * FROM ({source} AND {own} UNION ALL {source} AND {void}) ORDER BY {_PLACE} LIMIT {{limit:UInt32}}"  # noqa: S608
    text = (
        f"SELECT * EXCEPT (data, event_us), {sql.sign} AS sign, {sql.text} AS value, {sql.dimensions} AS dimensions"  # noqa: S608
        f" FROM ({page}) ORDER BY {_PLACE}"
    )
    return text, parameters
