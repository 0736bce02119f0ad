"""What falls due as time passes: ends of billing and commitment periods and days of recognition, each exactly once.

A period is closed in the booked hour that begins at or after its end plus the grace; revenue that follows elapsed
time is brought up to date in the hour that holds a day's last minute. The watermark decides, not usage, so
customers without any are served too. It all starts with the period that holds the later of the contract's start
and `books_open_at` (without one: the first booked hour of the shard).
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final

from config.customers import BillingPeriod, Commitment
from config.periods import billing_period
from operators.rate_terms import EPOCH, ContractTimeline, TermsIndex, microseconds, shard_of

HOUR = timedelta(hours=1)
MOMENT = timedelta(microseconds=1)
ContractKey = tuple[str, str]

BILLING: Final = "billing"
DAYS: Final = "days"
COMMITMENT: Final = "commitment:"
"""Followed by the commitment's id."""

DueKey = tuple[str, str, str]
"""Customer, contract, and which of the contract's calendars."""


@dataclass(frozen=True, slots=True)
class Closing:
    """One period of one calendar of a contract that is due. A period that is cut short ends early."""

    contract: ContractKey
    calendar: str
    start: datetime
    end: datetime

    @property
    def commitment(self) -> str:
        """Return the id of the commitment whose period it is."""
        return self.calendar.removeprefix(COMMITMENT)


def commitment_period(timeline: ContractTimeline, one: Commitment, when: datetime) -> tuple[datetime, datetime]:
    """Return the commitment period that holds `when`, cut where the balance expires or the contract has ended.

    A contract's last charges are made at the end of the billing period in which it ends, so that is waited for.
    """
    contract = timeline.contract
    start, end = billing_period(one.periods(contract), contract.from_, when)
    if contract.to is not None:
        last_end = billing_period(contract.billing_period, contract.from_, contract.to - MOMENT)[1]
        end = min(end, last_end) if start < last_end else end
    if one.expires is not None and start < one.expires:
        end = min(end, one.expires)
    return start, end


class PeriodEnds:
    """The contracts of one shard with what is closed, and what is due next."""

    def __init__(self, shard: int, shards: int, state: list[list[Any]] | None) -> None:
        self._shard = shard
        self._shards = shards
        self._closed: dict[DueKey, tuple[int, int]] = {
            (customer, contract, calendar): (first_us, through_us)
            for customer, contract, calendar, first_us, through_us in state or ()
        }
        """Per calendar: start of the first period ever considered, and the end of the last one closed."""
        self._due: dict[DueKey, tuple[int, Closing]] = {}
        self._grace = timedelta(0)
        self._next: int | None = None

    def plain(self) -> list[list[Any]]:
        """Return the state as plain values."""
        return [[*key, *value] for key, value in sorted(self._closed.items())]

    def load(self, index: TermsIndex, open_from: datetime | None) -> None:
        """Take the contracts of a revision; `open_from` is where billing starts, None while that is unknown."""
        self._grace = timedelta(seconds=index.revision.rules.grace_s)
        self._due = {}
        if open_from is None:
            self._next = None
            return
        for (customer, contract), timeline in index.timelines.items():
            if shard_of(customer, self._shards) != self._shard:
                continue
            for calendar in _calendars(timeline):
                key = (customer, contract, calendar)
                if key not in self._closed:
                    begin = max(timeline.contract.from_, open_from)
                    start = microseconds(_period(timeline, calendar, begin)[0])
                    self._closed[key] = (start, start)
                self._plan(key, timeline)
        self._next = min((hour for hour, _ in self._due.values()), default=None)

    def next_hour(self) -> int | None:
        """Return the earliest booked hour in which something is due."""
        return self._next

    def is_closed(self, key: ContractKey, start: datetime, end: datetime, calendar: str = BILLING) -> bool:
        """Return whether that period was closed; periods before billing started never are."""
        first_us, through_us = self._closed.get((*key, calendar), (0, 0))
        return first_us <= microseconds(start) and microseconds(end) <= through_us

    def close(self, index: TermsIndex, hour: int) -> list[Closing]:
        """Close and return everything due in that booked hour, by contract, calendar and time."""
        found: list[Closing] = []
        while self._next is not None and self._next <= hour:
            for key, (due_hour, closing) in sorted(self._due.items(), key=lambda item: item[0]):
                if due_hour <= hour:
                    found.append(closing)
                    self._closed[key] = (self._closed[key][0], microseconds(closing.end))
                    del self._due[key]
                    self._plan(key, index.timelines[closing.contract])
            self._next = min((due_hour for due_hour, _ in self._due.values()), default=None)
        return sorted(found, key=lambda closing: (closing.contract, closing.calendar, closing.start))

    def _plan(self, key: DueKey, timeline: ContractTimeline) -> None:
        customer, contract, calendar = key
        cursor = EPOCH + timedelta(microseconds=self._closed[key][1])
        if _is_over(timeline, calendar, cursor):
            return
        start, end = _period(timeline, calendar, cursor)
        # A day is accounted for in the hour of its last minute, everything else in the first hour after the grace.
        due_hour = (end - MOMENT - EPOCH) // HOUR if calendar == DAYS else -((EPOCH - end - self._grace) // HOUR)
        self._due[key] = (due_hour, Closing((customer, contract), calendar, start, end))


def _calendars(timeline: ContractTimeline) -> list[str]:
    """Return the calendars a contract needs."""
    commitments = timeline.contract.commitments
    found = [BILLING, *(COMMITMENT + one.id for one in commitments)]
    ratable = any(one.recognition == "ratable" for one in commitments)
    if ratable or timeline.has_ratable_charges:
        found.append(DAYS)
    return found


def _period(timeline: ContractTimeline, calendar: str, when: datetime) -> tuple[datetime, datetime]:
    contract = timeline.contract
    if calendar == BILLING:
        return billing_period(contract.billing_period, contract.from_, when)
    if calendar == DAYS:
        return billing_period(_days(timeline.entity.timezone), contract.from_, when)
    return commitment_period(timeline, timeline.commitments[calendar.removeprefix(COMMITMENT)], when)


@lru_cache(maxsize=1024)
def _days(timezone: str) -> BillingPeriod:
    return BillingPeriod(unit="day", timezone=timezone)


def _is_over(timeline: ContractTimeline, calendar: str, cursor: datetime) -> bool:
    """Return whether no period of the calendar begins at the cursor any more."""
    to = timeline.contract.to
    if to is not None and cursor >= to:
        return True
    expires = timeline.commitments[calendar.removeprefix(COMMITMENT)].expires if COMMITMENT in calendar else None
    return expires is not None and cursor >= expires
