"""Closing months through the service: one check or close at a time, and the newest outcome of each period is kept.

A check reads a whole month, so it may take longer than a request may: it goes on on its thread then, and who looks
again finds its outcome.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final
from weakref import WeakKeyDictionary

from console.problems import Problem
from console.services import Services
from console.stores import StorePool
from core.clock import Clock
from core.errors import InvalidRequest
from flows import sealing
from flows.sealing import Decision, Outcome
from queries.closing import entity_of, find_period, period_of
from queries.periods import PeriodStatus, periods
from queries.stores import Stores
from sinks.clickhouse.client import connect

KEPT_MAX: Final = 200


@dataclass(frozen=True, slots=True)
class Checked:
    """What a check or close found, when and in how long."""

    outcome: Outcome
    made_at: datetime
    took: timedelta


class Closings:
    """The checks and closes of one service. For any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str, str], Checked] = OrderedDict()
        self._under_way: tuple[str, str, datetime] | None = None

    @classmethod
    def of(cls, services: Services) -> "Closings":
        """Return the checks and closes of this service."""
        return _CLOSINGS.setdefault(services.pool, cls())

    def known(self, entity: str, period: str) -> Checked | None:
        """Return the newest outcome of a period without making one."""
        with self._lock:
            return self._known.get((entity, period))

    @property
    def under_way(self) -> tuple[str, str, datetime] | None:
        """Return entity, period and since when, if something is under way."""
        with self._lock:
            return self._under_way

    def run(
        self, stores: Stores, entity: str, name: str, decision: Decision, clock: Clock, *, dry_run: bool
    ) -> Outcome:
        """Check the period, and seal it unless `dry_run`. Blocks for as long as it takes: call it on a thread.

        :raises InvalidRequest: there is no such entity or period, or no signing key.
        :raises Problem: another one is under way.
        """
        period = find_period(stores, entity, name)
        begun = clock.now()
        with self._lock:
            if self._under_way is not None:
                what = f"{self._under_way[1]} of {self._under_way[0]}"
                raise Problem("conflict", f"a check or close of {what} is under way: ask again when it has ended")
            self._under_way = (entity, name, begun)
        try:
            # A connection of its own: what the page may ask within its time is not enough for a month.
            with connect(stores.settings.clickhouse) as client:
                outcome = sealing.close(replace(stores, client=client), period, decision, begun, dry_run=dry_run)
            ended = clock.now()
            with self._lock:
                self._known[entity, name] = Checked(outcome, ended, ended - begun)
                self._known.move_to_end((entity, name))
                if len(self._known) > KEPT_MAX:
                    self._known.popitem(last=False)
        finally:
            with self._lock:
                self._under_way = None
        return outcome


_CLOSINGS: "Final[WeakKeyDictionary[StorePool, Closings]]" = WeakKeyDictionary()


def check_period(stores: Stores, entity: str, name: str) -> None:
    """Make sure that there is such a period.

    :raises Problem: 404.
    """
    try:
        period_of(entity_of(stores.history, entity), name)
    except InvalidRequest as error:
        raise Problem("not_found", str(error)) from error


def period_named(stores: Stores, entity: str, name: str, now: datetime) -> PeriodStatus:
    """Return the status of one period.

    :raises Problem: 404: there is none, or nothing was ever booked in it.
    """
    check_period(stores, entity, name)
    found = [one for one in periods(stores, now, since=name, entity=entity) if one.accounting.name == name]
    if not found:
        raise Problem("not_found", f"nothing is booked in {name} of {entity}")
    return found[0]
