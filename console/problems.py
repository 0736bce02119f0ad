"""Errors as problem details (RFC 9457): a status, a code that never changes its meaning, and a sentence."""

from collections.abc import Mapping
from typing import Any, Final

import orjson
from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import Response

from core.errors import FatalError, MeterbridgeError, RejectedError, RetryableError
from sinks import ledger

MEDIA_TYPE: Final = "application/problem+json"
RETRY_AFTER_S: Final = 5

TITLES: Final[dict[str, tuple[int, str]]] = {
    "invalid_request": (400, "The request is not valid"),
    "malformed_body": (400, "The body cannot be read"),
    "events_refused": (400, "No event was accepted"),
    "unauthenticated": (401, "A valid token is needed"),
    "forbidden": (403, "The token may not do this"),
    "not_found": (404, "There is nothing here"),
    "method_not_allowed": (405, "The method is not allowed here"),
    "not_acceptable": (406, "None of the accepted media types can be made"),
    "too_slow": (408, "The request came too slowly"),
    "conflict": (409, "The request contradicts an earlier one"),
    "body_too_large": (413, "The body is too large"),
    "unsupported_media_type": (415, "The body's media type is not supported"),
    "rejected": (422, "The request was understood and refused"),
    "too_many_requests": (429, "Too many requests"),
    "internal_error": (500, "The service failed"),
    "unavailable": (503, "The service cannot answer just now"),
    "timed_out": (503, "The answer took too long"),
}
"""Every code with its status and title (contract of the API: codes are only ever added)."""


class Problem(Exception):
    """An answer that is an error. `more` are further members of the document."""

    def __init__(
        self, code: str, detail: str, *, headers: Mapping[str, str] | None = None, more: Mapping[str, Any] | None = None
    ) -> None:
        self.code, self.detail = code, detail
        self.status, self.title = TITLES[code]
        self.headers = dict(headers or {})
        self.more = dict(more or {})
        super().__init__(f"{code}: {detail}")

    def to_plain(self, request_id: str) -> dict[str, Any]:
        """Return the document."""
        return {
            "type": f"urn:meterbridge:problem:{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "request_id": request_id,
            **self.more,
        }

    def response(self, request_id: str) -> Response:
        """Return the answer."""
        body = orjson.dumps(self.to_plain(request_id))
        return Response(body, self.status, self.headers, media_type=MEDIA_TYPE)


def of_error(error: Exception) -> Problem:
    """Return the problem that an error of ours or of the ledger is; anything else is an internal error."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, RetryableError):
        return Problem("unavailable", str(error), headers={"Retry-After": str(RETRY_AFTER_S)})
    if isinstance(error, RejectedError):
        return Problem("rejected", str(error))
    if isinstance(error, SQLAlchemyError) and ledger.unreachable(error):
        detail = "the ledger database does not answer: ask again later"
        return Problem("unavailable", detail, headers={"Retry-After": str(RETRY_AFTER_S)})
    if isinstance(error, FatalError | MeterbridgeError):
        return Problem("internal_error", str(error))
    return Problem("internal_error", "an error of the service; its log has more under the request id")
