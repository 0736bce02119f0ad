"""Limits on what a token or an address may ask: buckets that fill with time, and the size of bodies."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from starlette.requests import ClientDisconnect, Request

from console.problems import RETRY_AFTER_S, Problem
from core.clock import Clock

BURST_S: Final = 4.0
KEYS_MAX: Final = 10_000
READING_BYTES_MAX: Final = 256 << 20
"""Bodies that are being read at once."""


class Limiter(Protocol):
    """Limits how much each key may take in time."""

    def take(self, key: str, cost: float = 1.0) -> float:
        """Take `cost` from the key's bucket; return 0, or after how many seconds there will be enough."""
        ...

    def wait_s(self, key: str, cost: float = 1.0) -> float:
        """Return what `take` would, and take nothing."""
        ...


MakeLimiter = Callable[[str, float], Limiter]
"""Makes the limiter of a name and a rate per second."""


@dataclass(slots=True)
class Bucket:
    """What a key may take at once, as of a time.

    A cost above a full bucket is let through when the bucket is full, and paid off after it, so that a large batch
    waits instead of being refused for ever.
    """

    level: float
    at_s: float

    def take(self, cost: float, per_s: float, now_s: float) -> float:
        """Fill up to now and take; return 0, or without taking after how many seconds there will be enough."""
        wait_s = self.wait_s(cost, per_s, now_s)
        if wait_s == 0:
            self.level -= cost
        return wait_s

    def wait_s(self, cost: float, per_s: float, now_s: float) -> float:
        """Fill up to now; return what `take` would."""
        full = full_of(per_s)
        self.level = min(full, self.level + (now_s - self.at_s) * per_s)
        self.at_s = now_s
        return max(0.0, min(cost, full) - self.level) / per_s


def full_of(per_s: float) -> float:
    """Return the level of a full bucket."""
    return max(1.0, per_s * BURST_S)


class RateLimiter:
    """Buckets by key: each fills by `per_s` a second up to `BURST_S` seconds' worth. The oldest keys are forgotten.

    Counts within this process.
    """

    def __init__(self, per_s: float, clock: Clock) -> None:
        self._per_s, self._clock = per_s, clock
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def take(self, key: str, cost: float = 1.0) -> float:
        """Take `cost` from the key's bucket; return 0, or after how many seconds there will be enough."""
        now_s = self._clock.monotonic_s()
        return self._bucket(key, now_s).take(cost, self._per_s, now_s)

    def wait_s(self, key: str, cost: float = 1.0) -> float:
        """Return what `take` would, and take nothing."""
        now_s = self._clock.monotonic_s()
        return self._bucket(key, now_s).wait_s(cost, self._per_s, now_s)

    def _bucket(self, key: str, now_s: float) -> Bucket:
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = Bucket(full_of(self._per_s), now_s)
            if len(self._buckets) > KEYS_MAX:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(key)
        return bucket


def check(limiter: Limiter, key: str, cost: float = 1.0) -> None:
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

    def take(self, size: int) -> "_Taken":
        """Hold that many bytes for a block.

        :raises Problem: 503 if there is no room.
        """
        if self._taken and self._taken + size > self._bytes_max:
            detail = "too many requests are being read: send it again later"
            raise Problem("unavailable", detail, headers={"Retry-After": str(RETRY_AFTER_S)})
        return _Taken(self, size)

    def add(self, size: int) -> None:
        """Count bytes that are held, or with a minus no longer."""
        self._taken += size


class _Taken:
    """A block that holds bytes; a generator would cost more than all else that is done for it."""

    __slots__ = ("_room", "_size")

    def __init__(self, room: Room, size: int) -> None:
        self._room, self._size = room, size

    def __enter__(self) -> None:
        self._room.add(self._size)

    def __exit__(self, *_: object) -> None:
        self._room.add(-self._size)


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
            more = True
            while more:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                part = message.get("body", b"")
                size += len(part)
                if size > bytes_max:
                    raise _too_large(bytes_max)
                parts.append(part)
                more = message.get("more_body", False)
    except TimeoutError:
        headers = {"Connection": "close"}
        raise Problem("too_slow", f"the body did not come within {seconds_max:g} s", headers=headers) from None
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_large(bytes_max: int) -> Problem:
    return Problem("body_too_large", f"at most {bytes_max:,} bytes are read: send it in parts")
