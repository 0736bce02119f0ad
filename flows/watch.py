"""Measures from time to time what no step of the work passes by: disks, files, open exceptions. For metrics only.

Guarantee: none of the results depends on it, and it stops nothing. A measurement that fails keeps its old values,
and `meterbridge_watch_timestamp_seconds` tells how old they are.
Unit of parallelism: one daemon thread per process.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from core.clock import Clock
from core.logging import without_password
from core.metrics import WATCHED

log = structlog.get_logger()

TICK_S: Final = 5.0
CAUSE_CHARACTERS_MAX: Final = 300


@dataclass(frozen=True, slots=True)
class Measurement:
    """Something to measure every so many seconds; `measure` sets metrics and may raise anything."""

    part: str
    every_s: float
    measure: Callable[[], None]
    after_s: float = 0.0
    """When to make it first, from the start."""


class Watch:
    """Makes each measurement when it is due, one after the other."""

    def __init__(self, measurements: Sequence[Measurement], clock: Clock) -> None:
        self._measurements = tuple(measurements)
        self._clock = clock
        self._due_s = {one.part: clock.monotonic_s() + one.after_s for one in measurements}
        self._failing: set[str] = set()
        self._stop = threading.Event()

    def start(self) -> None:
        """Measure in the background until `stop` is called or the process ends."""
        threading.Thread(target=self._run, name="watch", daemon=True).start()

    def stop(self) -> None:
        """Make no further measurement; one under way is not waited for."""
        self._stop.set()

    def pass_once(self) -> None:
        """Make the measurements that are due."""
        for one in self._measurements:
            if self._clock.monotonic_s() >= self._due_s[one.part] and not self._stop.is_set():
                self._measure(one)
                self._due_s[one.part] = self._clock.monotonic_s() + one.every_s

    def _measure(self, one: Measurement) -> None:
        try:
            one.measure()
        except Exception as error:  # a server that is away must not end the watch of everything else
            if one.part not in self._failing:
                cause = without_password(str(getattr(error, "orig", error)))[:CAUSE_CHARACTERS_MAX]
                log.warning("A measurement for the metrics failed; it is tried again.", of=one.part, cause=cause)
            self._failing.add(one.part)
            return
        self._failing.discard(one.part)
        WATCHED.labels(one.part).set(self._clock.now().timestamp())

    def _run(self) -> None:
        while not self._stop.is_set():
            self.pass_once()
            self._stop.wait(TICK_S)
