"""Recorded closes of accounting periods: facts that beat the calendar's cut-off from the hour they are known.

Pure; the table is `period_closes` in the ledger. A close is known from the start of the hour after it was recorded,
so that every hour is rated with the closes recorded before it began, on every replay.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final, Literal

from config.entities import Entity
from config.periods import AccountingPeriod, accounting_period, following_period

PERIODS_SEARCHED_MAX: Final = 1_200
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class PeriodClose:
    """One close or reopen of one entity's accounting period (`YYYY-MM`), known from that Unix time in ms."""

    entity: str
    accounting_period: str
    known_from_ms: int
    action: Literal["close", "reopen"]


class PeriodCloses:
    """All recorded closes and reopens."""

    def __init__(self, facts: Iterable[PeriodClose] = ()) -> None:
        self._facts: dict[tuple[str, str], list[PeriodClose]] = {}
        for fact in sorted(facts, key=lambda one: one.known_from_ms):
            self._facts.setdefault((fact.entity, fact.accounting_period), []).append(fact)

    def recorded(self, entity: str, period: str, at_ms: int) -> Literal["close", "reopen"] | None:
        """Return what was recorded last for the period, as known at that time, or None if nothing was."""
        known = [fact for fact in self._facts.get((entity, period), ()) if fact.known_from_ms <= at_ms]
        return known[-1].action if known else None

    def of(self, entity: str, period: str) -> tuple[PeriodClose, ...]:
        """Return what was recorded for the period, oldest first."""
        return tuple(self._facts.get((entity, period), ()))

    def is_closed(self, entity: Entity, period: AccountingPeriod, at: datetime) -> bool:
        """Tell whether the period takes nothing more at that time: a recorded fact, else the cut-off."""
        at_ms = (at - _EPOCH) // timedelta(milliseconds=1)
        recorded = self.recorded(entity.id, period.name, at_ms) if self._facts else None
        return period.cutoff_at <= at if recorded is None else recorded == "close"

    def first_open(self, entity: Entity, period: AccountingPeriod, at: datetime) -> AccountingPeriod:
        """Return the period itself if it is open at that time, else the next one that is."""
        for _ in range(PERIODS_SEARCHED_MAX):
            if not self.is_closed(entity, period, at):
                break
            period = following_period(entity, period)
        return period


NONE_RECORDED: Final = PeriodCloses()

ClosesAt = Callable[[int], PeriodCloses]
"""Gives the closes that hold for a booked hour (hours since 1970-01-01T00:00Z)."""


def none_recorded(_hour: int) -> PeriodCloses:
    """Return no closes: the cut-off decides alone."""
    return NONE_RECORDED


def period_named(entity: Entity, name: str) -> AccountingPeriod:
    """Return the entity's accounting period `YYYY-MM`; raise ValueError for another form."""
    first = date.fromisoformat(f"{name}-01")
    noon = datetime.combine(first + timedelta(days=14), time(12), entity.zone())
    return accounting_period(entity, noon)
