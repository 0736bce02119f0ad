"""Sums facts by hour beside the flow, as booked hours become final: `run` starts it, dashboards and pages read them.

ClickHouse does the work; the thread here waits for it. What fails is tried again: until then questions read the facts,
which takes longer and gives the same figures.
"""

import threading
from collections.abc import Iterator
from datetime import datetime
from typing import Final

import structlog

from config.settings import Settings
from core.directory_lock import DirectoryLock
from core.errors import LockHeld
from queries.reconcile import sealed_until
from queries.stores import Stores, open_stores
from sinks.clickhouse import usage_hours

log = structlog.get_logger()

LOCK: Final = "usage-hours.lock"
"""In the state directory: whoever sums holds it, so that nobody sums what another is about to drop."""
FIRST_AFTER_S: Final = 30.0


def start(settings: Settings, stop: threading.Event) -> threading.Thread | None:
    """Begin in a daemon thread; None if the settings turn it off."""
    if not settings.clickhouse.sum_every_s:
        return None
    thread = threading.Thread(target=_loop, args=(settings, stop), name="summing", daemon=True)
    thread.start()
    return thread


def _loop(settings: Settings, stop: threading.Event) -> None:
    wait_s = min(FIRST_AFTER_S, settings.clickhouse.sum_every_s)
    while not stop.wait(wait_s):
        wait_s = settings.clickhouse.sum_every_s
        try:
            with open_stores(settings) as stores:
                for until in advance(stores, stop):
                    log.info("Facts were summed by hour.", until=until.isoformat())
        except LockHeld:
            continue  # `meterbridge sums` does it
        except Exception as error:  # whatever it is, it must not end the schedule
            log.warning("Facts could not be summed by hour; it is tried again.", cause=repr(error))


def advance(stores: Stores, stop: threading.Event) -> Iterator[datetime]:
    """Sum all hours that are final, and yield up to where it is done.

    :raises LockHeld: another process does it.
    """
    with DirectoryLock(stores.settings.state_dir / LOCK):
        yield from usage_hours.advance(stores.client, stores.history.meters, sealed_until(stores), stop.is_set)


def again(stores: Stores, since: datetime, stop: threading.Event) -> Iterator[datetime]:
    """Drop the sums of a month and later ones, and make them again.

    Questions that are under way get the time that a question may take.

    :raises InvalidRequest: nothing so late is summed.
    :raises LockHeld: another process sums.
    """
    with DirectoryLock(stores.settings.state_dir / LOCK):
        wait_s = max(stores.settings.console.request_s_max, stores.settings.clickhouse.request_timeout_s)
        usage_hours.forget(stores.client, since, lambda: pause(stop, wait_s))
        yield from usage_hours.advance(stores.client, stores.history.meters, sealed_until(stores), stop.is_set)


def pause(stop: threading.Event, seconds: float) -> None:
    """Wait, unless the flag is set before."""
    stop.wait(seconds)
