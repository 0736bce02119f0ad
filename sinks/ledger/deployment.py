"""What is fixed when a deployment begins: shard counts, readers and streams decide how state is laid out."""

import orjson
from sqlalchemy import Engine, insert, select, update

from config.settings import Settings
from core.errors import StateMismatch
from sinks.ledger import tables
from sinks.ledger.database import write

_SETTING = {
    "id_shards": "flow.id_shards",
    "tenant_shards": "flow.tenant_shards",
    "customer_shards": "flow.customer_shards",
    "readers": "flow.readers",
    "streams": "redis.streams",
}


def fix(engine: Engine, settings: Settings) -> None:
    """Write the fixed settings the first time; later compare and accept only streams added at the end.

    :raises StateMismatch: a fixed setting differs; the message names all of them.
    """
    wanted: dict[str, int | list[str]] = {
        "id_shards": settings.flow.id_shards,
        "tenant_shards": settings.flow.tenant_shards,
        "customer_shards": settings.flow.customer_shards,
        "readers": settings.flow.readers,
        "streams": list(settings.redis.streams),
    }
    with write(engine) as connection:
        rows = connection.execute(select(tables.deployment.c.name, tables.deployment.c.value)).all()
        known = {name: orjson.loads(value) for name, value in rows}
        problems = [
            f"{_SETTING[name]} is {value!r}, but this deployment was made with {known[name]!r}"
            for name, value in wanted.items()
            if name in known and not _compatible(name, known[name], value)
        ]
        if problems:
            message = (
                "; ".join(problems) + ". These are fixed at `migrate` because stored state depends on them:"
                " set them back (streams may only be added at the end), or start a new state directory and ledger"
            )
            raise StateMismatch(message)
        for name, value in wanted.items():
            encoded = orjson.dumps(value).decode()
            if name not in known:
                connection.execute(insert(tables.deployment).values(name=name, value=encoded))
            elif known[name] != value:
                change = update(tables.deployment).where(tables.deployment.c.name == name)
                connection.execute(change.values(value=encoded))


def _compatible(name: str, known: object, wanted: object) -> bool:
    if name == "streams" and isinstance(known, list) and isinstance(wanted, list):
        return wanted[: len(known)] == known
    return known == wanted
