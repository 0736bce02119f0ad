"""Tokens of the API and sessions of the console. Secrets are shown once and stored as digests only.

A token reads `mb_<id>_<secret>`: the id finds the row, the secret of 256 random bits proves it, so that a plain
SHA-256 is enough at rest. A session is a token's stand-in in a browser: it ends with the token.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal, get_args

import orjson
from sqlalchemy import Engine, delete, insert, select, update

from core.errors import InvalidRequest
from sinks.ledger import audit, tables
from sinks.ledger.database import read, write
from sinks.ledger.times import to_datetime, to_ms

Role = Literal["producer", "viewer", "operator", "approver", "admin"]
ROLES: Final[tuple[str, ...]] = get_args(Role)
TENANTS_MAX: Final = 1_000
NAME_CHARACTERS_MAX: Final = 100

_TOKEN: Final = re.compile(r"mb_([a-z2-7]{12})_([A-Za-z0-9_-]{43})")
_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz234567"
_TOKENS: Final = tables.api_tokens
_SESSIONS: Final = tables.sessions


@dataclass(frozen=True, slots=True)
class Token:
    """Who asks, and what for. `tenants`: the only ones it may read or write; empty means all."""

    id: str
    name: str
    role: Role
    tenants: tuple[str, ...]
    created_by: str
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None

    def is_valid(self, now: datetime) -> bool:
        """Tell whether it is neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


def create(
    engine: Engine,
    name: str,
    role: str,
    *,
    tenants: Sequence[str] = (),
    actor: str,
    now: datetime,
    valid_for: timedelta | None = None,
) -> tuple[Token, str]:
    """Record a token and return it with its text, which cannot be read again.

    :raises InvalidRequest: the role is unknown, the name or a tenant is empty, or there are too many tenants.
    """
    if role not in ROLES:
        message = f"{role!r} is no role: use one of {', '.join(ROLES)}"
        raise InvalidRequest(message)
    if not name.strip() or len(name) > NAME_CHARACTERS_MAX:
        message = f"the token's name must have from 1 to {NAME_CHARACTERS_MAX} characters: say who uses it"
        raise InvalidRequest(message)
    if not all(tenants) or len(tenants) > TENANTS_MAX:
        message = f"tenants must not be empty, and at most {TENANTS_MAX}"
        raise InvalidRequest(message)
    token_id = "".join(secrets.choice(_ALPHABET) for _ in range(12))
    text = f"mb_{token_id}_{secrets.token_urlsafe(32)}"
    scope = sorted(set(tenants))
    values = {
        "id": token_id,
        "name": name.strip(),
        "role": role,
        "tenants": orjson.dumps(scope).decode(),
        "digest": _digest(text),
        "created_by": actor,
        "created_at_ms": to_ms(now),
        "expires_at_ms": None if valid_for is None else to_ms(now + valid_for),
    }
    with write(engine) as connection:
        connection.execute(insert(_TOKENS).values(values))
        detail = f"{role} {values['name']}" + (f", tenants {', '.join(scope)}" if scope else "")
        audit.record(connection, at=now, actor=actor, action="create_token", subject=token_id, detail=detail[:2000])
        row = connection.execute(select(_TOKENS).where(_TOKENS.c.id == token_id)).one()
    return _token(row), text


def known(engine: Engine) -> list[Token]:
    """Return all tokens, newest first."""
    query = select(_TOKENS).order_by(_TOKENS.c.created_at_ms.desc(), _TOKENS.c.id)
    with read(engine) as connection:
        return [_token(row) for row in connection.execute(query)]


def revoke(engine: Engine, token_id: str, *, actor: str, reason: str, now: datetime) -> bool:
    """End a token and its sessions; return whether it was in force before.

    :raises InvalidRequest: there is no such token.
    """
    with write(engine) as connection:
        row = connection.execute(select(_TOKENS).where(_TOKENS.c.id == token_id).with_for_update()).first()
        if row is None:
            message = f"there is no token {token_id!r}: `meterbridge token list` shows their ids"
            raise InvalidRequest(message)
        connection.execute(delete(_SESSIONS).where(_SESSIONS.c.token_id == token_id))
        if row.revoked_at_ms is not None:
            return False
        connection.execute(update(_TOKENS).where(_TOKENS.c.id == token_id).values(revoked_at_ms=to_ms(now)))
        audit.record(
            connection, at=now, actor=actor, action="revoke_token", subject=token_id, reason=reason, detail=row.name
        )
    return True


def is_token(text: str) -> bool:
    """Tell whether the text has a token's form."""
    return _TOKEN.fullmatch(text) is not None


def verify(engine: Engine, text: str, now: datetime) -> Token | None:
    """Return the token that this text is, if it is in force."""
    match = _TOKEN.fullmatch(text)
    if match is None:
        return None
    with read(engine) as connection:
        row = connection.execute(select(_TOKENS).where(_TOKENS.c.id == match[1])).first()
    if row is None or not hmac.compare_digest(row.digest, _digest(text)):
        return None
    token = _token(row)
    return token if token.is_valid(now) else None


def open_session(engine: Engine, token: Token, now: datetime, lasts: timedelta) -> str:
    """Record a session of that token and return its secret; sessions that ended are forgotten."""
    secret = secrets.token_urlsafe(32)
    ends = now + lasts if token.expires_at is None else min(now + lasts, token.expires_at)
    with write(engine) as connection:
        connection.execute(delete(_SESSIONS).where(_SESSIONS.c.expires_at_ms <= to_ms(now)))
        connection.execute(
            insert(_SESSIONS).values(
                digest=_digest(secret), token_id=token.id, created_at_ms=to_ms(now), expires_at_ms=to_ms(ends)
            )
        )
        audit.record(connection, at=now, actor=token.name, action="log_in", subject=token.id)
    return secret


def of_session(engine: Engine, secret: str, now: datetime) -> Token | None:
    """Return the token of a session, if both are in force."""
    query = (
        select(_TOKENS)
        .join(_SESSIONS, _SESSIONS.c.token_id == _TOKENS.c.id)
        .where(_SESSIONS.c.digest == _digest(secret), _SESSIONS.c.expires_at_ms > to_ms(now))
    )
    with read(engine) as connection:
        row = connection.execute(query).first()
    if row is None:
        return None
    token = _token(row)
    return token if token.is_valid(now) else None


def close_session(engine: Engine, secret: str) -> None:
    """Forget a session."""
    with write(engine) as connection:
        connection.execute(delete(_SESSIONS).where(_SESSIONS.c.digest == _digest(secret)))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _token(row: Any) -> Token:
    return Token(
        id=row.id,
        name=row.name,
        role=row.role,
        tenants=tuple(orjson.loads(row.tenants)),
        created_by=row.created_by,
        created_at=to_datetime(row.created_at_ms),
        expires_at=None if row.expires_at_ms is None else to_datetime(row.expires_at_ms),
        revoked_at=None if row.revoked_at_ms is None else to_datetime(row.revoked_at_ms),
    )
