"""Limits on what a token or an address may ask: buckets that fill with time, and the size of bodies."""

import asyncio
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request

from console.problems import RETRY_AFTER_S, Problem
from core.clock import Clock

BURST_S: Final = 4.0
KEYS_MAX: Final = 10_000
READING_BYTES_MAX: Final = 256 << 20
"""Bodies that are being read at once."""


@dataclass(slots=True)
class _Bucket:
    level: float
    at_s: float


class RateLimiter:
    """Buckets by key: each fills by `per_s` a second up to `BURST_S` seconds' worth. The oldest keys are forgotten.

    Counts within this process. A cost above a full bucket is let through when the bucket is full, and paid off after
    it, so that a large batch waits instead of being refused for ever.
    """

    def __init__(self, per_s: float, clock: Clock) -> None:
        self._per_s, self._clock = per_s, clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, key: str, cost: float = 1.0) -> float:
        """Take `cost` from the key's bucket; return 0, or after how many seconds there will be enough."""
        bucket, full = self._filled(key)
        missing = min(cost, full) - bucket.level
        if missing > 0:
            return missing / self._per_s
        bucket.level -= cost
        return 0.0

    def wait_s(self, key: str, cost: float = 1.0) -> float:
        """Return what `take` would, and take nothing."""
        bucket, full = self._filled(key)
        return max(0.0, min(cost, full) - bucket.level) / self._per_s

    def _filled(self, key: str) -> tuple[_Bucket, float]:
        now_s, full = self._clock.monotonic_s(), max(1.0, self._per_s * BURST_S)
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = _Bucket(full, now_s)
            if len(self._buckets) > KEYS_MAX:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(key)
        bucket.level = min(full, bucket.level + (now_s - bucket.at_s) * self._per_s)
        bucket.at_s = now_s
        return bucket, full


def check(limiter: RateLimiter, key: str, cost: float = 1.0) -> None:
    """Take from the bucket.

    :raises Problem: 429 with `Retry-After`, in whole seconds.
    """
    wait_s = limiter.take(key, cost)
    if wait_s > 0:
        raise too_many("the limit of this token is reached", wait_s)


def too_many(what: str, wait_s: float) -> Problem:
    """Return the answer 429 with the whole seconds after which to ask again."""
    seconds = max(1, int(wait_s) + 1)
    return Problem("too_many_requests", f"{what}: ask again in {seconds} s", headers={"Retry-After": str(seconds)})


class Room:
    """Memory for bodies on their way: what is full is refused, so that many slow callers cannot fill the process."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max, self._taken = bytes_max, 0

    @contextmanager
    def take(self, size: int) -> Iterator[None]:
        """Hold that many bytes for the block.

        :raises Problem: 503 if there is no room.
        """
        if self._taken and self._taken + size > self._bytes_max:
            detail = "too many requests are being read: send it again later"
            raise Problem("unavailable", detail, headers={"Retry-After": str(RETRY_AFTER_S)})
        self._taken += size
        try:
            yield
        finally:
            self._taken -= size


async def read_body(request: Request, bytes_max: int, seconds_max: float, room: Room) -> bytes:
    """Return the whole body.

    :raises Problem: 413, as soon as it is known to be larger than `bytes_max`; 408 if it takes longer to come; 503 if
        there is no room for it.
    """
    stated = request.headers.get("content-length", "")
    if stated.isdigit() and int(stated) > bytes_max:
        raise _too_large(bytes_max)
    with room.take(int(stated) if stated.isdigit() else bytes_max):
        return await _read(request, bytes_max, seconds_max)


async def _read(request: Request, bytes_max: int, seconds_max: float) -> bytes:
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(seconds_max):
            async for part in request.stream():
                size += len(part)
                if size > bytes_max:
                    raise _too_large(bytes_max)
                parts.append(part)
    except TimeoutError:
        headers = {"Connection": "close"}
        raise Problem("too_slow", f"the body did not come within {seconds_max:g} s", headers=headers) from None
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_large(bytes_max: int) -> Problem:
    return Problem("body_too_large", f"at most {bytes_max:,} bytes are read: send it in parts")
