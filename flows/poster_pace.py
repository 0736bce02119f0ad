"""How fast the poster may go: token bucket, circuit breaker, backoff. Clock and chance are passed in."""

import random
from dataclasses import dataclass
from datetime import datetime

from core.clock import Clock

BACKOFF_FIRST_S = 1.0
BACKOFF_MAX_S = 300.0
BREAKER_FAILURES = 3
BREAKER_OPEN_S = 5.0
BREAKER_OPEN_MAX_S = 300.0


def backoff_s(attempts: int, chance: random.Random, *, first_s: float = BACKOFF_FIRST_S) -> float:
    """Return a wait with full jitter: anything up to first_s x 2^(attempts - 1), at most BACKOFF_MAX_S."""
    ceiling = min(BACKOFF_MAX_S, first_s * 2 ** min(max(attempts, 1) - 1, 20))
    return chance.uniform(0, ceiling)


class TokenBucket:
    """Lets `rate_per_s` calls a second through, `burst` at once; a rate of 0 is no limit."""

    def __init__(self, rate_per_s: float, burst: int, clock: Clock) -> None:
        self._rate = rate_per_s
        self._burst = max(1, burst)
        self._clock = clock
        self._tokens = float(self._burst)
        self._at_s = clock.monotonic_s()

    def take_or_wait_s(self) -> float:
        """Take a token and return 0, or return the seconds until there is one."""
        if self._rate <= 0:
            return 0.0
        now_s = self._clock.monotonic_s()
        self._tokens = min(self._burst, self._tokens + (now_s - self._at_s) * self._rate)
        self._at_s = now_s
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        # Not less than a millisecond: what is left of the arithmetic must not become a wait that never ends.
        return max(0.001, (1 - self._tokens) / self._rate)


@dataclass
class Breaker:
    """Stops calling an ERP that fails again and again, and tries one small batch after a while.

    A failure is a call whose result says nothing about the postings (not sent, throttled, unknown); a rejection is
    an answer. Each trial that fails doubles the wait, up to BREAKER_OPEN_MAX_S.
    """

    clock: Clock
    failures: int = 0
    open_until_s: float = 0.0
    open_s: float = BREAKER_OPEN_S
    failing_since: datetime | None = None
    """Time of the first call without an answer since the last one with it."""
    cause: str = ""

    @property
    def tripped(self) -> bool:
        """Tell whether the next call is only a trial."""
        return self.failures >= BREAKER_FAILURES

    def wait_s(self) -> float:
        """Return the seconds until the next call is allowed."""
        return max(0.0, self.open_until_s - self.clock.monotonic_s())

    def succeeded(self) -> None:
        """Note an answer."""
        self.failures, self.open_until_s, self.open_s = 0, 0.0, BREAKER_OPEN_S
        self.failing_since, self.cause = None, ""

    def failed(self, cause: str = "") -> None:
        """Note a call without an answer."""
        self.failures += 1
        self.cause = cause or self.cause
        if self.failing_since is None:
            self.failing_since = self.clock.now()
        if self.tripped:
            self.open_until_s = self.clock.monotonic_s() + self.open_s
            self.open_s = min(self.open_s * 2, BREAKER_OPEN_MAX_S)

    def pause(self, seconds: float) -> None:
        """Wait at least that long: the ERP asked for it."""
        self.open_until_s = max(self.open_until_s, self.clock.monotonic_s() + seconds)
