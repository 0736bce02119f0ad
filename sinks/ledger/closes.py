"""Closes and reopens of accounting periods: recorded inputs with a booked time of their own."""

import threading
from datetime import datetime
from typing import Final, Literal

import structlog
from sqlalchemy import Connection, Engine, insert, select

from config.period_closes import PeriodClose, PeriodCloses
from core.errors import InvalidRequest, StopRequested
from sinks.ledger import audit, database, held, seals, tables
from sinks.ledger.times import MS_PER_HOUR, to_datetime, to_ms

log = structlog.get_logger()

_TABLE = tables.period_closes
RETRY_S: Final = 1.0


def load(connection: Connection) -> PeriodCloses:
    """Return everything recorded."""
    columns = (_TABLE.c.entity, _TABLE.c.accounting_period, _TABLE.c.known_from_ms, _TABLE.c.action)
    return PeriodCloses(PeriodClose(*row) for row in connection.execute(select(*columns)))


def next_hour_ms(redis_ms: int, watermark_ms: int) -> int:
    """Return from when a fact recorded now is known: the hour after both times, as with a revision."""
    return (max(redis_ms, watermark_ms) // MS_PER_HOUR + 1) * MS_PER_HOUR


def record(
    engine: Engine,
    fact: PeriodClose,
    *,
    actor: str,
    reason: str,
    now: datetime,
) -> None:
    """Record a close or reopen, before anything uses it; a reopen lets the poster ask the ERP about held postings.

    :raises InvalidRequest: it says what is recorded already, one of the same hour was recorded before, or the period
        that is to be opened is sealed.
    """
    with database.write(engine) as connection:
        record_in(connection, fact, actor=actor, reason=reason, now=now)


def check(connection: Connection, fact: PeriodClose) -> None:
    """Make sure that the fact may be recorded.

    :raises InvalidRequest: see `record`.
    """
    closes = load(connection)
    known = closes.recorded(fact.entity, fact.accounting_period, 1 << 62)
    if known == fact.action:
        done = {"close": "closed", "reopen": "reopened"}[fact.action]
        message = f"period {fact.accounting_period} of {fact.entity} was recorded as {done} before"
        raise InvalidRequest(message)
    if fact.action == "reopen" and seals.find(connection, fact.entity, fact.accounting_period) is not None:
        message = (
            f"period {fact.accounting_period} of {fact.entity} is sealed and stays closed: what is still to be"
            " corrected goes into an open period"
        )
        raise InvalidRequest(message)
    same = select(_TABLE.c.action).where(
        _TABLE.c.entity == fact.entity,
        _TABLE.c.accounting_period == fact.accounting_period,
        _TABLE.c.known_from_ms >= fact.known_from_ms,
    )
    if connection.execute(same).first() is not None:
        message = (
            f"a close or reopen of {fact.accounting_period} in {fact.entity} is already recorded for that hour:"
            " wait for the next one, so that every hour knows one of them"
        )
        raise InvalidRequest(message)


def record_in(connection: Connection, fact: PeriodClose, *, actor: str, reason: str, now: datetime) -> None:
    """Record a close or reopen within a transaction of the caller's; see `record`."""
    check(connection, fact)
    connection.execute(
        insert(_TABLE).values(
            entity=fact.entity,
            accounting_period=fact.accounting_period,
            known_from_ms=fact.known_from_ms,
            action=fact.action,
            actor=actor,
            reason=reason,
            recorded_at_ms=to_ms(now),
        )
    )
    if fact.action == "reopen":
        held.look_again(connection, fact.entity, ("closed_period",), fact.accounting_period)
    subject = f"{fact.entity}/{fact.accounting_period}"
    detail = f"known from {to_datetime(fact.known_from_ms).isoformat()}"
    action: Literal["close-period", "reopen-period"] = "close-period" if fact.action == "close" else "reopen-period"
    audit.record(connection, at=now, actor=actor, action=action, subject=subject, reason=reason, detail=detail)


class LedgerCloses:
    """Gives the flow the closes that hold for a booked hour, read once per hour.

    Everything known at an hour was recorded before it began by the event server's clock, and the hour is rated after
    its end, so a read at that time sees all of it; facts recorded later are known later and change nothing.
    """

    def __init__(self, engine: Engine, stop: threading.Event) -> None:
        self._engine = engine
        self._stop = stop
        self._hour = -1
        self._closes = PeriodCloses()
        self._lock = threading.Lock()

    def at(self, hour: int) -> PeriodCloses:
        """Return the closes for that hour; waits for the ledger if it does not answer.

        :raises StopRequested: the process is to stop while it waits; the epoch is replayed.
        """
        with self._lock:
            if hour > self._hour:
                self._closes = self._load()
                self._hour = hour
            return self._closes

    def _load(self) -> PeriodCloses:
        while True:
            try:
                with database.read(self._engine) as connection:
                    return load(connection)
            except Exception as error:
                if not database.unreachable(error):
                    raise
                log.warning(
                    "The ledger database does not answer; the flow waits for the closes of periods.",
                    cause=str(getattr(error, "orig", error))[:300],
                )
                if self._stop.wait(RETRY_S):
                    message = "stopped while waiting for the ledger database; the epoch is replayed at the next start"
                    raise StopRequested(message) from error
