"""The resources of the API, one file each. `ENDPOINTS` lists them all: routes and OpenAPI document are made of it."""

from typing import Final

from starlette.routing import Route

from console.api import (
    acts,
    audit,
    catalog,
    customers,
    documents,
    events,
    exceptions,
    me,
    openapi,
    period_acts,
    periods,
    rated,
    retention,
    status,
    trace,
    usage,
)
from console.endpoint import Endpoint
from console.services import Services

ENDPOINTS: Final[tuple[Endpoint, ...]] = tuple(
    endpoint
    for module in (
        events,
        usage,
        customers,
        catalog,
        documents,
        rated,
        trace,
        exceptions,
        acts,
        periods,
        period_acts,
        retention,
        status,
        audit,
        me,
    )
    for endpoint in module.ENDPOINTS
)


def open_routes(services: Services) -> list[Route]:
    """Return the routes that need no token: health, and the OpenAPI document."""
    return [openapi.document_route(ENDPOINTS), *me.health_routes(services)]
