"""The OpenAPI 3.1 document, made of the declared endpoints: what is served and what is documented are one thing."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, get_args

import msgspec
import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from console.answers import JSON
from console.endpoint import API, Answer, Endpoint
from console.problems import MEDIA_TYPE, TITLES

_PATH_PARAMETER: Final = re.compile(r"{(\w+)(?::\w+)?}")
_COMMON: Final = (400, 401, 403, 429, 503)
"""Problems that any endpoint may answer with."""
_REF: Final = "#/components/schemas/{name}"
_HEADER_TEXTS: Final = {
    "ETag": "Changes when the answer does; send it as `If-None-Match` to be told by 304 that it did not.",
    "Retry-After": "Seconds after which to ask again.",
    "Link": "The next page, as `rel=next`.",
    "Idempotent-Replayed": "`true`: this is the answer given the first time, nothing was done now.",
}


def document_route(endpoints: Iterable[Endpoint]) -> Route:
    """Return the route of the document."""
    body = orjson.dumps(document(endpoints))

    async def openapi(_request: Request) -> Response:
        return Response(body, media_type=JSON, headers={"Cache-Control": "max-age=300"})

    return Route(f"{API}/openapi.json", openapi)


def document(endpoints: Iterable[Endpoint]) -> dict[str, Any]:
    """Return the document."""
    found = list(endpoints)
    kinds = {kind for endpoint in found for kind in _kinds(endpoint)}
    _, components = msgspec.json.schema_components(sorted(kinds, key=str), ref_template=_REF)
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in found:
        path = _PATH_PARAMETER.sub(r"{\1}", endpoint.path)
        paths.setdefault(path, {})[endpoint.method.lower()] = _operation(endpoint)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Meterbridge",
            "version": "1",
            "description": (
                "Usage events in; usage, spend, documents and what became of them out. Amounts and quantities are"
                " decimal strings, times are RFC 3339 in UTC. Errors are problem details with a stable `code`."
            ),
        },
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            "schemas": components | {"Problem": _problem_schema()},
        },
    }


def _kinds(endpoint: Endpoint) -> Iterable[Any]:
    for answer in endpoint.answers.values():
        yield from (kind for kind in answer.content.values() if kind is not None)
    yield from (kind for kind in endpoint.body.values() if kind is not None)


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    summary, _, rest = (endpoint.handler.__doc__ or "").strip().partition("\n")
    operation: dict[str, Any] = {
        "operationId": endpoint.handler.__name__,
        "summary": summary,
        "description": " ".join(rest.split()) or summary,
        "tags": [endpoint.tag],
        "x-permission": endpoint.permission,
        "parameters": [*_path_parameters(endpoint), *_query_parameters(endpoint), *_header_parameters(endpoint)],
        "responses": _responses(endpoint),
    }
    if endpoint.body:
        operation["requestBody"] = {"required": True, "content": _content(endpoint.body)}
    return operation


def _path_parameters(endpoint: Endpoint) -> Iterable[dict[str, Any]]:
    for name in _PATH_PARAMETER.findall(endpoint.path):
        schema = {"type": "string", "minLength": 1}
        yield {"name": name, "in": "path", "required": True, "schema": schema}


def _query_parameters(endpoint: Endpoint) -> Iterable[dict[str, Any]]:
    for one in msgspec.structs.fields(endpoint.parameters):
        schema = msgspec.json.schema(one.type)
        plain: dict[str, Any] = {"name": one.encode_name, "in": "query", "required": one.required, "schema": schema}
        if description := _description(one.type):
            plain["description"] = description
        if not one.required and one.default not in (msgspec.NODEFAULT, None, ""):
            plain["schema"] = schema | {"default": one.default}
        yield plain


def _description(annotation: Any) -> str:
    for part in get_args(annotation):
        if isinstance(part, msgspec.Meta) and part.description:
            return part.description
    return ""


def _header_parameters(endpoint: Endpoint) -> Iterable[dict[str, Any]]:
    for name, description in endpoint.headers.items():
        plain = {"name": name, "in": "header", "required": False, "description": description}
        yield plain | {"schema": {"type": "string"}}


def _responses(endpoint: Endpoint) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, answer in sorted(_all_answers(endpoint).items()):
        plain: dict[str, Any] = {"description": answer.description}
        if answer.content:
            plain["content"] = _content(answer.content)
        if answer.headers:
            plain["headers"] = {
                name: {"schema": {"type": "string"}, "description": _HEADER_TEXTS[name]} for name in answer.headers
            }
        responses[str(status)] = plain
    return responses


def _all_answers(endpoint: Endpoint) -> Mapping[int, Answer]:
    return {status: problem_answer(status) for status in _COMMON} | dict(endpoint.answers)


def problem_answer(status: int) -> Answer:
    """Return the documented answer for a status that is an error."""
    codes = [code for code, (known, _) in TITLES.items() if known == status]
    text = " or ".join(TITLES[code][1].lower() for code in codes)
    headers = ("Retry-After",) if status in (429, 503) else ()
    return Answer(f"{text[:1].upper()}{text[1:]} (`{'`, `'.join(codes)}`).", {MEDIA_TYPE: None}, headers)


def _content(content: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for media, kind in content.items():
        if media == MEDIA_TYPE:
            schema: dict[str, Any] = {"$ref": _REF.format(name="Problem")}
        elif kind is None:
            schema = {}
        else:
            (schema,), _ = msgspec.json.schema_components([kind], ref_template=_REF)
        plain[media] = {"schema": schema} if schema else {}
    return plain


def _problem_schema() -> dict[str, Any]:
    names = {"type": "string", "title": "string", "status": "integer", "detail": "string", "request_id": "string"}
    properties: dict[str, Any] = {name: {"type": kind} for name, kind in names.items()}
    properties["code"] = {"type": "string", "enum": sorted(TITLES)}
    return {
        "type": "object",
        "description": "Problem details (RFC 9457); `code` never changes its meaning.",
        "properties": properties,
        "required": sorted(properties),
    }
