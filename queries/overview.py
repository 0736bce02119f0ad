"""The state of everything in numbers: intake, freshness, streams, documents, postings, ERP, exceptions."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final

from core.errors import MeterbridgeError
from core.redis_client import connect, guarded, server_time_ms
from queries.exceptions import groups
from queries.reconcile import sealed_until
from queries.stores import Row, Stores
from sinks.ledger import documents, erp_status, postings, progress
from sinks.ledger.times import to_datetime

MINUTES: Final = 60
"""So many minutes of throughput are shown."""
EXCEPTION_DAYS: Final = 35
_DAY: Final = timedelta(days=1)


def overview(stores: Stores, now: datetime) -> Row:
    """Return all parts; one whose server is away is None, `errors` says why, and the rest shows all the same."""
    errors: dict[str, str] = {}

    def part(name: str, read: Callable[[], Any]) -> Any:
        try:
            return read()
        except MeterbridgeError as error:
            errors[name] = str(error)
            return None

    return {
        "at": now.replace(microsecond=0),
        "books": part("ledger", lambda: _books(stores, now)),
        "streams": part("redis", lambda: _streams(stores)),
        "intake": part("clickhouse", lambda: intake(stores, now)),
        "exceptions": part("clickhouse", lambda: _exceptions(stores, now)),
        "errors": errors,
    }


def _books(stores: Stores, now: datetime) -> Row:
    watermark_ms = progress.watermark_ms(stores.engine)
    watermark = to_datetime(watermark_ms) if watermark_ms else None
    return {
        "watermark": watermark,
        "behind_s": None if watermark is None else max(0, int((now - watermark).total_seconds())),
        "sealed_until": sealed_until(stores) if watermark is not None else None,
        "documents": documents.count_by_state(stores.engine),
        "postings": postings.count_by_state(stores.engine),
        "erp_waiting": [
            {"entity": one.entity, "since": one.since, "cause": one.cause} for one in erp_status.waiting(stores.engine)
        ],
        "config_version": stores.history.latest.version,
    }


def _streams(stores: Stores) -> Row:
    settings = stores.settings.redis
    with connect(settings) as client, guarded(settings):
        now_ms = server_time_ms(client, settings)
        pipeline = client.pipeline(transaction=False)
        for name in settings.streams:
            pipeline.xlen(name)
            pipeline.xrevrange(name, count=1)
        replies: list[Any] = pipeline.execute()
    found = []
    for place, name in enumerate(settings.streams):
        entries, newest = replies[2 * place], replies[2 * place + 1]
        last_ms = int(newest[0][0].split(b"-")[0]) if newest else None
        found.append(
            {
                "stream": name,
                "entries": int(entries),
                "last_entry": None if last_ms is None else to_datetime(last_ms),
                "quiet_s": None if last_ms is None else max(0, (now_ms - last_ms) // 1000),
            }
        )
    return {"server_time": to_datetime(now_ms), "streams": found}


def intake(stores: Stores, now: datetime) -> Row:
    """Return the intake of the last 24 hours by outcome and reason, and events per minute of the last hour."""
    day = stores.rows(
        "SELECT outcome, reason, sum(c.events) AS n FROM @intake_counts_current AS c"
        " WHERE ingest_minute >= {begins:DateTime} GROUP BY outcome, reason ORDER BY n DESC",
        {"begins": now - _DAY},
    )
    minutes = stores.rows(
        "SELECT ingest_minute, sum(c.events) AS n FROM @intake_counts_current AS c"
        " WHERE ingest_minute >= {begins:DateTime} GROUP BY ingest_minute ORDER BY ingest_minute",
        {"begins": (now - timedelta(minutes=MINUTES)).replace(second=0, microsecond=0)},
    )
    return {
        "day": [{"outcome": row["outcome"], "reason": row["reason"], "events": int(row["n"])} for row in day],
        "minutes": [{"minute": row["ingest_minute"], "events": int(row["n"])} for row in minutes],
    }


def _exceptions(stores: Stores, now: datetime) -> Row:
    kinds: dict[str, dict[str, int]] = {}
    for group in groups(stores, since=now - timedelta(days=EXCEPTION_DAYS)):
        one = kinds.setdefault(group.kind, {"groups": 0, "count": 0})
        one["groups"] += 1
        one["count"] += group.count
    return kinds
