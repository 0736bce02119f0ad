"""Reconciliation for those who look: run at most once at a time, and remembered for a while.

A run reads much; a page that anybody may reload must not start one each time.
"""

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from weakref import WeakKeyDictionary

from console.services import Services
from console.stores import StorePool
from queries.reconcile import Report, reconcile, span_of
from queries.stores import Stores

KEPT: Final = timedelta(minutes=5)
SPANS_MAX: Final = 20


@dataclass(frozen=True, slots=True)
class Known:
    """A report, and when it was made."""

    report: Report
    made_at: datetime
    took: timedelta


class LastReport:
    """The reports of one service, by the span asked for."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._known: dict[tuple[datetime | None, datetime | None], Known] = {}
        self._newest: Known | None = None

    @classmethod
    def of(cls, services: Services) -> "LastReport":
        """Return the reports of this service."""
        return _REPORTS.setdefault(services.pool, cls())

    @classmethod
    def known(cls, services: Services) -> Known | None:
        """Return the newest report without running one."""
        return cls.of(services)._newest

    async def ask(
        self, services: Services, begins: datetime | None, ends: datetime | None, *, again: bool = False
    ) -> Known:
        """Return the report over the span, at most KEPT old unless nothing newer is asked for `again`.

        :raises Problem: it takes longer than a request may.
        """
        async with self._lock:
            now = services.clock.now()
            known = self._known.get((begins, ends))
            if known is not None and not again and now - known.made_at < KEPT:
                return known
            report = await services.pool.ask(lambda stores: _run(stores, begins, ends))
            made = Known(report, services.clock.now(), services.clock.now() - now)
            if len(self._known) >= SPANS_MAX:
                self._known.pop(next(iter(self._known)))
            self._known[begins, ends] = self._newest = made
            return made


_REPORTS: "Final[WeakKeyDictionary[StorePool, LastReport]]" = WeakKeyDictionary()


def _run(stores: Stores, begins: datetime | None, ends: datetime | None) -> Report:
    return reconcile(stores, span_of(stores, begins, ends))
