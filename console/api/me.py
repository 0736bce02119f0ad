"""`GET /api/v1/me`: what the token is. Also the health of the service, for probes that have no token."""

from datetime import datetime
from typing import Any

import msgspec
import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from console.answers import JSON, json_answer
from console.auth import PERMISSIONS
from console.endpoint import API, Answer, Call, Endpoint
from console.problems import of_error
from console.services import Services
from sinks import ledger


class Me(msgspec.Struct):
    """A token as it sees itself. `tenants`: the only ones it may read or write; empty means all."""

    id: str
    name: str
    role: str
    permissions: list[str]
    tenants: list[str]
    expires_at: datetime | None


async def get_me(call: Call) -> Response:
    """Tell what the token may do."""
    token = call.token
    permissions: list[str] = sorted(PERMISSIONS[token.role])
    return json_answer(
        call.request, Me(token.id, token.name, token.role, permissions, list(token.tenants), token.expires_at)
    )


def health_routes(services: Services) -> list[Route]:
    """Return `/health/live` (the process answers) and `/health/ready` (the ledger does too)."""

    async def live(_request: Request) -> Response:
        return Response(orjson.dumps({"live": True}), media_type=JSON)

    async def ready(_request: Request) -> Response:
        found: dict[str, Any] = {"ready": True}
        status = 200
        try:
            await services.pool.ask_ledger(ledger.check_ready)
        except Exception as error:
            status, found = 503, {"ready": False, "detail": of_error(error).detail}
        return Response(orjson.dumps(found), status, media_type=JSON)

    return [Route("/health/live", live), Route("/health/ready", ready)]


ENDPOINTS = (Endpoint("GET", f"{API}/me", "read", get_me, {200: Answer("The token.", {JSON: Me})}, tag="tokens"),)
