"""The clock is passed in, so that logic is repeatable and tests need not wait."""

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Tells the time and sleeps. Operators never hold one."""

    def now(self) -> datetime:
        """Return the current time, aware UTC."""
        ...

    def monotonic_s(self) -> float:
        """Return seconds from an arbitrary start, never going back."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait that many seconds."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Return the current time, aware UTC."""
        return datetime.now(UTC)

    def monotonic_s(self) -> float:
        """Return seconds of the monotonic clock."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait that many seconds."""
        time.sleep(seconds)


class ManualClock:
    """A clock for tests and simulation: `sleep` moves it."""

    def __init__(self, start: datetime) -> None:
        self._now = start
        self._elapsed_s = 0.0

    def now(self) -> datetime:
        """Return the set time."""
        return self._now

    def monotonic_s(self) -> float:
        """Return the seconds slept so far."""
        return self._elapsed_s

    def sleep(self, seconds: float) -> None:
        """Move the clock forward by that many seconds."""
        self._now += timedelta(seconds=seconds)
        self._elapsed_s += seconds

    def step(self, seconds: float) -> None:
        """Set the wall clock by that many seconds, back if negative; no time passes."""
        self._now += timedelta(seconds=seconds)
