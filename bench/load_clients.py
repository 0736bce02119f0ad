"""The clients of the load bench: producers that post at a fixed rate, and viewers with live figures and pages.

They share the cores with what they measure, so posting is kept light: prepared requests over raw connections, one on
its way on each. The load is open: a request is due at its time whatever became of the others, and is timed from then
on, so that a service that falls behind shows in the percentiles and not in a lower rate.
"""

import asyncio
import http
import random
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, cast

TICK_S: Final = 0.001
"""How exactly a request is sent when it is due; what that costs is part of its time."""
ANSWER_S_MAX: Final = 30.0
ARRIVAL_S: Final = 8.0
"""Within this time all viewers come."""
ACCEPTED: Final = b"HTTP/1.1 204 "
GONE: Final = "no answer"
_END: Final = b"\r\n\r\n"
_LENGTH: Final = b"content-length:"


@dataclass
class Outcome:
    """What was seen. Times are seconds from when a request was due."""

    posted: list[float] = field(default_factory=list)
    looked: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    live: int = 0
    unsent: int = 0
    """Requests that were due and could not even be sent: all connections waited for answers."""


class Producers:
    """Posts requests at a fixed rate over a number of connections."""

    def __init__(self, requests: Sequence[bytes], per_s: float, seconds: float, outcome: Outcome) -> None:
        self._requests, self._per_s, self._count = requests, per_s, round(per_s * seconds)
        self._outcome = outcome
        self._idle: deque[_Connection] = deque()
        self._open = 0
        self._sent = 0

    async def run(self, host: str, port: int, connections: int, begins_s: float) -> None:
        """Connect, post everything from `begins_s` on (`time.perf_counter`), and wait for the answers."""
        loop = asyncio.get_running_loop()
        for _ in range(connections):
            _, made = await loop.create_connection(lambda: _Connection(self), host, port)
            self._idle.append(made)
        self._open = connections
        ends_s = begins_s + self._count / self._per_s + ANSWER_S_MAX
        while self._sent < self._count and (now_s := time.perf_counter()) < ends_s and self._open:
            self._send_due(now_s - begins_s, begins_s)
            await asyncio.sleep(TICK_S)
        self._outcome.unsent += self._count - self._sent
        while len(self._idle) < self._open and time.perf_counter() < ends_s:
            await asyncio.sleep(TICK_S)
        self._outcome.statuses[f"POST {GONE}"] += self._open - len(self._idle)
        for connection in self._idle:
            connection.close()

    def _send_due(self, passed_s: float, begins_s: float) -> None:
        due = min(self._count, int(passed_s * self._per_s) + 1) if passed_s >= 0 else 0
        while self._sent < due and self._idle:
            number = self._sent
            self._sent += 1
            self._idle.popleft().post(self._requests[number % len(self._requests)], begins_s + number / self._per_s)

    def answered(self, connection: "_Connection", status: bytes, due_s: float) -> None:
        """Note an answer; the connection is free again."""
        self._outcome.posted.append(time.perf_counter() - due_s)
        self._outcome.statuses[f"POST {status.decode()}"] += 1
        self._idle.append(connection)

    def lost(self, connection: "_Connection", *, waiting: bool) -> None:
        """Note a connection that the service closed."""
        self._open -= 1
        if waiting:
            self._outcome.statuses[f"POST {GONE}"] += 1
        else:
            self._idle.remove(connection)


class _Connection(asyncio.Protocol):
    """One connection with at most one request on its way."""

    def __init__(self, producers: Producers) -> None:
        self._producers = producers
        self._transport: asyncio.Transport | None = None
        self._due_s: float | None = None
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def post(self, request: bytes, due_s: float) -> None:
        """Send a request that was due then."""
        self._due_s = due_s
        if self._transport is not None:
            self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Look whether the answer is complete."""
        received = self._received + data if self._received else data
        if self._due_s is None or not is_whole(received):
            self._received = received
            return
        due_s, self._due_s, self._received = self._due_s, None, b""
        self._producers.answered(self, received[9:12], due_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Say so, unless it was closed from here."""
        if self._transport is not None:
            self._transport = None
            self._producers.lost(self, waiting=self._due_s is not None)

    def close(self) -> None:
        """End the connection."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()


def is_whole(received: bytes) -> bool:
    """Tell whether these bytes are a whole answer."""
    if received.startswith(ACCEPTED):
        return received.endswith(_END)
    end = received.find(_END)
    return end >= 0 and len(received) >= end + len(_END) + _length(received[: end + 2])


def _length(head: bytes) -> int:
    lower = head.lower()
    place = lower.find(_LENGTH)
    return 0 if place < 0 else int(lower[place + len(_LENGTH) : lower.index(b"\r\n", place)])


@dataclass(frozen=True, slots=True)
class Viewer:
    """Somebody with a page of live figures open, who also opens other pages from time to time."""

    host: str
    port: int
    cookie: str
    paths: Sequence[str]
    every_s: float
    begins_s: float
    ends_s: float
    outcome: Outcome

    async def run(self, number: int) -> None:
        """Come before it begins and look until it ends; viewers come, and open pages, at different moments."""
        chance = random.Random(number)
        await asyncio.sleep(chance.uniform(0, ARRIVAL_S))
        live = asyncio.create_task(self._listen())
        due_s = self.begins_s + chance.uniform(0, self.every_s)
        while due_s < self.ends_s:
            await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
            try:
                status = await asyncio.wait_for(self._open(chance.choice(self.paths)), ANSWER_S_MAX)
            except (OSError, EOFError, TimeoutError):
                self.outcome.statuses[f"GET {GONE}"] += 1
            else:
                self.outcome.looked.append(time.perf_counter() - due_s)
                self.outcome.statuses[f"GET {status}"] += 1
            due_s += self.every_s
        live.cancel()

    async def _open(self, path: str) -> int:
        """Open a page over a new connection: the last one has been idle for too long."""
        reader, writer = await asyncio.open_connection(self.host, self.port)
        try:
            writer.write(self._request(path))
            head = await reader.readuntil(_END)
            await reader.readexactly(_length(head))
            return int(head[9:12])
        finally:
            writer.close()

    async def _listen(self) -> None:
        reader, writer = await asyncio.open_connection(self.host, self.port)
        writer.write(self._request("/live"))
        try:
            head = await reader.readuntil(_END)
            if (status := int(head[9:12])) != http.HTTPStatus.OK:
                self.outcome.statuses[f"LIVE {status}"] += 1
                return
            while line := await reader.readline():
                self.outcome.live += line.startswith(b"event: figures")
                if line.startswith(b"event: trouble"):
                    self.outcome.statuses["LIVE trouble"] += 1
            self.outcome.statuses[f"LIVE {GONE}"] += 1
        except (OSError, EOFError):
            self.outcome.statuses[f"LIVE {GONE}"] += 1
        finally:
            writer.close()

    def _request(self, path: str) -> bytes:
        return f"GET {path} HTTP/1.1\r\nHost: {self.host}\r\nCookie: {self.cookie}\r\n\r\n".encode()
