"""Events that were posted: checked like the flow will, and appended to their streams, many requests at once.

One thread takes all requests that wait, looks at their events, and appends them in one pipeline; what comes meanwhile
is the next group. So a busy service works on large groups and an idle one answers at once.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from config.revision import Rules
from config.settings import Settings
from console.problems import RETRY_AFTER_S, Problem
from console.stores import StorePool
from console.verdicts import Judge, Verdicts
from core.clock import Clock
from core.logging import get_logger
from sources.appending import Appender, NewEntry, entries_of
from sources.sending import BATCH_BYTES_MAX, BATCH_EVENTS_MAX

GROUP_EVENTS_MAX: Final = 20_000
WAITING_BYTES_MAX: Final = 64 << 20
"""Bodies that wait for their turn; more are answered by 503."""
FORBIDDEN_TENANT: Final = "forbidden_tenant"
"""Reason of the API's own: the event's subject is not one of the token's tenants."""

log = get_logger("intake")


@dataclass(frozen=True, slots=True)
class Refused:
    """An event that was not appended. `index`: its place in the request; `id`: as far as it can be read."""

    index: int
    id: str | None
    reason: str
    detail: str


@dataclass(eq=False, slots=True)
class Posted:
    """The events of one request on their way."""

    events: Sequence[bytes]
    tenants: frozenset[str] | None
    """The only subjects allowed; None allows all."""
    request_id: str
    size_bytes: int
    answered: "asyncio.Future[list[Refused]]"
    refused: list[Refused] = field(default_factory=list)


class Intake:
    """Checks and appends events.

    Guarantee: an event is refused by name, or the server has it. After a problem 503 it is unknown: the same events
    sent again are counted once.
    Unit of parallelism: one thread with one connection.
    """

    def __init__(self, settings: Settings, pool: StorePool, clock: Clock) -> None:
        self._pool, self._clock = pool, clock
        self._streams = settings.redis.streams
        limits = settings.console
        self._appender = Appender(settings.redis, limits.durability, limits.replicas, limits.durability_ms_max)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="intake")
        self._lock = threading.Lock()
        self._waiting: deque[Posted] = deque()
        self._waiting_bytes = 0
        self._running = False
        self._judge: Judge | None = None

    async def accept(
        self, events: Sequence[bytes], tenants: frozenset[str] | None, request_id: str, seconds_max: float
    ) -> list[Refused]:
        """Append the events that are good and return the others.

        :raises Problem: 503 if too much waits; nothing was appended then.
        :raises TimeoutError: it takes longer than `seconds_max`; what was appended is unknown then.
        :raises Unreachable: the streams' server is away.
        """
        loop = asyncio.get_running_loop()
        size_bytes = sum(map(len, events))
        posted = Posted(events, tenants, request_id, size_bytes, loop.create_future())
        with self._lock:
            if self._waiting_bytes and self._waiting_bytes + size_bytes > WAITING_BYTES_MAX:
                detail = "too many events wait for the streams' server: send them again later"
                raise Problem("unavailable", detail, headers={"Retry-After": str(RETRY_AFTER_S)})
            self._waiting.append(posted)
            self._waiting_bytes += size_bytes
            start = not self._running
            self._running = True
        if start:
            self._thread.submit(self._work, loop)
        late = loop.call_later(seconds_max, _give_up, posted)
        try:
            return await posted.answered
        finally:
            late.cancel()

    def close(self) -> None:
        """Answer what waits and close the connection."""
        self._thread.shutdown(wait=True)
        self._appender.close()

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            with self._lock:
                group = self._take()
                if not group:
                    self._running = False
                    return
            error: Exception | None = None
            try:
                self._process(group)
            except Exception as raised:
                error = raised
            loop.call_soon_threadsafe(_answer, group, error)

    def _take(self) -> list[Posted]:
        group: list[Posted] = []
        events = 0
        while self._waiting and (not group or events + len(self._waiting[0].events) <= GROUP_EVENTS_MAX):
            posted = self._waiting.popleft()
            self._waiting_bytes -= posted.size_bytes
            events += len(posted.events)
            group.append(posted)
        return group

    def _process(self, group: list[Posted]) -> None:
        history = self._pool.history()
        if self._judge is None or self._judge.history is not history:
            self._judge = Judge(history, self._streams)
        now_ms = int(self._clock.now().timestamp() * 1000)
        raw = [event for posted in group for event in posted.events]
        verdicts = self._judge.decide(raw, now_ms)
        entries: list[NewEntry] = []
        owners: list[Posted] = []
        start = 0
        rules = history.at(now_ms).rules
        for posted in group:
            made = _sort(posted, start, verdicts, self._streams, rules)
            entries += made
            owners += [posted] * len(made)
            start += len(posted.events)
        ids = self._appender.append(entries)
        speaking = log.bind()
        if not speaking.is_enabled_for(logging.DEBUG):  # a call per entry that says nothing is not cheap
            return
        for posted, entry, entry_id in zip(owners, entries, ids, strict=True):
            speaking.debug(
                "Events were appended.",
                request_id=posted.request_id,
                stream=entry.stream,
                entry_id=entry_id,
                events=entry.events,
            )


def _give_up(posted: Posted) -> None:
    if not posted.answered.done():
        posted.answered.set_exception(TimeoutError())


def _answer(group: list[Posted], error: Exception | None) -> None:
    for posted in group:
        if posted.answered.done():  # its caller is gone
            continue
        if error is None:
            posted.answered.set_result(posted.refused)
        else:
            posted.answered.set_exception(error)


def _sort(posted: Posted, start: int, verdicts: Verdicts, streams: tuple[str, ...], rules: Rules) -> list[NewEntry]:
    """Note what is refused of one request and return the entries of the rest."""
    good: list[tuple[str, bytes]] = []
    tenants = posted.tenants
    for index, event in enumerate(posted.events):
        subject = verdicts.subjects[start + index]
        if subject is None:
            reason, detail = verdicts.reasons[start + index]
            posted.refused.append(Refused(index, _id_of(event), reason, detail))
        elif tenants is not None and subject not in tenants:
            detail = "the subject is not one of the token's tenants"
            posted.refused.append(Refused(index, _id_of(event), FORBIDDEN_TENANT, detail))
        else:
            good.append((subject, event))
    return entries_of(
        good,
        streams,
        posted.request_id,
        events_max=min(rules.events_per_entry_max, BATCH_EVENTS_MAX),
        bytes_max=min(rules.entry_bytes_max, BATCH_BYTES_MAX),
    )


def _id_of(event: bytes) -> str | None:
    try:
        plain: Any = orjson.loads(event)
    except orjson.JSONDecodeError:
        return None
    found = plain.get("id") if isinstance(plain, dict) else None
    return found if isinstance(found, str) else None
