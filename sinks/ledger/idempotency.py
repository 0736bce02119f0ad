"""Answers of acts by the key the caller chose: the same request again gets the same answer, and nothing is done twice.

1. `begin` records the key; dying behind it leaves it open, and after OPEN_FOR the request may be tried again: every act
   is itself one that can be repeated. 2. The act. 3. `finish` records the answer; dying before it is as behind 1.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Engine, delete, insert, select, update

from sinks.ledger import tables
from sinks.ledger.database import write
from sinks.ledger.times import to_ms

KEPT: Final = timedelta(days=7)
OPEN_FOR: Final = timedelta(minutes=2)
ANSWER_BYTES_MAX: Final = 1 << 20

_TABLE: Final = tables.idempotent_acts


@dataclass(frozen=True, slots=True)
class Begun:
    """What is known of a key. `answer`: what was answered, None while the act is to be done now.

    `conflict`: why it must not be done: the key belongs to another request, or to one under way.
    """

    answer: tuple[int, str] | None = None
    conflict: str = ""


def begin(engine: Engine, token_id: str, key: str, request_digest: str, now: datetime) -> Begun:
    """Record that the act of this key begins, unless it is known; keys older than KEPT are forgotten."""
    own = (_TABLE.c.token_id == token_id) & (_TABLE.c.key == key)
    with write(engine) as connection:
        connection.execute(delete(_TABLE).where(_TABLE.c.created_at_ms < to_ms(now - KEPT)))
        row = connection.execute(select(_TABLE).where(own).with_for_update()).first()
        if row is not None:
            if row.request_digest != request_digest:
                return Begun(conflict="the key was used for another request: choose a new one for each act")
            if row.status:
                return Begun(answer=(row.status, row.answer))
            if row.created_at_ms > to_ms(now - OPEN_FOR):
                return Begun(conflict="the same request is under way: ask again in a moment")
            connection.execute(update(_TABLE).where(own).values(created_at_ms=to_ms(now)))
            return Begun()
        values = {"token_id": token_id, "key": key, "request_digest": request_digest, "created_at_ms": to_ms(now)}
        connection.execute(insert(_TABLE).values(values))
    return Begun()


def finish(engine: Engine, token_id: str, key: str, status: int, answer: str) -> None:
    """Record the answer, so that the same request gets it again."""
    own = (_TABLE.c.token_id == token_id) & (_TABLE.c.key == key)
    with write(engine) as connection:
        connection.execute(update(_TABLE).where(own).values(status=status, answer=answer[:ANSWER_BYTES_MAX]))


def forget(engine: Engine, token_id: str, key: str) -> None:
    """Forget a key whose act was not done: the same request may be made again."""
    with write(engine) as connection:
        connection.execute(
            delete(_TABLE).where(_TABLE.c.token_id == token_id, _TABLE.c.key == key, _TABLE.c.status == 0)
        )
