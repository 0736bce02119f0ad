"""Chance and death in a simulated run: every random choice comes from the seed, and every step may be the last."""

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from core import faults

TRACE_MAX = 20_000
TARGETS = {
    "log": (
        "log.commit", "log.after-commit", "log.append", "log.sync", "segment.", "disk.append-torn", "disk.rename",
        "disk.cut",
    ),
    "reader": ("redis.", "source.", "engine.commit"),
    "posting": ("engine.", "outbox.", "poster.", "erp."),
    "flow": (
        "engine.commit", "engine.after-commit", "ledger.commit", "outbox.", "poster.", "erp.", "dedupe.", "book.",
        "rate.", "source.", "usage_facts.", "rated_usage.", "log.sync", "log.append", "segment.", "disk.append-torn",
    ),
}  # fmt: skip
"""Where a run may prefer to die, by world, so that rare steps get their share."""
TARGET_RATE = 0.3
FIRST_LENGTH = 40


class Died(BaseException):
    """The process that was running is gone, as after SIGKILL or a power cut. Not an Exception: nothing catches it."""


class Broken(AssertionError):
    """Something that must always hold does not."""


def require(holds: object, what: str) -> None:
    """Raise Broken unless it holds."""
    if not holds:
        raise Broken(what)


class Fate:
    """Draws all chances of a run, keeps the trace, and ends processes at step boundaries.

    Each activity of a process dies with some chance: at a step drawn evenly over as many as it took the last time, or
    at a step of the kind this run aims at. Once `deaths_left` is 0 (or `calm()` was called) nothing dies any more.
    """

    def __init__(self, seed: int, world: str) -> None:
        self.random = random.Random(f"{world}/{seed}")
        self.trace: list[str] = []
        self.deaths: Counter[str] = Counter()
        self.steps = 0
        self.deaths_left = self.random.choice((0, 1, 3, 6, 6))
        self.fault_rate = self.random.choice((0.0, 0.1, 0.35))
        self._death_rate = self.random.choice((0.15, 0.4))
        self._target = self.random.choice(TARGETS.get(world, ("",))) if self.random.random() < 0.5 else ""
        self._lengths: dict[str, int] = {}
        self._mortal = False
        self._taken = 0
        self._last_step = 0

    def note(self, text: str) -> None:
        """Add a line to the trace; the same seed gives the same trace."""
        if len(self.trace) < TRACE_MAX:
            self.trace.append(text)

    def aim(self, point: str) -> None:
        """Prefer to die at this kind of step, several times."""
        self._target, self.deaths_left = point, 4

    def step(self, point: str) -> None:
        """Pass a boundary between two steps of the running process, or die at it."""
        self.note(point)
        if self.is_dying_at(point):
            self.die(point)

    def is_dying_at(self, point: str) -> bool:
        """Tell whether a crash is due here; the caller then lets it happen by `die`."""
        self.steps += 1
        if not self._mortal or not self.deaths_left:
            return False
        self._taken += 1
        if self._target and point.startswith(self._target):
            return self.random.random() < TARGET_RATE
        return self._taken == self._last_step

    def die(self, point: str) -> None:
        """End the running process here."""
        self.deaths_left -= 1
        self.deaths[point.split(" ", maxsplit=1)[0]] += 1
        self.note(f"died at {point}")
        raise Died(point)

    def fails(self) -> bool:
        """Tell whether the next call to something outside fails."""
        return self.fault_rate > 0 and self.random.random() < self.fault_rate

    def calm(self) -> None:
        """Let everything work from now on."""
        self.deaths_left, self.fault_rate = 0, 0.0

    @contextmanager
    def process(self, activity: str) -> Iterator[None]:
        """Within this context a process does something in which it may die."""
        self._mortal, self._taken, self._last_step = True, 0, 0
        if self.deaths_left and self.random.random() < self._death_rate:
            self._last_step = self.random.randrange(1, self._lengths.get(activity, FIRST_LENGTH) + 2)
        try:
            yield
            self._lengths[activity] = self._taken
        finally:
            self._mortal = False

    @contextmanager
    def at_fault_points(self) -> Iterator[None]:
        """Make the product's own fault points boundaries as well."""
        with patch.object(faults, "reach", self.step):
            yield
