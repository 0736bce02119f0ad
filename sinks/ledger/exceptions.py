"""Exceptions a person has to look at: one row per (kind, identity), inserted once however often it is seen."""

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from sinks.ledger import tables
from sinks.ledger.times import to_ms

_TABLE = tables.exceptions
_KEYS_PER_QUERY: Final = 500


def exception_key(kind: str, identity: str) -> str:
    """Return the row's key: a digest of both parts, unambiguously joined."""
    return hashlib.sha256(f"{len(kind)}:{kind}{identity}".encode()).hexdigest()[:32]


def insert_or_ignore(connection: Connection, table: Any, rows: list[dict[str, Any]]) -> None:
    """Insert rows, leaving those whose key is already there as they are."""
    if not rows:
        return
    if connection.dialect.name == "sqlite":
        connection.execute(sqlite.insert(table).on_conflict_do_nothing(), rows)
    elif connection.dialect.name == "postgresql":
        connection.execute(postgresql.insert(table).on_conflict_do_nothing(), rows)
    else:
        connection.execute(insert(table), rows)


def raise_exception(connection: Connection, kind: str, identity: str, detail: str, at: datetime) -> str:
    """Record an exception and return its key; the first detail is kept."""
    key = exception_key(kind, identity)
    row = {"key": key, "kind": kind, "identity": identity, "detail": detail, "created_at_ms": to_ms(at)}
    insert_or_ignore(connection, _TABLE, [row])
    reopen = update(_TABLE).where(_TABLE.c.key == key, _TABLE.c.resolved_at_ms.is_not(None))
    connection.execute(reopen.values(resolved_at_ms=None, detail=detail))
    return key


def resolve(connection: Connection, kind: str, identities: Sequence[str], at: datetime) -> None:
    """Mark exceptions as resolved, where they are open."""
    keys = [exception_key(kind, identity) for identity in identities]
    for start in range(0, len(keys), _KEYS_PER_QUERY):
        part = _TABLE.c.key.in_(keys[start : start + _KEYS_PER_QUERY])
        change = update(_TABLE).where(part, _TABLE.c.resolved_at_ms.is_(None))
        connection.execute(change.values(resolved_at_ms=to_ms(at)))


def open_exceptions(connection: Connection, limit: int = 1000) -> list[dict[str, Any]]:
    """Return the oldest open exceptions."""
    query = select(_TABLE).where(_TABLE.c.resolved_at_ms.is_(None))
    rows = connection.execute(query.order_by(_TABLE.c.created_at_ms, _TABLE.c.key).limit(limit))
    return [dict(row._mapping) for row in rows]


def open_details(connection: Connection, kind: str) -> dict[str, str]:
    """Return the details of the open exceptions of a kind by identity."""
    query = select(_TABLE.c.identity, _TABLE.c.detail).where(_TABLE.c.kind == kind, _TABLE.c.resolved_at_ms.is_(None))
    return {row.identity: row.detail for row in connection.execute(query)}
