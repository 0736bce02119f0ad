"""Live numbers: asked once for all who listen, only while somebody does, and again after a failure."""

import asyncio
from contextlib import ExitStack

import httpx
import pytest

from console.live import ENDED, Broadcast
from console.problems import Problem
from console.services import Services
from tests.console.conftest import bearer, make_token, same_origin
from tests.console.server import serving


class _Source:
    """Counts how often it is asked; fails on the readings named."""

    def __init__(self, *failing: int) -> None:
        self.asked = 0
        self._failing = failing

    async def __call__(self) -> bytes:
        self.asked += 1
        if self.asked in self._failing:
            message = "away"
            raise RuntimeError(message)
        return str(self.asked).encode()


def test_all_listeners_get_the_same_and_the_source_is_asked_once_for_all() -> None:
    source = _Source()

    async def scene() -> list[list[bytes]]:
        broadcast = Broadcast(source, 10, 0.02)

        async def view() -> list[bytes]:
            async with broadcast.listen() as queue:
                return [await queue.get() for _ in range(3)]

        return await asyncio.gather(*(view() for _ in range(5)))

    seen = asyncio.run(scene())
    assert all(one == seen[0] for one in seen)
    assert source.asked <= 4


def test_a_slow_listener_misses_some_and_delays_nobody() -> None:
    source = _Source()

    async def scene() -> tuple[bytes, int]:
        broadcast = Broadcast(source, 10, 0.01)
        async with broadcast.listen() as slow:
            async with broadcast.listen() as quick:
                for _ in range(5):
                    await quick.get()
            return slow.get_nowait(), slow.qsize()

    newest, left = asyncio.run(scene())
    assert int(newest) >= 4
    assert left == 0


def test_nobody_listening_nothing_is_asked() -> None:
    source = _Source()

    async def scene() -> tuple[int, int]:
        broadcast = Broadcast(source, 10, 0.01)
        async with broadcast.listen() as queue:
            await queue.get()
        asked = source.asked
        await asyncio.sleep(0.1)
        still = source.asked
        async with broadcast.listen() as queue:  # and it begins again
            assert int(await queue.get()) > asked
        return asked, still

    asked, still = asyncio.run(scene())
    assert asked == still


def test_what_cannot_be_read_is_read_again() -> None:
    source = _Source(1, 2)

    async def scene() -> bytes:
        async with Broadcast(source, 10, 0.01).listen() as queue:
            return await queue.get()

    assert asyncio.run(scene()) == b"3"


def test_a_late_listener_has_the_last_message_at_once_and_too_many_are_refused() -> None:
    async def scene() -> None:
        broadcast = Broadcast(_Source(), 2, 60)
        async with broadcast.listen() as first:
            known = await first.get()
            async with broadcast.listen() as second:
                assert second.get_nowait() == known
                with pytest.raises(Problem, match="unavailable"):
                    async with broadcast.listen():
                        pytest.fail("there are two already")
            async with broadcast.listen() as third:
                assert third.get_nowait() == known

    asyncio.run(scene())


def test_the_end_reaches_all_who_listen_and_who_come_later() -> None:
    source = _Source()

    async def scene() -> list[bytes]:
        broadcast = Broadcast(source, 10, 0.01)
        async with broadcast.listen() as first:
            await first.get()
            broadcast.end()
            await asyncio.sleep(0.05)  # what is read meanwhile does not take its place
            async with broadcast.listen() as second:
                return [await first.get(), await second.get()]

    assert asyncio.run(scene()) == [ENDED, ENDED]


def test_streams_end_well_with_the_service(live_services: Services) -> None:
    with ExitStack() as kept:
        client = kept.enter_context(httpx.Client(timeout=20))
        with serving(live_services) as address:
            client.base_url = httpx.URL(address)
            token = make_token(live_services)
            client.post("/login", data={"token": token}, headers=same_origin(client))
            asked = (client.stream("GET", "/api/v1/live", headers=bearer(token)), client.stream("GET", "/live"))
            lines = [kept.enter_context(one).iter_lines() for one in asked]
            assert [next(one).partition(":")[0] for one in lines] == ["event", "retry"]
        for one in lines:
            list(one)  # a stream that is cut off raises an error
