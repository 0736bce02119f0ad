"""Buckets of rate limits in memory that several worker processes share, so that a limit holds for all of them together.

A table of fixed size: a key has its place in one set of a few, and the one that was used longest ago makes room. A
bucket that is not used fills up, so one that is forgotten was most likely full. A set is changed under a lock of the
kernel, held for microseconds and gone with the process that holds it.
"""

import fcntl
import hashlib
import mmap
import struct
import tempfile
from typing import BinaryIO, Final

from console.limits import KEYS_MAX, Bucket, full_of
from core.clock import Clock

WAYS: Final = 8
SETS: Final = 2048
_BUCKET: Final = struct.Struct("=16sdd")
"""Digest of the key, level, time."""
_SET_BYTES: Final = WAYS * _BUCKET.size
SIZE_BYTES: Final = SETS * _SET_BYTES
_NOBODY: Final = bytes(16)

if SETS * WAYS < KEYS_MAX:  # pragma: no cover
    raise AssertionError


def new_file() -> BinaryIO:
    """Return an empty table; its file descriptor is handed to the workers, and it goes with the last of them."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller's
    file.write(bytes(SIZE_BYTES))  # room on the disk now: a worker that finds none later would die by SIGBUS
    file.flush()
    return file


class SharedBuckets:
    """The table of one service, as one worker sees it. Times are of the machine's monotonic clock.

    Guarantee: two workers never take the same room of a bucket.
    Unit of parallelism: a process; within it, one thread.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._memory = mmap.mmap(descriptor, SIZE_BYTES)

    def take(self, key: str, cost: float, per_s: float, now_s: float, *, keep: bool) -> float:
        """Take from a bucket that fills by `per_s`; return 0, or after how many seconds there will be enough.

        :param keep: False only looks.
        """
        digest = hashlib.blake2b(key.encode(), digest_size=16).digest()
        number = int.from_bytes(digest[:4]) % SETS
        fcntl.lockf(self._descriptor, fcntl.LOCK_EX, 1, number)
        try:
            place, bucket = self._find(number * _SET_BYTES, digest, full_of(per_s), now_s)
            wait_s = bucket.take(cost, per_s, max(now_s, bucket.at_s))
            if keep:
                _BUCKET.pack_into(self._memory, place, digest, bucket.level, bucket.at_s)
        finally:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, number)
        return wait_s

    def _find(self, start: int, digest: bytes, full: float, now_s: float) -> tuple[int, Bucket]:
        """Return the place of the key's bucket and the bucket; a new one in the place used longest ago."""
        oldest, oldest_s = start, float("inf")
        for place in range(start, start + _SET_BYTES, _BUCKET.size):
            found, level, at_s = _BUCKET.unpack_from(self._memory, place)
            if found == digest:
                return place, Bucket(level, at_s)
            if found == _NOBODY:
                at_s = float("-inf")
            if at_s < oldest_s:
                oldest, oldest_s = place, at_s
        return oldest, Bucket(full, now_s)

    def close(self) -> None:
        """Let go of the memory."""
        self._memory.close()


class SharedLimiter:
    """As `RateLimiter`, for all workers of a service together. `name` tells limits of the same keys apart."""

    def __init__(self, buckets: SharedBuckets, name: str, per_s: float, clock: Clock) -> None:
        self._buckets, self._name, self._per_s, self._clock = buckets, name, per_s, clock

    def take(self, key: str, cost: float = 1.0) -> float:
        """Take `cost` from the key's bucket; return 0, or after how many seconds there will be enough."""
        return self._buckets.take(f"{self._name} {key}", cost, self._per_s, self._clock.monotonic_s(), keep=True)

    def wait_s(self, key: str, cost: float = 1.0) -> float:
        """Return what `take` would, and take nothing."""
        return self._buckets.take(f"{self._name} {key}", cost, self._per_s, self._clock.monotonic_s(), keep=False)
