"""The clients of the load bench, against small servers: every answer is counted, every absence too."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from bench.load import FULL, figures_of, percentile
from bench.load_clients import Outcome, Producers, is_whole

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
REQUEST = b"POST / HTTP/1.1\r\n\r\n"
ACCEPTED = b"HTTP/1.1 204 No Content\r\nx-request-id: 1\r\n\r\n"


@pytest.mark.parametrize(
    ("received", "whole"),
    [
        (ACCEPTED, True),
        (ACCEPTED[:-1], False),
        (b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 2\r\n\r\n{", False),
        (b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 2\r\n\r\n{}", True),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", True),
        (b"", False),
    ],
)
def test_the_end_of_an_answer_is_seen(received: bytes, whole: bool) -> None:
    assert is_whole(received) is whole


def _run(serve: Serve, per_s: float, seconds: float, connections: int) -> Outcome:
    async def scene() -> Outcome:
        outcome = Outcome()
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            host, port = server.sockets[0].getsockname()
            producers = Producers([REQUEST], per_s, seconds, outcome)
            await producers.run(host, port, connections, time.perf_counter())
        return outcome

    return asyncio.run(scene())


def test_all_that_is_due_is_sent_and_its_answer_counted() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1000):
            writer.write(ACCEPTED[:20])
            await asyncio.sleep(0)
            writer.write(ACCEPTED[20:])
        writer.close()

    outcome = _run(serve, 200, 0.5, 4)
    assert outcome.statuses["POST 204"] == len(outcome.posted) == 100
    assert outcome.statuses["POST no answer"] == outcome.unsent == 0


def test_waiting_for_a_connection_is_part_of_the_time() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1000):
            await asyncio.sleep(0.05)
            writer.write(ACCEPTED)
        writer.close()

    outcome = _run(serve, 100, 0.1, 1)  # ten due within 0.1 s, each takes 0.05 s, one after the other
    assert len(outcome.posted) == 10
    assert max(outcome.posted) > 0.3


def test_a_connection_that_is_closed_is_an_error() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.close()

    outcome = _run(serve, 100, 0.1, 2)
    assert outcome.statuses["POST no answer"] == 2
    assert outcome.unsent == 8
    found = {one.case: one.value for one in figures_of(outcome, {"service": 1.0}, FULL)}
    assert found["errors, of all answers"] == 10


def test_percentiles() -> None:
    values = [float(number) for number in range(1000, 0, -1)]
    assert [percentile(values, share) for share in (50, 99, 99.9)] == [501, 991, 1000]
    assert percentile([], 99) == 0
