"""Sums facts by hour for dashboards, once their booked hour can no longer change.

The sums are a cache. A booked hour is summed when the flow says that it is sealed and durable, and when no open fact is
in it. What happens if the process dies, step by step:
 1. after the sums by series: they are there, and nobody reads them; the next run removes them and begins again.
 2. after those over all tenants: the same.
 3. after `usage_hours_until` has moved: done.
One process at a time: `flows.summing` holds a lock for it.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from config.meters import Meter
from core.errors import InvalidRequest
from sinks.clickhouse.client import Client, quoted

TABLES: Final = ("usage_hours", "usage_totals")
ROWS_PER_STEP_MAX: Final = 1_000_000
"""Facts that one statement sums, more or less: an hour is never divided."""
STEP_MAX: Final = timedelta(days=7)
UNTIL: Final = "(SELECT argMax(until, version) FROM @usage_hours_until)"
"""Booked hours before it are summed; 1970 where nothing is. `@` stands for the database."""
_HOUR: Final = timedelta(hours=1)
_SPAN: Final = "booked_minute >= {begins:DateTime} AND booked_minute < {ends:DateTime}"
_HOURS: Final = "booked_hour >= {begins:DateTime} AND booked_hour < {ends:DateTime}"
_EVENTS: Final = """sum(f.events) AS n, sumIf(f.events, f.booked_minute > usage_minute) AS late,
    sumIf(f.events, f.booked_minute > usage_minute + INTERVAL 59 MINUTE) AS late_hour"""
_SETTINGS: Final = {"do_not_merge_across_partitions_select_final": 1, "optimize_move_to_prewhere_if_final": 1}

SUMS: Final = f"""
SELECT tenant, meter, JSONExtract(series, 'Map(String, String)') AS texts, toStartOfHour(f.booked_minute) AS hour,
    toStartOfHour(usage_minute) AS used,
    multiIf(meter IN {{max:Array(String)}}, max(f.value), meter IN {{min:Array(String)}}, min(f.value),
        meter IN {{latest:Array(String)}}, argMax(f.value, (f.value_time, f.booked_minute)), sum(f.value)) AS merged,
    max(f.value_time) AS last, argMax(f.booked_minute, (f.value_time, f.booked_minute)),
    {_EVENTS}
FROM @usage_facts AS f FINAL
WHERE {_SPAN}
GROUP BY tenant, meter, series, hour, used
"""  # noqa: S608  # our own names only
"""Facts of booked hours, summed."""

_SUM: Final = f"""
INSERT INTO @usage_hours (tenant, meter, dimensions, booked_hour, usage_hour, value, value_time, booked_minute, events,
    late_events, late_hour_events)
{SUMS}"""

_TOTAL: Final = f"""
INSERT INTO @usage_totals (meter, dimensions, booked_hour, usage_quarter, value, events, late_events, late_hour_events)
SELECT meter, JSONExtract(series, 'Map(String, String)') AS texts, toStartOfHour(f.booked_minute) AS hour,
    toStartOfFifteenMinutes(usage_minute) AS used,
    if(meter IN {{max:Array(String)}} OR meter IN {{min:Array(String)}} OR meter IN {{latest:Array(String)}},
        toDecimal128(0, 12), sum(f.value)),
    {_EVENTS}
FROM @usage_facts AS f FINAL
WHERE {_SPAN} AND {{condition}}
GROUP BY meter, series, hour, used
"""  # noqa: S608
_ALL: Final = _TOTAL.replace("{condition}", "1")


def summed_until(client: Client) -> datetime | None:
    """Return up to which booked hour sums are there, None if there are none."""
    rows = client.query(_resolved(client, "SELECT until FROM @usage_hours_until FINAL")).result_rows
    return rows[0][0].astimezone(UTC) if rows else None


def advance(
    client: Client, meters: Mapping[str, Meter], sealed_until: datetime, stopped: Callable[[], bool] = lambda: False
) -> Iterator[datetime]:
    """Sum what can be summed, oldest first; yield after each step up to where it is done.

    :param meters: every meter that ever was, by id.
    :param sealed_until: the end of the last booked hour that is sealed and durable.
    :raises Unreachable: ClickHouse does not answer.
    """
    begins = _oldest(client)
    if begins is None:
        return
    begins = max(begins, summed_until(client) or begins)
    by_function = functions(meters)
    while begins < sealed_until and not stopped():
        until = _step(client, begins, sealed_until)
        until = _first_open(client, begins, until) or until
        if until <= begins:
            return
        span = {"begins": begins, "ends": until}
        _remove_unread(client, span)
        client.command(_resolved(client, _SUM), span | by_function, _SETTINGS)
        client.command(_resolved(client, _ALL), span | by_function, _SETTINGS)
        _move(client, until)
        begins = until
        yield until


def _remove_unread(client: Client, span: dict[str, datetime]) -> None:
    """Remove what a run left that died, or facts that were mended since would leave rows that are no more."""
    for table in TABLES:
        ((left,),) = client.query(_resolved(client, f"SELECT count() FROM @{table} WHERE {_HOURS}"), span).result_rows  # noqa: S608
        if left:
            text = f"ALTER TABLE @{table} DELETE WHERE {_HOURS}"
            client.command(_resolved(client, text), span, {"mutations_sync": 2})


def functions(meters: Mapping[str, Meter]) -> dict[str, list[str]]:
    """Return the meters whose values do not add up, by function, as the statements' parameters."""
    return {name: [one.id for one in meters.values() if one.aggregation == name] for name in ("max", "min", "latest")}


def forget(client: Client, since: datetime, wait: Callable[[], object]) -> datetime | None:
    """Drop the sums of this month and later ones, so that they are made again; return from when on.

    Questions that began before still count on them: `wait` lasts as long as a question may.

    :raises InvalidRequest: nothing so late is summed.
    """
    month = since.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    known = summed_until(client)
    if known is None or known <= month:
        message = f"no sums of {month:%Y-%m} or later are there"
        raise InvalidRequest(message)
    _move(client, month)
    wait()
    for table in TABLES:
        rows = client.query(
            "SELECT DISTINCT partition FROM system.parts WHERE active AND database = {database:String}"
            " AND table = {table:String} AND toUInt32(partition) >= {month:UInt32}",
            {"database": client.settings.database, "table": table, "month": int(f"{month:%Y%m}")},
        ).result_rows
        for (partition,) in rows:
            client.command(_resolved(client, f"ALTER TABLE @{table} DROP PARTITION {int(partition)}"))
    return month


def total_again(
    client: Client, meters: Mapping[str, Meter], month: int, condition: str, parameters: Mapping[str, Any]
) -> None:
    """Make the sums over all tenants of a month again from the facts that fulfil the condition: others are to go."""
    begins = datetime(month // 100, month % 100, 1, tzinfo=UTC)
    span = {"begins": begins, "ends": (begins + timedelta(days=31)).replace(day=1)}
    client.command(_resolved(client, f"ALTER TABLE @usage_totals DROP PARTITION {month}"))
    text = _TOTAL.replace("{condition}", condition)
    client.command(_resolved(client, text), {**span, **functions(meters), **parameters}, _SETTINGS)


def _resolved(client: Client, text: str) -> str:
    return text.replace("@", f"{quoted(client.settings.database)}.")


def _oldest(client: Client) -> datetime | None:
    """Return the hour of the oldest fact, by the parts' own minima."""
    text = "SELECT toStartOfHour(min(booked_minute)), count() FROM @usage_facts"
    ((oldest, count),) = client.query(_resolved(client, text)).result_rows
    return oldest.astimezone(UTC) if count else None


def _first_open(client: Client, begins: datetime, ends: datetime) -> datetime | None:
    """Return the first booked hour with a fact that is not sealed, None if all are."""
    text = f"SELECT toStartOfHour(min(booked_minute)), count() FROM @usage_facts FINAL WHERE {_SPAN} AND sealed = 0"  # noqa: S608
    span = {"begins": begins, "ends": ends}
    ((oldest, count),) = client.query(_resolved(client, text), span, _SETTINGS).result_rows
    return oldest.astimezone(UTC) if count else None


def _step(client: Client, begins: datetime, ends: datetime) -> datetime:
    """Return how far the next step goes: at least an hour, and not many more facts than a step may have."""
    if ends - begins <= _HOUR:
        return ends
    ends = min(ends, begins + STEP_MAX)
    text = f"SELECT toStartOfHour(booked_minute) AS hour, count() AS n FROM @usage_facts WHERE {_SPAN} GROUP BY hour"  # noqa: S608
    rows = client.query(_resolved(client, text + " ORDER BY hour"), {"begins": begins, "ends": ends}).result_rows
    counted = 0
    for hour, count in rows:
        if counted and counted + count > ROWS_PER_STEP_MAX:
            return hour.astimezone(UTC)  # type: ignore[no-any-return]
        counted += count
    return ends


def _move(client: Client, until: datetime) -> None:
    parameters: dict[str, Any] = {"until": until}
    client.command(
        _resolved(
            client,
            "INSERT INTO @usage_hours_until (id, until, version)"
            " SELECT 1, {until:DateTime}, (SELECT max(version) FROM @usage_hours_until) + 1",
        ),
        parameters,
    )
