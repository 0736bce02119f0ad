"""Since when an entity's ERP does not answer: written by the poster, read by `status` in another process."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Engine, delete, select

from sinks.ledger import tables
from sinks.ledger.database import read, write
from sinks.ledger.times import to_datetime, to_ms
from sinks.ledger.upserts import upsert

_TABLE = tables.erp_status
CAUSE_CHARACTERS_MAX: Final = 500


@dataclass(frozen=True, slots=True)
class Waiting:
    """An entity whose ERP does not answer."""

    entity: str
    since: datetime
    cause: str


def waits(engine: Engine, entity: str, since: datetime, cause: str, now: datetime) -> None:
    """Record that the ERP has not answered since then."""
    values = {"waiting_since_ms": to_ms(since), "cause": cause[:CAUSE_CHARACTERS_MAX], "changed_at_ms": to_ms(now)}
    with write(engine) as connection:
        upsert(connection, _TABLE, {"entity": entity}, values)


def answers(engine: Engine, entity: str) -> None:
    """Record that the ERP answers."""
    with write(engine) as connection:
        connection.execute(delete(_TABLE).where(_TABLE.c.entity == entity))


def waiting(engine: Engine) -> list[Waiting]:
    """Return the entities that wait for their ERP."""
    with read(engine) as connection:
        rows = connection.execute(select(_TABLE).order_by(_TABLE.c.entity)).all()
    return [Waiting(row.entity, to_datetime(row.waiting_since_ms), row.cause) for row in rows]
