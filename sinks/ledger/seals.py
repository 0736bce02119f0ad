"""Sealed accounting periods: signed summaries in one chain. Rows are only ever added.

A summary is canonical JSON that names the digest of the summary before it, so none can be changed, taken out or put
in between without breaking every later one.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import Connection, exc, insert, select

from core.errors import InvalidRequest
from core.signing import Key
from sinks.ledger import audit, tables
from sinks.ledger.times import to_datetime, to_ms

_TABLE = tables.period_seals


@dataclass(frozen=True, slots=True)
class Seal:
    """One sealed period. `previous` is the digest of the seal before it in the ledger, "" for the first."""

    number: int
    entity: str
    accounting_period: str
    digest: str
    """SHA-256 of `json`, in hex."""
    previous: str
    key_id: str
    signature: str
    json: str
    actor: str
    reason: str
    sealed_at: datetime

    @property
    def summary(self) -> dict[str, Any]:
        """Return the summary as plain values."""
        return dict(orjson.loads(self.json))

    def file_text(self) -> bytes:
        """Return what the summary's file holds: the canonical summary, its digest and signature."""
        plain = {
            "summary": self.summary,
            "sha256": self.digest,
            "key_id": self.key_id,
            "signature": self.signature,
        }
        return canonical(plain) + b"\n"


def canonical(plain: Any) -> bytes:
    """Return canonical JSON: sorted keys, compact, UTF-8."""
    return orjson.dumps(plain, option=orjson.OPT_SORT_KEYS)


def find(connection: Connection, entity: str, period: str) -> Seal | None:
    """Return the seal of a period, or None."""
    query = select(_TABLE).where(_TABLE.c.entity == entity, _TABLE.c.accounting_period == period)
    row = connection.execute(query).first()
    return None if row is None else _seal(row)


def chain(connection: Connection) -> list[Seal]:
    """Return every seal, oldest first."""
    return [_seal(row) for row in connection.execute(select(_TABLE).order_by(_TABLE.c.number))]


def record(
    connection: Connection,
    summary: Callable[[int, str], dict[str, Any]],
    key: Key,
    *,
    actor: str,
    reason: str,
    now: datetime,
) -> Seal:
    """Add a seal behind the newest one: `summary` makes it of its number and the digest of the one before.

    :raises InvalidRequest: the period is sealed already, or another was sealed in the same moment.
    """
    last = connection.execute(select(_TABLE).order_by(_TABLE.c.number.desc()).limit(1)).first()
    number, previous = (1, "") if last is None else (last.number + 1, last.digest)
    plain = summary(number, previous)
    text = canonical(plain)
    made = Seal(
        number,
        plain["entity"],
        plain["accounting_period"],
        hashlib.sha256(text).hexdigest(),
        previous,
        key.id,
        key.sign(text),
        text.decode(),
        actor,
        reason,
        now,
    )
    values = {name: getattr(made, name) for name in _COPIED} | {"sealed_at_ms": to_ms(now)}
    try:
        connection.execute(insert(_TABLE).values(values))
    except exc.IntegrityError as error:
        message = "a period was sealed in this moment, perhaps this one: run the command again"
        raise InvalidRequest(message) from error
    subject = f"{made.entity}/{made.accounting_period}"
    detail = f"number {number}, sha256 {made.digest}"
    audit.record(connection, at=now, actor=actor, action="seal-period", subject=subject, reason=reason, detail=detail)
    return made


_COPIED = (
    "number", "entity", "accounting_period", "digest", "previous", "key_id", "signature", "json", "actor", "reason",
)  # fmt: skip


def _seal(row: Any) -> Seal:
    return Seal(**{name: getattr(row, name) for name in _COPIED}, sealed_at=to_datetime(row.sealed_at_ms))
