"""What was last pulled from each entity's ERP, and how a new pull differs from it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import orjson
from sqlalchemy import Connection, Engine, delete, insert, select

from sinks.erp.port import MasterData, Record
from sinks.ledger import held, tables
from sinks.ledger.database import read, write
from sinks.ledger.readiness import ErpData
from sinks.ledger.times import to_ms
from sinks.ledger.upserts import upsert

_Known = dict[tuple[str, str], tuple[str, bool]]

_RECORDS, _PULLS = tables.erp_records, tables.erp_pulls


@dataclass(frozen=True, slots=True)
class Pulled:
    """What a pull found: how many records of each kind, and how they differ from the pull before."""

    entity: str
    counts: dict[str, int]
    added: tuple[str, ...]
    changed: tuple[str, ...]
    gone: tuple[str, ...]
    looked_at_again: int
    """Held postings that the poster will check again with the ERP."""


def keep(engine: Engine, entity: str, data: MasterData, reasons: Sequence[str], now: datetime) -> Pulled:
    """Replace what is known of the entity's ERP, in one transaction, and make what it held due for another look."""
    new: _Known = {(one.kind, one.code): (one.name, one.active) for one in data.records}
    with write(engine) as connection:
        first = connection.execute(select(_PULLS.c.entity).where(_PULLS.c.entity == entity)).first() is None
        old: _Known = {(one.kind, one.code): (one.name, one.active) for one in _records(connection, entity)}
        connection.execute(delete(_RECORDS).where(_RECORDS.c.entity == entity))
        rows = [
            {"entity": entity, "kind": kind, "code": code, "name": name, "active": int(active),
             "pulled_at_ms": to_ms(now)}
            for (kind, code), (name, active) in new.items()
        ]  # fmt: skip
        if rows:
            connection.execute(insert(_RECORDS), rows)
        values = {"authoritative": orjson.dumps(sorted(data.authoritative)).decode(), "pulled_at_ms": to_ms(now)}
        upsert(connection, _PULLS, {"entity": entity}, values)
        again = held.look_again(connection, entity, reasons)
    counts: dict[str, int] = {}
    for kind, _ in new:
        counts[kind] = counts.get(kind, 0) + 1
    added = () if first else _named(new.keys() - old.keys())
    changed = _named({key for key in new.keys() & old.keys() if new[key] != old[key]})
    return Pulled(entity, counts, added, changed, _named(old.keys() - new.keys()), again)


def _named(keys: "set[tuple[str, str]]") -> tuple[str, ...]:
    return tuple(f"{kind} {code}" for kind, code in sorted(keys))


def _records(connection: Connection, entity: str) -> list[Record]:
    query = select(_RECORDS).where(_RECORDS.c.entity == entity)
    return [Record(row.kind, row.code, row.name, bool(row.active)) for row in connection.execute(query)]


def load(engine: Engine) -> dict[str, ErpData]:
    """Return what was last pulled, by entity."""
    with read(engine) as connection:
        pulls = connection.execute(select(_PULLS.c.entity, _PULLS.c.authoritative)).all()
        return {
            row.entity: ErpData.of(_records(connection, row.entity), orjson.loads(row.authoritative)) for row in pulls
        }
