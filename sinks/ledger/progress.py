"""How far the outbox is: the sequence number and watermark staged, promoted, and the highest ever staged.

`staged` is the newest epoch whose documents were inserted, `promoted` the newest known durable. `high_water` only
grows, so that streams restored from an old backup are noticed even when the staged epoch was taken back.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import orjson
from sqlalchemy import Connection, Engine, delete, insert, select, update

from sinks.ledger import tables
from sinks.ledger.database import read

_TABLE = tables.progress
STAGED, PROMOTED, HIGH_WATER = "staged", "promoted", "high_water"


@dataclass(frozen=True, slots=True)
class Progress:
    """One mark: an epoch's sequence number, its watermark in Unix ms, and the watermark per sender."""

    sequence: int = 0
    watermark_ms: int = 0
    senders: Mapping[str, int] | None = None


def get(connection: Connection, name: str) -> Progress:
    """Return a mark, or zeros where nothing was recorded."""
    row = connection.execute(select(_TABLE).where(_TABLE.c.name == name)).first()
    if row is None:
        return Progress(senders={})
    return Progress(row.sequence, row.watermark_ms, orjson.loads(row.positions))


def put(connection: Connection, name: str, mark: Progress) -> None:
    """Record a mark."""
    values = {
        "sequence": mark.sequence,
        "watermark_ms": mark.watermark_ms,
        "positions": orjson.dumps(dict(mark.senders or {}), option=orjson.OPT_SORT_KEYS).decode(),
    }
    changed = connection.execute(update(_TABLE).where(_TABLE.c.name == name).values(**values))
    if not changed.rowcount:
        connection.execute(insert(_TABLE).values(name=name, **values))


def forget(connection: Connection, name: str) -> None:
    """Remove a mark."""
    connection.execute(delete(_TABLE).where(_TABLE.c.name == name))


def watermark_ms(engine: Engine) -> int:
    """Return the watermark up to which every document is durable and promoted; 0 before the first."""
    with read(engine) as connection:
        return get(connection, PROMOTED).watermark_ms


def high_water_ms(engine: Engine) -> int:
    """Return the highest watermark ever staged; 0 before the first."""
    with read(engine) as connection:
        return get(connection, HIGH_WATER).watermark_ms
