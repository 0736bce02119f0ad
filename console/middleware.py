"""Around every request: its id, log lines under it, problems as answers, and headers that keep browsers safe."""

import logging
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any, Final

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from console.problems import Problem, of_error
from core.logging import get_logger
from core.metrics import API_SECONDS

REQUEST_ID: Final = "x-request-id"
_REQUEST_ID: Final = REQUEST_ID.encode()
_GIVEN: Final = re.compile(r"[A-Za-z0-9._~:/+=-]{1,128}")

Header = tuple[bytes, bytes]

CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self';"
    " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS: Final[tuple[Header, ...]] = tuple(
    (name.encode(), value.encode())
    for name, value in {
        "content-security-policy": CONTENT_SECURITY_POLICY,
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "referrer-policy": "same-origin",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "cache-control": "no-store",
    }.items()
)
"""What every answer has, unless it says something else itself."""
_CODES: Final = {404: "not_found", 405: "method_not_allowed"}
_OWN: Final = secrets.token_hex(8)
_COUNT: Final = count(1)
"""Ids of this process: a part that no other process has, and a number."""

log = get_logger("console")


class Frame:
    """Gives each request an id (the caller's, if it sent a usable one) and turns errors into problem answers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._tells_all = log.bind().is_enabled_for(logging.DEBUG)  # a line that is not written is not cheap to make

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        started_s = time.perf_counter()
        status = 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = _with_ours(message["headers"], request_id)
            await send(message)

        structlog.contextvars.bind_contextvars(request_id=request_id)  # of this request's task alone
        try:
            await self._app(scope, receive, sending)
        except ClientDisconnect:
            log.debug("The caller went away before its request was complete.")
            return
        except Exception as error:
            if status:
                raise  # the answer has begun: only closing the connection tells the caller
            await _answer(error, request_id)(scope, receive, sending)
        seconds = time.perf_counter() - started_s
        operation = scope["state"].get("operation", "other")
        API_SECONDS.labels(operation, f"{status // 100}xx").observe(seconds)
        if self._tells_all or not _is_everyday(scope, status):
            _log(scope, status, seconds)


class Shortcuts:
    """Answers some methods and paths without the application and its router, all others by it."""

    def __init__(self, app: ASGIApp, shortcuts: Mapping[tuple[str, str], ASGIApp]) -> None:
        self._app, self._shortcuts = app, shortcuts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        app = self._shortcuts.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        await (app or self._app)(scope, receive, send)


async def routing_problem(request: Request, error: Exception) -> Response:
    """Return the answer for what the router refuses: no such path, or not this method."""
    return of_routing(error).response(request.state.request_id)


def of_routing(error: Exception) -> Problem:
    """Return the problem that an error of the router is."""
    if not isinstance(error, HTTPException):  # pragma: no cover  registered for this class only
        raise error
    detail = "no such page or resource" if error.status_code == 404 else str(error.detail)
    code = _CODES.get(error.status_code, "invalid_request")
    return Problem(code, detail, headers=error.headers)


def _answer(error: Exception, request_id: str) -> Response:
    problem = of_error(error)
    if problem.code == "internal_error":
        log.exception("A request failed.")
    return problem.response(request_id)


def _with_ours(headers: Sequence[Header], request_id: str) -> list[Header]:
    """Return the headers of an answer, and behind them those of ours that it does not have."""
    own = (_REQUEST_ID, request_id.encode())
    if not headers:
        return [*_HEADERS, own]
    present = {name for name, _ in headers}
    return [*headers, *(header for header in _HEADERS if header[0] not in present), own]


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == _REQUEST_ID:
            text: str = value.decode("latin-1")
            if _GIVEN.fullmatch(text):
                return text
    return f"{_OWN}{next(_COUNT):016x}"


def _is_everyday(scope: Scope, status: int) -> bool:
    """Tell whether nobody has to know of it: a look, or events that were taken."""
    return status < 500 and (scope["method"] in ("GET", "HEAD") or status in (204, 207))


def _log(scope: Scope, status: int, seconds: float) -> None:
    token: Any = scope["state"].get("token")
    fields = {
        "method": scope["method"],
        "path": scope["path"],
        "status": status,
        "ms": round(seconds * 1000, 1),
        "token_id": token.id if token is not None else "",
    }
    if status >= 500:
        log.warning("A request was not served.", **fields)
    elif _is_everyday(scope, status):
        log.debug("A request was served.", **fields)
    else:
        log.info("A request was served.", **fields)
