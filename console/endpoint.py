"""How an endpoint of the API is declared: path, permission, parameters, answers. The OpenAPI document is made of it."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar, get_args, get_origin

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from console import limits
from console.answers import JSON
from console.auth import Permission, check_permission
from console.problems import Problem
from console.services import Services
from sinks.ledger.tokens import Token

API: Final = "/api/v1"

StructT = TypeVar("StructT", bound=msgspec.Struct)


class NoParameters(msgspec.Struct, forbid_unknown_fields=True):
    """An endpoint without query parameters: naming one is an error, since a typing error must not be ignored."""


@dataclass(frozen=True, slots=True)
class Call:
    """One authorized request."""

    request: Request
    services: Services
    token: Token
    parameters: Any
    """The query parameters, of the endpoint's type."""

    @property
    def path(self) -> Mapping[str, str]:
        """Return the parameters of the path."""
        return self.request.path_params

    async def raw_body(self) -> bytes:
        """Return the body as it came.

        :raises Problem: 413, 408 or 503.
        """
        settings = self.services.settings.console
        room = self.services.room
        return await limits.read_body(self.request, settings.body_bytes_max, settings.request_s_max, room)

    async def body(self, kind: type[StructT]) -> StructT:
        """Return the JSON body, checked.

        :raises Problem: 408, 413, 415, or 400 naming the field.
        """
        media = self.request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media != JSON:
            raise Problem("unsupported_media_type", f"send {JSON}, not {media or 'a body without a type'}")
        raw = await self.raw_body()
        try:
            return msgspec.json.decode(raw, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise Problem("malformed_body", str(error)) from None


Handler = Callable[[Call], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Answer:
    """One documented answer. `content`: media type to the type of its JSON, None where it is no JSON."""

    description: str
    content: Mapping[str, Any] = field(default_factory=dict)
    headers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One operation of the API. The first line of the handler's docstring is its summary."""

    method: str
    path: str
    permission: Permission
    handler: Handler
    answers: Mapping[int, Answer]
    parameters: type[msgspec.Struct] = NoParameters
    body: Mapping[str, Any] = field(default_factory=dict)
    """Media types of the body with their types."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Request headers that mean something, with a description."""
    tag: str = "query"


def route(endpoint: Endpoint, services: Services) -> Route:
    """Return the route of an endpoint."""
    name = endpoint.handler.__name__
    return Route(endpoint.path, _answering(endpoint, services), methods=[endpoint.method], name=name)


def direct(endpoint: Endpoint, services: Services) -> ASGIApp:
    """Return the endpoint without a router and its layers, which take most of the time of a small request."""
    answering = _answering(endpoint, services)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        response = await answering(Request(scope, receive, send))
        await response(scope, receive, send)

    return app


def _answering(endpoint: Endpoint, services: Services) -> Callable[[Request], Awaitable[Response]]:
    """Return what answers: authenticate, check the role, take from the rate limit, read the parameters, answer."""
    name = endpoint.handler.__name__
    lists = _lists_of(endpoint.parameters)

    async def answer(request: Request) -> Response:
        request.state.operation = name
        token = await services.authenticator.token_of(request)
        request.state.token = token
        check_permission(token, endpoint.permission)
        limits.check(services.requests, token.id)
        parameters = read_parameters(request, endpoint.parameters, lists)
        return await endpoint.handler(Call(request, services, token, parameters))

    return answer


def _lists_of(kind: type[msgspec.Struct]) -> frozenset[str]:
    return frozenset(one.encode_name for one in msgspec.structs.fields(kind) if _is_list(one.type))


def read_parameters(request: Request, kind: type[StructT], lists: frozenset[str]) -> StructT:
    """Return the query parameters; those named in `lists` may be repeated, others may not.

    :raises Problem: 400, naming the parameter.
    """
    found: dict[str, Any] = {}
    for name, value in () if not request.scope["query_string"] else request.query_params.multi_items():
        if name in lists:
            found.setdefault(name, []).append(value)
        elif name in found:
            raise Problem("invalid_request", f"the parameter {name!r} is given twice")
        else:
            found[name] = value
    if any("\x00" in str(value) for value in found.values()):
        raise Problem("invalid_request", "a parameter holds a NUL character")
    try:
        return msgspec.convert(found, kind, strict=False)
    except msgspec.ValidationError as error:
        raise Problem("invalid_request", f"query parameters: {error}") from None


def _is_list(annotation: Any) -> bool:
    inner = get_args(annotation)[0] if hasattr(annotation, "__metadata__") else annotation
    return get_origin(inner) is list
