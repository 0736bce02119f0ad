"""The ASGI application: the API under /api/v1, the console under /, one set of services behind both."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import BaseRoute, Mount
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from console.api import ENDPOINTS, events, open_routes
from console.endpoint import direct, route
from console.middleware import Frame, Shortcuts
from console.pages import PAGES, page_route, session_routes
from console.pages.base import routing_error
from console.pages.live import live_route
from console.services import Services

STATIC: Final = Path(__file__).with_name("static")


def make_app(services: Services) -> ASGIApp:
    """Return the application; it closes the services when it ends."""

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        await services.live.close()
        services.close()

    routes: list[BaseRoute] = [
        *(route(endpoint, services) for endpoint in ENDPOINTS),
        *open_routes(services),
        *session_routes(services),
        live_route(services),
        *(page_route(page, services) for page in PAGES),
        Mount("/static", StaticFiles(directory=STATIC), name="static"),
    ]
    app = Starlette(
        routes=routes,
        middleware=[Middleware(Frame)],
        exception_handlers={HTTPException: routing_error},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return Shortcuts(app, {(one.method, one.path): Frame(direct(one, services)) for one in events.ENDPOINTS})
