"""Live numbers for many viewers: one question for all of them, asked only while somebody looks."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

from console.problems import RETRY_AFTER_S, Problem
from console.stores import StorePool
from core.clock import Clock
from core.errors import RetryableError
from core.logging import get_logger
from queries.overview import overview
from queries.stores import Row, Stores

EVERY_S: Final = 2.0
ENDED: Final = b""
"""What listeners get for a message when the service ends."""

log = get_logger("live")


async def read_overview(pool: StorePool, clock: Clock) -> Row:
    """Return the overview; while ClickHouse is away, without what it has."""
    now = clock.now()
    try:
        return await pool.ask(lambda stores: overview(stores, now))
    except RetryableError as error:
        cause = str(error)

    def without(stores: Stores) -> Row:
        found = overview(stores, now)
        found["errors"]["clickhouse"] = cause
        return found

    return await pool.ask_books(without)


class Broadcast:
    """Asks `read` every few seconds and hands what it returns to all listeners; a slow one misses some.

    What cannot be read is logged and asked again: listeners keep what they have.
    """

    def __init__(self, read: Callable[[], Awaitable[bytes]], listeners_max: int, every_s: float = EVERY_S) -> None:
        self._read, self._listeners_max, self._every_s = read, listeners_max, every_s
        self._listeners: set[asyncio.Queue[bytes]] = set()
        self._task: asyncio.Task[None] | None = None
        self._last: bytes | None = None
        self._has_ended = False

    def end(self) -> None:
        """Let all who listen go, and whoever comes from now on: a stream never ends by itself."""
        self._has_ended = True
        for queue in self._listeners:
            _replace(queue, ENDED)

    def check_room(self) -> None:
        """Make sure that one more may listen, before an answer begins.

        :raises Problem: 503.
        """
        if len(self._listeners) >= self._listeners_max:
            detail = "too many viewers get live numbers: ask again later"
            raise Problem("unavailable", detail, headers={"Retry-After": str(RETRY_AFTER_S)})

    @asynccontextmanager
    async def listen(self) -> AsyncIterator["asyncio.Queue[bytes]"]:
        """Yield a queue that holds the newest message that was not taken yet; the last known one at once.

        :raises Problem: 503 if there are too many listeners.
        """
        self.check_room()
        queue: asyncio.Queue[bytes] = asyncio.Queue(maxsize=1)
        self._listeners.add(queue)
        if self._has_ended:
            queue.put_nowait(ENDED)
        elif self._task is None:
            self._last = None
            self._task = asyncio.create_task(self._run())
        elif self._last is not None:
            queue.put_nowait(self._last)
        try:
            yield queue
        finally:
            self._listeners.discard(queue)
            if not self._listeners:
                await self.close()

    async def _run(self) -> None:
        while not self._has_ended:
            try:
                message = await self._read()
            except Exception as error:
                log.warning("The live numbers cannot be read.", cause=str(error))
            else:
                self._last = message
                for queue in self._listeners if not self._has_ended else ():
                    _replace(queue, message)
            await asyncio.sleep(self._every_s)

    async def close(self) -> None:
        """Stop asking."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


def _replace(queue: "asyncio.Queue[bytes]", message: bytes) -> None:
    with suppress(asyncio.QueueEmpty):
        queue.get_nowait()
    queue.put_nowait(message)
