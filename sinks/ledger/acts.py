"""Acts: what people decided, recorded with a booked time before it has any effect. Rows are only ever added.

An act that makes documents (a reversal, an invoice run) says all that they follow from, beside the documents it
names: a replay makes the same ones of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import orjson
from sqlalchemy import Connection, insert, select

from sinks.ledger import tables
from sinks.ledger.times import to_ms

APPROVAL: Final = "approval"
REVERSAL: Final = "reversal"
INVOICE: Final = "invoice"
ADJUSTMENT: Final = "adjustment"

_TABLE = tables.acts


@dataclass(frozen=True, slots=True)
class Act:
    """One act. `booked_hour` is when it counts, in hours since 1970-01-01T00:00Z; `content` is plain values."""

    key: str
    kind: str
    subject: str
    entity: str
    booked_hour: int
    content: Mapping[str, Any]


def record(connection: Connection, act: Act, *, actor: str, reason: str, at: datetime) -> None:
    """Add an act, in the transaction of what follows from it."""
    connection.execute(
        insert(_TABLE).values(
            key=act.key,
            kind=act.kind,
            subject=act.subject,
            entity=act.entity,
            booked_hour=act.booked_hour,
            json=orjson.dumps(dict(act.content), option=orjson.OPT_SORT_KEYS).decode(),
            actor=actor,
            reason=reason,
            recorded_at_ms=to_ms(at),
        )
    )


def find(connection: Connection, key: str) -> Act | None:
    """Return an act, or None."""
    row = connection.execute(select(_TABLE).where(_TABLE.c.key == key)).first()
    return None if row is None else _act(row)


def last(connection: Connection, kind: str, subject: str, before_hour: int | None = None) -> Act | None:
    """Return the newest act of that kind and subject (that is booked before that hour), or None."""
    query = select(_TABLE).where(_TABLE.c.kind == kind, _TABLE.c.subject == subject)
    if before_hour is not None:
        query = query.where(_TABLE.c.booked_hour < before_hour)
    row = connection.execute(query.order_by(_TABLE.c.booked_hour.desc(), _TABLE.c.key).limit(1)).first()
    return None if row is None else _act(row)


def of_kind(connection: Connection, kind: str, entity: str | None = None) -> list[Act]:
    """Return the acts of a kind, oldest first."""
    query = select(_TABLE).where(_TABLE.c.kind == kind).order_by(_TABLE.c.recorded_at_ms, _TABLE.c.key)
    if entity is not None:
        query = query.where(_TABLE.c.entity == entity)
    return [_act(row) for row in connection.execute(query)]


def _act(row: Any) -> Act:
    return Act(row.key, row.kind, row.subject, row.entity, row.booked_hour, orjson.loads(row.json))
