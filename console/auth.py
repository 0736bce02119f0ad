"""Who asks: bearer tokens for programs, sessions for browsers; what each role may do, and whose data it may see."""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Literal
from urllib.parse import urlsplit

from sqlalchemy import Engine
from starlette.requests import Request

from console.limits import Limiter, too_many
from console.problems import Problem
from console.stores import StorePool
from core.clock import Clock
from sinks.ledger import tokens
from sinks.ledger.tokens import Token

Permission = Literal["ingest", "read", "operate", "approve", "administer"]

PERMISSIONS: Final[dict[str, frozenset[Permission]]] = {
    "producer": frozenset({"ingest"}),
    "viewer": frozenset({"read"}),
    "operator": frozenset({"read", "operate"}),
    "approver": frozenset({"read", "approve"}),
    "admin": frozenset({"ingest", "read", "operate", "approve", "administer"}),
}

COOKIE: Final = "meterbridge_session"
WRONG_PER_S: Final = 5.0
"""Unknown tokens that one address may try, on the long run: each costs the ledger a question."""
REMEMBERED_S: Final = 5.0
"""A revoked token works at most that much longer."""
_REMEMBERED_MAX: Final = 10_000
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="meterbridge"'}

Lookup = Callable[[Engine], Token | None]


def address_of(request: Request) -> str:
    """Return the caller's address: of what spoke to the service, or what a believed proxy says it is."""
    return request.client.host if request.client else ""


class Authenticator:
    """Finds the token of a request. Answers of the ledger are remembered for a few seconds, wrong ones too.

    :param wrong: limits by address how many unknown tokens may be tried.
    """

    def __init__(self, pool: StorePool, clock: Clock, wrong: Limiter) -> None:
        self._pool, self._clock, self._wrong = pool, clock, wrong
        self._remembered: OrderedDict[bytes, tuple[float, Token | None]] = OrderedDict()
        self._asking: dict[bytes, asyncio.Future[Token | None]] = {}

    async def token_of(self, request: Request) -> Token:
        """Return who asks: by the header `Authorization: Bearer`, else by the session's cookie.

        :raises Problem: 401 if neither is in force; 403 for a change that another site's page asked for.
        """
        header = request.headers.get("authorization")
        if header is not None:
            scheme, _, text = header.partition(" ")
            token = await self.token_named(text.strip(), address_of(request)) if scheme.lower() == "bearer" else None
            if token is None:
                detail = "the token is unknown, expired or revoked: make one by `meterbridge token create`"
                raise Problem("unauthenticated", detail, headers=_CHALLENGE)
            return token
        token = await self.token_of_session(request)
        if token is None:
            detail = "send `Authorization: Bearer <token>`, or log in to the console"
            raise Problem("unauthenticated", detail, headers=_CHALLENGE)
        if request.method not in _SAFE:
            check_origin(request)
        return token

    async def token_named(self, text: str, address: str) -> Token | None:
        """Return the token that this text is, if it is in force.

        :raises Problem: 429 if too many that are not known were tried from that address.
        """
        if not tokens.is_token(text):
            return None
        key = _digest(b"t" + text.encode())
        if (known := self._known(key)) is not None:
            token = self._if_valid(known[1])
        else:
            if (wait_s := self._wrong.wait_s(address)) > 0:
                raise too_many("too many unknown tokens came from this address", wait_s)
            token = await self._look_up(key, lambda engine: tokens.verify(engine, text, self._clock.now()))
        if token is None:
            self._wrong.take(address)
        return token

    async def token_of_session(self, request: Request) -> Token | None:
        """Return the token of the session's cookie, if both are in force."""
        secret = request.cookies.get(COOKIE)
        if not secret:
            return None
        key = _digest(b"s" + secret.encode())
        if (known := self._known(key)) is not None:
            return self._if_valid(known[1])
        return await self._look_up(key, lambda engine: tokens.of_session(engine, secret, self._clock.now()))

    async def _look_up(self, key: bytes, look_up: Lookup) -> Token | None:
        """Ask the ledger, once for all who ask at the same time."""
        asking = self._asking.get(key)
        if asking is None:
            asking = self._asking[key] = asyncio.ensure_future(self._ask(key, look_up))
        return await asyncio.shield(asking)  # a caller that goes away takes the answer from nobody

    async def _ask(self, key: bytes, look_up: Lookup) -> Token | None:
        own = asyncio.current_task()
        try:
            token = await self._pool.ask_caller(look_up)
            if self._asking.get(key) is own:  # nothing was ended meanwhile
                self._remembered[key] = (self._clock.monotonic_s(), token)
                self._remembered.move_to_end(key)
                if len(self._remembered) > _REMEMBERED_MAX:
                    self._remembered.popitem(last=False)
        finally:
            if self._asking.get(key) is own:
                del self._asking[key]
        return token

    def _known(self, key: bytes) -> tuple[float, Token | None] | None:
        found = self._remembered.get(key)
        return found if found is not None and self._clock.monotonic_s() - found[0] < REMEMBERED_S else None

    def _if_valid(self, token: Token | None) -> Token | None:
        return token if token is not None and token.is_valid(self._clock.now()) else None

    def forget(self) -> None:
        """Look everything up again: a session or token was ended here."""
        self._remembered.clear()
        self._asking.clear()


def _digest(key: bytes) -> bytes:
    """Return what stands for a secret: secrets themselves are not kept in memory."""
    return hashlib.sha256(key).digest()


def check_permission(token: Token, permission: Permission) -> None:
    """Make sure the token's role may do it.

    :raises Problem: 403.
    """
    if permission not in PERMISSIONS[token.role]:
        raise Problem("forbidden", f"the role {token.role} may not {permission}: ask for a token of another role")


def check_origin(request: Request) -> None:
    """Refuse a change that a page of another site asked for with this browser's cookie.

    :raises Problem: 403.
    """
    origin = request.headers.get("origin")
    if origin is None or urlsplit(origin).netloc != request.headers.get("host"):
        raise Problem("forbidden", "a change with a session must come from a page of this console")
