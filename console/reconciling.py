"""Reconciliation for those who look: run at most once at a time, and remembered for a while.

A run reads much; a page that anybody may reload must not start one each time.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final
from weakref import WeakKeyDictionary

from console.services import Services
from console.stores import StorePool
from core.logging import get_logger
from queries.reconcile import Report, reconcile, sealed_until, span_of
from queries.stores import Row, Stores

COLUMNS: Final = (
    "check", "left_side", "right_side", "groups", "differ", "note", "where", "left", "right", "difference",
    "likely_cause",
)  # fmt: skip
KEPT: Final = timedelta(minutes=5)
RENEWED: Final = timedelta(hours=1)
"""The light of the first page is at most that old; whoever looks then starts a new run and does not wait for it."""
TRIED_AGAIN: Final = timedelta(minutes=1)
DAY: Final = timedelta(days=1)
SPANS_MAX: Final = 20

log = get_logger("console")


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
        self._task: asyncio.Task[None] | None = None
        self._tried_at: datetime | None = None

    @classmethod
    def of(cls, services: Services) -> "LastReport":
        """Return the reports of this service."""
        return _REPORTS.setdefault(services.pool, cls())

    @classmethod
    def known(cls, services: Services) -> Known | None:
        """Return the newest report without running one."""
        return cls.of(services)._newest

    @property
    def is_under_way(self) -> bool:
        """Tell whether a run that nobody waits for is under way."""
        return self._task is not None and not self._task.done()

    def renew(self, services: Services) -> None:
        """Start a run over the last sealed day that nobody waits for, unless the newest report is young."""
        now = services.clock.now()
        young = self._newest is not None and now - self._newest.made_at < RENEWED
        tried = self._tried_at is not None and now - self._tried_at < TRIED_AGAIN
        if young or tried or self.is_under_way:
            return
        self._tried_at = now
        self._task = asyncio.create_task(self._run_unasked(services))

    async def _run_unasked(self, services: Services) -> None:
        try:
            sealed = await services.pool.ask(sealed_until)
            await self.ask(services, sealed - DAY, sealed)
        except Exception as error:
            log.warning("A reconciliation for the first page ended without a report.", cause=str(error)[:300])

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


def rows_of(report: Report) -> Iterator[Row]:
    """Yield the report as rows: one for each check that holds, one for each group in which another does not."""
    for check in report.checks:
        head = {
            "check": check.name,
            "left_side": check.left,
            "right_side": check.right,
            "groups": check.groups,
            "differ": check.broken,
            "note": check.note,
        }
        if check.holds:
            yield head | dict.fromkeys(("where", "left", "right", "difference", "likely_cause"), "")
        for found in check.breaks:
            yield head | {
                "where": ", ".join(f"{name}={value}" for name, value in found.where.items()),
                "left": _text(found.left),
                "right": _text(found.right),
                "difference": _text(found.difference),
                "likely_cause": found.cause,
            }


def _text(value: Decimal | int | str) -> str:
    return f"{value:f}" if isinstance(value, Decimal) else str(value)
