"""Live figures by server-sent events: one question each few seconds, shared by all who look.

A viewer costs the stores nothing: whoever looks gets the last figures, and the first to ask after they grew old asks
for new ones. If the stores do not answer, the stream says so and goes on; the page keeps what it has.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import datetime
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from console.formats import STATES, ago, count, minute, when
from console.live import ENDED, Broadcast
from console.problems import of_error
from console.services import Services
from queries.standing import books, last_arrival, rate_per_s
from queries.stores import Stores

PATH: Final = "/live"
LOOK_S: Final = 5.0
"""So often the session is looked at, whether there are new figures or not."""
VIEWERS_MAX: Final = 500
_STALE_S: Final = 120


def figures(stores: Stores, now: datetime) -> dict[str, Any]:
    """Return the figures by name, ready to be shown, and the state of some: good, warn or bad."""
    newest, far = last_arrival(stores), books(stores)
    waiting = {state: n for state, n in far.postings_by_state.items() if STATES.get(state) in ("bad", "warn")}
    posted = sum(n for state, n in far.postings_by_state.items() if STATES.get(state) == "good")
    fresh_s = None if newest is None else (now - newest).total_seconds()
    return {
        "figures": {
            "rate": f"{rate_per_s(stores, now):,.0f}",
            "freshness": ago(newest, now),
            "newest": when(newest),
            "watermark": minute(far.watermark),
            "watermark_age": ago(far.watermark, now),
            "sealed": minute(far.sealed_until),
            "sealed_age": ago(far.sealed_until, now),
            "posted": count(posted),
            "waiting": count(sum(waiting.values())),
            "erp": "waiting" if far.erp_waiting else "answers",
        },
        "states": {
            "freshness": "" if fresh_s is None or fresh_s < _STALE_S else "warn",
            "waiting": "warn" if waiting else "good",
            "erp": "bad" if far.erp_waiting else "good",
        },
    }


async def _message(services: Services) -> bytes:
    """Return the figures, or why there are none, as one server-sent event."""
    now = services.clock.now()
    try:
        found = await services.pool.ask(lambda stores: figures(stores, now))
    except Exception as error:
        problem = of_error(error)
        return b"event: trouble\ndata: " + orjson.dumps({"title": problem.title}) + b"\n\n"
    return b"event: figures\ndata: " + orjson.dumps(found) + b"\n\n"


def live_route(services: Services) -> Route:
    """Return the route of the stream; it needs a session that may read everything, and ends with it."""
    feed = Broadcast(lambda: _message(services), VIEWERS_MAX)
    services.feeds.append(feed)

    async def answer(request: Request) -> Response:
        token = await services.authenticator.token_of_session(request)
        if token is None:
            return Response(status_code=401)
        if token.tenants:
            return Response(status_code=403)
        if request.method == "HEAD":
            return Response(media_type="text/event-stream")
        feed.check_room()
        return StreamingResponse(
            _stream(feed, request, services), media_type="text/event-stream", headers={"Cache-Control": "no-store"}
        )

    return Route(PATH, answer, methods=["GET"], name="live")


async def _stream(feed: Broadcast, request: Request, services: Services) -> AsyncIterator[bytes]:
    yield b"retry: 3000\n\n"
    async with feed.listen() as newest:
        while not await request.is_disconnected():
            if await services.authenticator.token_of_session(request) is None:
                return  # logged out, expired or revoked
            with suppress(TimeoutError):
                message = await asyncio.wait_for(newest.get(), LOOK_S)
                if message == ENDED:
                    return
                yield message
