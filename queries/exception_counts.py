"""Open exceptions by kind, cheaply enough to be counted every few minutes: without tenants, samples and raw events."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import select

from config.settings import Settings
from queries.exceptions import CAUSE, RESOLVED_PREFIX, key_of, resolved_until
from sinks import ledger
from sinks.clickhouse.client import Client, connect, quoted
from sinks.ledger import tables
from sinks.ledger.database import read
from sinks.ledger.times import to_datetime

SINCE_DAYS: Final = 31
"""Refused events and unusable values older than this are listed by `exceptions list` and not counted here."""
_GROUPS_MAX: Final = 10_000


@dataclass(frozen=True, slots=True)
class OpenKind:
    """How many exceptions of a kind are open, and when the first came up."""

    count: int
    first: datetime

    def plus(self, count: int, first: datetime) -> "OpenKind":
        """Return both together."""
        return OpenKind(self.count + count, min(self.first, first))


def open_by_kind(settings: Settings, now: datetime) -> dict[str, OpenKind]:
    """Count what no person has resolved; kinds as in `queries.exceptions`.

    :raises Unreachable: ClickHouse does not answer.
    """
    found: dict[str, OpenKind] = {}

    def add(kind: str, count: int, first: datetime) -> None:
        known = found.get(kind)
        found[kind] = known.plus(count, first) if known else OpenKind(count, first)

    engine = ledger.connect(settings.ledger_url)
    table = tables.exceptions
    try:
        with read(engine) as connection:
            resolved = resolved_until(connection)
            is_open = table.c.resolved_at_ms.is_(None) & ~table.c.kind.startswith(RESOLVED_PREFIX)
            for kind, created_at_ms in connection.execute(select(table.c.kind, table.c.created_at_ms).where(is_open)):
                add(kind, 1, to_datetime(created_at_ms))
    finally:
        engine.dispose()
    with connect(settings.clickhouse) as client:
        for kind, cause, count, first, last in _groups(client, settings.clickhouse.database, now):
            until = resolved.get(key_of(kind, cause))
            if until is None or until < last:
                add(kind, int(count), first)
    return found


def _groups(client: Client, database: str, now: datetime) -> list[tuple[str, str, int, datetime, datetime]]:
    text = (
        f"SELECT if(counted, toString(reason), 'unusable_value') AS k, {CAUSE} AS cause, count() AS n,"  # noqa: S608
        " min(ingest_time) AS first, max(ingest_time) AS last FROM @usage_rejects_current"
        " WHERE ingest_time >= toDateTime64({since:DateTime}, 3, 'UTC') GROUP BY k, cause LIMIT {limit:UInt32}"
        f" UNION ALL SELECT toString(kind) AS k, {CAUSE} AS cause, toUInt64(sum(e.events)) AS n,"
        " toDateTime64(min(booked_minute), 3, 'UTC') AS first, toDateTime64(max(booked_minute), 3, 'UTC') AS last"
        " FROM @exceptions_current AS e GROUP BY k, cause LIMIT {limit:UInt32}"
    ).replace("@", f"{quoted(database)}.")
    parameters: dict[str, Any] = {"since": now - timedelta(days=SINCE_DAYS), "limit": _GROUPS_MAX}
    rows: list[tuple[str, str, int, datetime, datetime]] = [
        (row[0], row[1], row[2], row[3], row[4]) for row in client.query(text, parameters=parameters).result_rows
    ]
    return rows
