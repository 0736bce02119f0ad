"""Closing a period before its cut-off, and reopening one: what people record, whoever asks for it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import Engine

from config.period_closes import PeriodClose
from config.revision import History
from config.settings import Settings
from core.redis_client import connect, guarded, server_time_ms
from queries.closing import entity_of, period_of
from sinks.ledger import closes, progress
from sinks.ledger.database import read
from sinks.ledger.times import to_datetime


def known_from_ms(settings: Settings, engine: Engine) -> int:
    """Return from when a fact recorded now is known: the event server's time decides, as with a revision.

    :raises Unreachable: the event server does not answer.
    """
    with connect(settings.redis) as client, guarded(settings.redis):
        redis_ms = server_time_ms(client, settings.redis)
    return closes.next_hour_ms(redis_ms, max(progress.watermark_ms(engine), progress.high_water_ms(engine)))


@dataclass(frozen=True, slots=True)
class PeriodAct:
    """What is to be recorded of an entity's accounting period (`YYYY-MM`), by whom and why."""

    entity: str
    accounting_period: str
    action: Literal["close", "reopen"]
    actor: str
    reason: str


def record(
    settings: Settings, engine: Engine, history: History, act: PeriodAct, now: datetime, *, dry_run: bool = False
) -> datetime:
    """Record a close or reopen, unless it is only to be checked, and return from when it is known.

    :raises InvalidRequest: entity or period is none, it says what is recorded already, or the period is sealed.
    :raises Unreachable: the event server does not answer.
    """
    period_of(entity_of(history, act.entity), act.accounting_period)
    since_ms = known_from_ms(settings, engine)
    fact = PeriodClose(act.entity, act.accounting_period, since_ms, act.action)
    if dry_run:
        with read(engine) as connection:
            closes.check(connection, fact)
    else:
        closes.record(engine, fact, actor=act.actor, reason=act.reason, now=now)
    return to_datetime(since_ms)
