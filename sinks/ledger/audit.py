"""The audit log: who did what to which document, and why. Rows are only ever added."""

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select

from sinks.ledger import tables
from sinks.ledger.times import to_ms


def record(
    connection: Connection, *, at: datetime, actor: str, action: str, subject: str, reason: str = "", detail: str = ""
) -> None:
    """Add a row, in the transaction of the change it tells about."""
    connection.execute(
        insert(tables.audit_log).values(
            at_ms=to_ms(at), actor=actor, action=action, subject=subject, reason=reason, detail=detail
        )
    )


def entries(connection: Connection, subject: str | None = None, limit: int = 1000) -> list[dict[str, Any]]:
    """Return the newest rows, of one subject if given."""
    query = select(tables.audit_log).order_by(tables.audit_log.c.id.desc()).limit(limit)
    if subject is not None:
        query = query.where(tables.audit_log.c.subject == subject)
    return [dict(row._mapping) for row in connection.execute(query)]


def page(connection: Connection, before_id: int | None, limit: int, action: str = "") -> list[dict[str, Any]]:
    """Return the newest rows, those with an id below `before_id` if given, of one action if named."""
    query = select(tables.audit_log).order_by(tables.audit_log.c.id.desc()).limit(limit)
    if before_id is not None:
        query = query.where(tables.audit_log.c.id < before_id)
    if action:
        query = query.where(tables.audit_log.c.action == action)
    return [dict(row._mapping) for row in connection.execute(query)]
