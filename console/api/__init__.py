"""The resources of the API, one file each. `ENDPOINTS` lists them all: routes and OpenAPI document are made of it."""

from typing import Final

from starlette.routing import Route

from console.api import events, me, openapi, usage
from console.endpoint import Endpoint
from console.services import Services

ENDPOINTS: Final[tuple[Endpoint, ...]] = (*events.ENDPOINTS, *usage.ENDPOINTS, *me.ENDPOINTS)


def open_routes(services: Services) -> list[Route]:
    """Return the routes that need no token: health, and the OpenAPI document."""
    return [openapi.document_route(ENDPOINTS), *me.health_routes(services)]
