"""Period ends: which contract's billing period is closed in which booked hour, each exactly once.

A period closes in the booked hour that begins at or after its end plus the grace. The watermark decides, not
usage, so customers without any are closed too. Billing starts with the period that holds the later of the
contract's start and `books_open_at` (without one: the first booked hour of the shard).
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from config.periods import billing_period
from operators.rate_terms import EPOCH, FOREVER, ContractTimeline, TermsIndex, microseconds, shard_of

HOUR = timedelta(hours=1)
ContractKey = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Closing:
    """One billing period of one contract that is due."""

    contract: ContractKey
    start: datetime
    end: datetime


class PeriodEnds:
    """The contracts of one shard with what is closed, and what is due next."""

    def __init__(self, shard: int, shards: int, state: list[list[Any]] | None) -> None:
        self._shard = shard
        self._shards = shards
        self._closed: dict[ContractKey, tuple[int, int]] = {
            (customer, contract): (first_us, through_us) for customer, contract, first_us, through_us in state or ()
        }
        """Per contract: start of the first period ever considered, and the end of the last one closed."""
        self._due: dict[ContractKey, tuple[int, Closing]] = {}
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
        for key, timeline in index.timelines.items():
            if shard_of(key[0], self._shards) != self._shard:
                continue
            if key not in self._closed:
                begin = max(timeline.contract.from_, open_from)
                start, _ = billing_period(timeline.contract.billing_period, timeline.contract.from_, begin)
                self._closed[key] = (microseconds(start), microseconds(start))
            self._plan(key, timeline)
        self._next = min((hour for hour, _ in self._due.values()), default=None)

    def next_hour(self) -> int | None:
        """Return the earliest booked hour in which something is due."""
        return self._next

    def is_closed(self, key: ContractKey, period_start: datetime, period_end: datetime) -> bool:
        """Return whether that period was closed; periods before billing started never are."""
        first_us, through_us = self._closed.get(key, (0, 0))
        return first_us <= microseconds(period_start) and microseconds(period_end) <= through_us

    def close(self, index: TermsIndex, hour: int) -> list[Closing]:
        """Close and return everything due in that booked hour, by contract and time."""
        found: list[Closing] = []
        while self._next is not None and self._next <= hour:
            for key, (due_hour, closing) in sorted(self._due.items(), key=lambda item: item[0]):
                if due_hour <= hour:
                    found.append(closing)
                    self._closed[key] = (self._closed[key][0], microseconds(closing.end))
                    del self._due[key]
                    self._plan(key, index.timelines[key])
            self._next = min((due_hour for due_hour, _ in self._due.values()), default=None)
        return sorted(found, key=lambda closing: (closing.contract, closing.start))

    def _plan(self, key: ContractKey, timeline: ContractTimeline) -> None:
        cursor = EPOCH + timedelta(microseconds=self._closed[key][1])
        contract = timeline.contract
        if timeline.ends != FOREVER and contract.to is not None and cursor >= contract.to:
            return
        start, end = billing_period(contract.billing_period, contract.from_, cursor)
        due_hour = -((EPOCH - end - self._grace) // HOUR)
        self._due[key] = (due_hour, Closing(key, start, end))
