"""One HTTP exchange with an ERP, and what its failure proves.

Proven not done: no connection, credentials refused, asked to slow down. Everything else without a whole answer is
unknown: a time-out, a broken connection, a server error, a cut body. Answers are read up to a limit.
"""

import base64
import email.utils
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

import httpx

from config.erp_options import RestAuth
from core.errors import ConfigError
from sinks.erp.port import NotSent, Throttled, Unknown

ANSWER_BYTES_MAX: Final = 64 << 20
SHOWN_CHARACTERS_MAX: Final = 500
RAW_CHARACTERS_MAX: Final = 2_000
KEEPALIVE_S: Final = 1.5
"""Shorter than a server's own, so that a connection it closed is seldom used again: the outcome would be unknown."""
RETRY_AFTER_S_MAX: Final = 3600.0

_NEVER_SENT: Final = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
    httpx.LocalProtocolError,
    httpx.InvalidURL,
)
_REFUSED: Final = (401, 403, 407)
_SLOW_DOWN: Final = (423, 425, 429)


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer; its meaning is the adapter's to find. `body` is as it came: show only `shown` and `raw`."""

    status: int
    headers: Mapping[str, str]
    body: str = field(repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)

    def json(self) -> Any:
        """Return the body's value, numbers with a point as Decimal.

        :raises ValueError: it is not JSON.
        """
        return json.loads(self.body, parse_float=Decimal)

    @property
    def shown(self) -> str:
        """Return status and the beginning of the body, for messages."""
        return f"{self.status} {' '.join(self.hide(self.body)[:SHOWN_CHARACTERS_MAX].split())}"

    @property
    def raw(self) -> str:
        """Return the beginning of the body for the record."""
        return self.hide(self.body)[:RAW_CHARACTERS_MAX]

    def hide(self, text: str) -> str:
        """Take what was sent as proof out of a text, should the server have echoed it."""
        return hide(text, self.secrets)


Failure = NotSent | Throttled | Unknown


@dataclass(frozen=True, slots=True)
class Authorization:
    """A header that proves who we are, and the secrets in it, which no message may show."""

    headers: Mapping[str, str] = field(repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)


def hide(text: str, secrets: tuple[str, ...]) -> str:
    """Return the text without the secrets."""
    for secret in filter(None, secrets):
        text = text.replace(secret, "***")
    return text


def authorization(auth: RestAuth) -> Authorization:
    """Read the credential as it is now.

    :raises ConfigError: it is missing.
    """
    if auth.credential is None:
        return Authorization({})
    secret = auth.credential.read().get_secret_value()
    if auth.kind == "basic":
        pair = base64.b64encode(f"{auth.username}:{secret}".encode()).decode()
        return Authorization({"Authorization": f"Basic {pair}"}, (secret, pair))
    if auth.kind == "header":
        return Authorization({auth.header: secret}, (secret,))
    return Authorization({"Authorization": f"Bearer {secret}"}, (secret,))


class HttpCalls:
    """Calls to one server; the connection is kept between calls."""

    def __init__(
        self,
        url: str,
        authorize: Callable[[], Authorization],
        timeout_s: float,
        *,
        headers: Mapping[str, str] | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = url
        self._authorize = authorize
        limits = httpx.Limits(max_connections=4, keepalive_expiry=KEEPALIVE_S)
        self._client = httpx.Client(
            timeout=httpx.Timeout(timeout_s, connect=min(10.0, timeout_s)),
            headers=dict(headers or {}),
            limits=limits,
            transport=transport,
            follow_redirects=False,
        )

    def send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Answer | Failure:
        """Do one exchange; a failure says what it proves. `path` begins with a slash."""
        try:
            proof = self._authorize()
        except ConfigError as error:
            return NotSent(str(error))
        sent = {**({"Content-Type": "application/json"} if body is not None else {}), **(headers or {})}
        try:
            request = self._client.build_request(
                method, self.url + path, params=query or None, headers={**sent, **proof.headers}, content=body
            )
        except (httpx.InvalidURL, ValueError) as error:  # a credential that no header can carry, among others
            return NotSent(hide(f"the request to {self.url} cannot be built: {_text(error)}", proof.secrets))
        try:
            return self._read(request, proof)
        except _NEVER_SENT as error:
            return NotSent(hide(f"{self.url} cannot be reached: {_text(error)}", proof.secrets))
        except httpx.HTTPError as error:
            return Unknown(hide(f"no whole answer from {self.url}: {_text(error)}", proof.secrets))

    def _read(self, request: httpx.Request, proof: Authorization) -> Answer:
        response = self._client.send(request, stream=True)
        try:
            parts, size = [], 0
            for part in response.iter_bytes():
                size += len(part)
                if size > ANSWER_BYTES_MAX:
                    message = f"the answer is larger than {ANSWER_BYTES_MAX} bytes"
                    raise httpx.DecodingError(message, request=request)
                parts.append(part)
        finally:
            response.close()
        text = b"".join(parts).decode("utf-8", errors="replace")
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status_code, headers, text, proof.secrets)


def failed(answer: Answer) -> Failure | None:
    """Return what a status alone proves; None where the adapter has to read the answer (2xx and other 4xx)."""
    if answer.status in _REFUSED:
        return NotSent(f"the ERP refused our credentials or rights: {answer.shown}. Nothing was booked")
    if answer.status in _SLOW_DOWN:
        return Throttled(retry_after_s(answer))
    if answer.status == 408 or not (200 <= answer.status < 300 or 400 <= answer.status < 500):
        return Unknown(f"the ERP answered {answer.shown}")
    return None


def retry_after_s(answer: Answer) -> float | None:
    """Return Retry-After in seconds, a date being taken relative to the answer's own Date; None if there is none."""
    text = answer.headers.get("retry-after", "").strip()
    if text.isdecimal():  # seconds, not money
        return min(float(text), RETRY_AFTER_S_MAX)
    try:
        until = email.utils.parsedate_to_datetime(text)
        now = email.utils.parsedate_to_datetime(answer.headers.get("date", ""))
    except ValueError:
        return None
    return min(max(0.0, (until - now).total_seconds()), RETRY_AFTER_S_MAX)


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
