"""Questions to the stores run in a bounded pool of threads, each with connections of its own.

ClickHouse and SQL clients block; the event loop must not. What exceeds the pool and its queue is refused at once, so
that a slow ClickHouse cannot pile up requests, and a question that takes too long is answered while its thread ends.
Who a caller is, is asked on threads of its own: events are taken whatever the questions of others wait for.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar, cast

from sqlalchemy import Engine

from config.revision import History
from config.settings import Settings
from console.problems import RETRY_AFTER_S, Problem
from core.clock import Clock
from core.errors import InvariantViolation, RejectedError
from queries.stores import Stores
from sinks import ledger
from sinks.clickhouse.client import Client, connect
from sinks.ledger import revisions

HISTORY_S: Final = 2.0
"""How old the known configuration may be."""

_ENDING_S: Final = 2.0
"""So much longer than the server's own limit an answer is waited for."""

CALLER_THREADS: Final = 2
CALLERS_WAITING_MAX: Final = 1_000
"""So many may be looked up at once, as after a restart, when all who looked come again."""

T = TypeVar("T")


class _Threads:
    """Some threads, and how much may wait for them."""

    def __init__(self, name: str, threads: int, waiting_max: int, seconds_max: float) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._open, self._open_max, self._seconds_max = 0, threads + waiting_max, seconds_max

    async def run(self, work: Callable[[], T]) -> T:
        """Run the work on a thread.

        :raises Problem: too much waits, or it takes too long.
        """
        if self._open >= self._open_max:
            raise _busy("too many questions wait: ask again later")
        self._open += 1
        future = asyncio.get_running_loop().run_in_executor(self._threads, work)
        future.add_done_callback(self._ended)  # the thread is busy until then, whoever still waits for it
        try:
            return await asyncio.wait_for(asyncio.shield(future), self._seconds_max)
        except TimeoutError:
            detail = f"the answer took longer than {self._seconds_max:g} s: ask for less"
            raise Problem("timed_out", detail, headers={"Retry-After": str(RETRY_AFTER_S)}) from None

    def _ended(self, future: "asyncio.Future[Any]") -> None:
        self._open -= 1
        if not future.cancelled():
            future.exception()  # seen, also when nobody waits any more

    def close(self) -> None:
        """Wait for what is under way."""
        self._threads.shutdown(wait=True, cancel_futures=True)


class StorePool:
    """Answers questions of one service. Unit of parallelism: one question per thread."""

    def __init__(self, settings: Settings, engine: Engine, clock: Clock) -> None:
        self.engine = engine
        self._settings, self._clock = settings, clock
        limits = settings.console
        self._seconds_max = limits.request_s_max
        self._questions = _Threads("question", limits.threads, limits.waiting_max, limits.request_s_max)
        self._callers = _Threads("caller", CALLER_THREADS, CALLERS_WAITING_MAX, limits.request_s_max)
        self._lock = threading.Lock()
        self._idle: list[Client] = []
        self._history: History | None = None
        self._looked_at_s = float("-inf")

    async def ask(self, question: Callable[[Stores], T]) -> T:
        """Run a question on a thread with ClickHouse, the ledger and the configuration.

        :raises Problem: too many questions wait, or the answer takes too long.
        """
        return await self._questions.run(lambda: self._with_stores(question))

    async def ask_history(self) -> History:
        """Return the configuration's revisions."""
        return await self._questions.run(self.history)

    async def ask_books(self, question: Callable[[Stores], T]) -> T:
        """Run a question that reads the ledger and the configuration only: it is answered while ClickHouse is away."""
        return await self._questions.run(
            lambda: question(Stores(self._settings, _NO_CLICKHOUSE, self.engine, self.history()))
        )

    async def ask_ledger(self, question: Callable[[Engine], T]) -> T:
        """Run a question that needs the ledger only."""
        return await self._questions.run(lambda: question(self.engine))

    async def ask_caller(self, question: Callable[[Engine], T]) -> T:
        """Ask the ledger who a caller is; other questions do not delay it."""
        return await self._callers.run(lambda: question(self.engine))

    def _with_stores(self, question: Callable[[Stores], T]) -> T:
        with self._lock:
            client = self._idle.pop() if self._idle else None
        if client is None:
            seconds = min(self._settings.clickhouse.request_timeout_s, self._seconds_max)
            limited = self._settings.clickhouse.model_copy(update={"request_timeout_s": seconds + _ENDING_S})
            client = connect(limited, seconds)  # what nobody waits for any more ends on the server, too
        usable = False
        try:
            answer = question(Stores(self._settings, client, self.engine, self.history()))
            usable = True
        except (Problem, RejectedError):
            usable = True  # a refusal says nothing about the connection
            raise
        finally:
            if usable:
                with self._lock:
                    self._idle.append(client)
            else:
                client.close()
        return answer

    def history(self) -> History:
        """Return the configuration's revisions, at most HISTORY_S old. Blocks: call it on a thread.

        :raises Problem: none is recorded yet.
        """
        with self._lock:
            known, fresh = self._history, self._clock.monotonic_s() - self._looked_at_s < HISTORY_S
        if known is not None and fresh:
            return known
        found = revisions.load_history_if_changed(self.engine, known) or known
        if found is None:
            raise _busy("no configuration is recorded yet: run `meterbridge migrate`")
        with self._lock:
            self._history, self._looked_at_s = found, self._clock.monotonic_s()
        return found

    def close(self) -> None:
        """Wait for the questions under way and close the connections."""
        self._callers.close()
        self._questions.close()
        while self._idle:
            self._idle.pop().close()


class _Nothing:
    """Stands where a question of the books has no ClickHouse."""

    def __getattr__(self, name: str) -> Any:
        message = f"a question that was said to need the ledger only asks ClickHouse ({name})"
        raise InvariantViolation(message)


_NO_CLICKHOUSE: Final = cast("Client", _Nothing())


def open_pool(settings: Settings, clock: Clock) -> StorePool:
    """Return a pool on the ledger of the settings; ClickHouse is asked when it is needed.

    :raises Unreachable: the ledger does not answer.
    :raises InvalidRequest: it is not migrated.
    """
    engine = ledger.connect(settings.ledger_url)
    try:
        ledger.check_ready(engine)
    except BaseException:
        engine.dispose()
        raise
    return StorePool(settings, engine, clock)


def _busy(detail: str) -> Problem:
    return Problem("unavailable", detail, headers={"Retry-After": str(RETRY_AFTER_S)})
