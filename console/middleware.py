"""Around every request: its id, log lines under it, problems as answers, and headers that keep browsers safe."""

import re
import secrets
import time
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
_GIVEN: Final = re.compile(r"[A-Za-z0-9._~:/+=-]{1,128}")

CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self';"
    " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = [
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
]
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
                headers = message["headers"] = list(message["headers"])
                present = {name for name, _ in headers}
                headers += [header for header in _HEADERS if header[0] not in present]
                headers.append((REQUEST_ID.encode(), request_id.encode()))
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
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
            _log(scope, status, seconds)


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


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == REQUEST_ID.encode():
            text: str = value.decode("latin-1")
            if _GIVEN.fullmatch(text):
                return text
    return f"{_OWN}{next(_COUNT):016x}"


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
    elif scope["method"] in ("GET", "HEAD") or status in (204, 207):
        log.debug("A request was served.", **fields)
    else:
        log.info("A request was served.", **fields)
