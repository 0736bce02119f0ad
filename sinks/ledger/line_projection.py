"""How many lines the postings make, and will make in a month, against what the ERP takes."""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Engine, func, select

from sinks.ledger import tables
from sinks.ledger.database import read
from sinks.ledger.postings import SUPERSEDED

HOURS_PER_MONTH: Final = 730
WINDOW_HOURS: Final = 30 * 24

_TABLE = tables.postings


@dataclass(frozen=True, slots=True)
class Projection:
    """One entity's lines over its newest booked hours, at most thirty days of them."""

    entity: str
    hours: int
    """Booked hours from the first to the last posting looked at."""
    postings: int
    lines: int
    largest: int
    """Lines of the largest posting."""

    @property
    def lines_per_month(self) -> int:
        """Return the lines a month of 730 hours would make at this pace."""
        return -(-self.lines * HOURS_PER_MONTH // self.hours)


def project(engine: Engine) -> list[Projection]:
    """Return the projection of every entity that has postings."""
    counted = _TABLE.c.state != SUPERSEDED
    newest = select(_TABLE.c.entity, func.max(_TABLE.c.booked_hour)).where(counted).group_by(_TABLE.c.entity)
    found = []
    with read(engine) as connection:
        for entity, last in connection.execute(newest.order_by(_TABLE.c.entity)).all():
            first, postings, lines, largest = connection.execute(
                select(
                    func.min(_TABLE.c.booked_hour), func.count(), func.sum(_TABLE.c.lines), func.max(_TABLE.c.lines)
                ).where(counted, _TABLE.c.entity == entity, _TABLE.c.booked_hour > last - WINDOW_HOURS)
            ).one()
            found.append(Projection(entity, int(last - first + 1), int(postings), int(lines), int(largest)))
    return found
