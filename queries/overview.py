"""The state of everything, part by part: what cannot be read because its server is away leaves the rest as it is."""

from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any, Final

from core.errors import MeterbridgeError
from core.redis_client import connect, guarded, server_time_ms
from queries.exceptions import groups
from queries.standing import books, intake
from queries.stores import Row, Stores
from sinks.ledger.times import to_datetime

EXCEPTION_DAYS: Final = 35
_HOUR: Final = timedelta(hours=1)


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
        "intake": part("clickhouse", lambda: _intake(stores, now)),
        "exceptions": part("clickhouse", lambda: _exceptions(stores, now)),
        "errors": errors,
    }


def _books(stores: Stores, now: datetime) -> Row:
    found = books(stores)
    behind_s = None if found.watermark is None else max(0, int((now - found.watermark).total_seconds()))
    plain = asdict(found)
    return plain | {"behind_s": behind_s, "config_version": stores.history.latest.version}


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


def _intake(stores: Stores, now: datetime) -> Row:
    """Return the last 24 hours by outcome and reason, and the last hour minute by minute."""
    day = intake(stores, now - 24 * _HOUR, now, 60)
    hour = intake(stores, now - _HOUR, now, 1)
    return {
        "day": dict(day.totals),
        "day_by_reason": dict(day.by_reason),
        "minutes": [{"minute": step.at, "events": sum(step.events.values())} for step in hour.steps],
    }


def _exceptions(stores: Stores, now: datetime) -> Row:
    kinds: dict[str, dict[str, int]] = {}
    for group in groups(stores, since=now - timedelta(days=EXCEPTION_DAYS)):
        one = kinds.setdefault(group.kind, {"groups": 0, "count": 0})
        one["groups"] += 1
        one["count"] += group.count
    return kinds
