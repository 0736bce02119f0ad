"""Billing periods and accounting periods: where they begin and end, in aware UTC.

Borders are local midnights of the period's own time zone. Where midnight does not exist (a clock change), the
border is the moment of the change; where it exists twice, the first one. So periods join without gap or overlap.
"""

from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from config.customers import BillingPeriod
from config.entities import Entity

_MONTHS = {"month": 1, "year": 12}
_DAYS = {"day": 1, "week": 7}


@dataclass(frozen=True, slots=True)
class AccountingPeriod:
    """A fiscal month of an entity. Usage of it still lands in it before `cutoff_at`."""

    name: str
    start: datetime
    end: datetime
    cutoff_at: datetime


def billing_period(period: BillingPeriod, contract_from: datetime, when: datetime) -> tuple[datetime, datetime]:
    """Return start and end (exclusive) of the period that holds the aware time `when`.

    Periods are laid out from the anchor alone, in both directions. They are not cut at the contract's start
    (`contract_from`, at or before `when`): a period that the contract covers in part is prorated, not shortened,
    so that every row of one calendar period carries the same period start.
    """
    del contract_from
    return _period(period.unit, period.count, period.anchor, period.timezone, when)


def covered_days(
    period: BillingPeriod, start: datetime, end: datetime, begins: datetime, ends: datetime | None
) -> tuple[int, int]:
    """Return how many local days of [start, end) lie in [begins, ends), and how many days the period has.

    A day counts as covered if the interval covers its last moment: of two intervals that meet within a day,
    exactly one has it.
    """
    zone = ZoneInfo(period.timezone)
    first, last = _local_date(start, zone), _local_date(end, zone)
    begin = min(max(_local_date(begins, zone), first), last)
    stop = last if ends is None else min(max(_local_date(ends, zone), begin), last)
    return (stop - begin).days, (last - first).days


def accounting_period(entity: Entity, when: datetime) -> AccountingPeriod:
    """Return the fiscal month of the entity that holds the aware time `when`."""
    local = when.astimezone(ZoneInfo(entity.timezone))
    return _fiscal_month(entity.timezone, entity.close.cutoff, local.year, local.month)


def named_period(entity: Entity, name: str) -> AccountingPeriod:
    """Return the fiscal month of that name, such as `2026-10`."""
    year, month = map(int, name.split("-"))
    return _fiscal_month(entity.timezone, entity.close.cutoff, year, month)


def following_period(entity: Entity, period: AccountingPeriod) -> AccountingPeriod:
    """Return the fiscal month after `period`."""
    return accounting_period(entity, period.end)


def _local_date(when: datetime, zone: ZoneInfo) -> date:
    return when.astimezone(zone).date()


@lru_cache(maxsize=4096)
def _fiscal_month(timezone: str, cutoff: timedelta, year: int, month: int) -> AccountingPeriod:
    zone = ZoneInfo(timezone)
    end = _add_months(date(year, month, 1), 1)
    # The cut-off is so many days of the entity's calendar: wall clock arithmetic, then UTC.
    cutoff_at = (datetime.combine(end, time(), zone) + cutoff).astimezone(UTC)
    start = _midnight(date(year, month, 1), zone)
    return AccountingPeriod(f"{year:04d}-{month:02d}", start, _midnight(end, zone), cutoff_at)


def _period(unit: str, count: int, anchor: date, timezone: str, when: datetime) -> tuple[datetime, datetime]:
    local = _local_date(when, ZoneInfo(timezone))
    if unit in _MONTHS:
        distance = (local.year - anchor.year) * 12 + local.month - anchor.month
        number = distance // (_MONTHS[unit] * count)
    else:
        number = (local - anchor).days // (_DAYS[unit] * count)
    # The guess is off by one at most: before the anchor's day in its month, and at a clock change at midnight.
    while _border(unit, count, anchor, timezone, number) > when:
        number -= 1
    while _border(unit, count, anchor, timezone, number + 1) <= when:
        number += 1
    return (
        _border(unit, count, anchor, timezone, number),
        _border(unit, count, anchor, timezone, number + 1),
    )


@lru_cache(maxsize=65_536)
def _border(unit: str, count: int, anchor: date, timezone: str, number: int) -> datetime:
    if unit in _MONTHS:
        day = _add_months(anchor, number * count * _MONTHS[unit])
    else:
        day = anchor + timedelta(days=number * count * _DAYS[unit])
    return _midnight(day, ZoneInfo(timezone))


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, time(), zone).astimezone(UTC)


def _add_months(day: date, months: int) -> date:
    """Move by whole months from the anchor itself, so that day 31 comes back after a short month."""
    index = day.year * 12 + day.month - 1 + months
    year, month = divmod(index, 12)
    return date(year, month + 1, min(day.day, monthrange(year, month + 1)[1]))
