"""How old the oldest posting in each state is, for metrics and alerts."""

from datetime import datetime
from typing import Final

from sqlalchemy import Engine, func, select

from sinks.ledger import postings, tables
from sinks.ledger.database import read
from sinks.ledger.times import to_datetime

_TABLE = tables.postings
WATCHED: Final = tuple(dict.fromkeys((*postings.ACTIVE, *postings.ALARMS, postings.MISMATCHED)))
"""States in which a posting is not where it should stay."""


def oldest_made(engine: Engine) -> dict[str, datetime]:
    """Return when the oldest posting in each watched state was made; states without any are left out.

    The time it was made and not of its last change: a posting that is tried again and again does not look young.
    """
    query = select(_TABLE.c.state, func.min(_TABLE.c.created_at_ms)).where(_TABLE.c.state.in_(WATCHED))
    with read(engine) as connection:
        return {state: to_datetime(made_ms) for state, made_ms in connection.execute(query.group_by(_TABLE.c.state))}
