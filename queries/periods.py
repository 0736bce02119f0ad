"""Accounting periods as those who close them look at them: what takes usage still, what waits, what is sealed.

Counts come from the ledger's indexes alone, so a list of them costs little. Whether a period is complete is asked of
all stores by `queries.closing`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal

from sqlalchemy import Connection, func, select

from config.entities import Entity
from config.period_closes import PeriodClose, PeriodCloses, period_named
from config.periods import AccountingPeriod, accounting_period
from queries.closing import closed_hour
from queries.stores import Stores, of_hour
from sinks.ledger import closes, documents, tables
from sinks.ledger.database import read
from sinks.ledger.postings import BOOKED, SUPERSEDED
from sinks.ledger.times import to_datetime, to_ms

PeriodState = Literal["open", "closing", "closed", "sealed"]
STATES: Final[tuple[PeriodState, ...]] = ("open", "closing", "closed", "sealed")
PERIOD_COLUMNS: Final = (
    "entity", "accounting_period", "state", "state_by", "begins", "ends", "takes_until", "documents", "without_posting",
    "postings", "undelivered", "blocks", "seal_number", "sealed_at", "sealed_by", "sha256",
)  # fmt: skip
"""Of the rows that `plain_periods` gives."""
_OPEN_DOCUMENTS: Final = (documents.STAGED, documents.PENDING)
_SEALS: Final = tables.period_seals
_Key = tuple[str, str]


@dataclass(slots=True)
class PeriodStatus:
    """One entity's accounting period.

    `state`: `open` (it has not ended), `closing` (it ended and still takes late usage of its own), `closed` (it takes
    nothing more), `sealed` (a signed summary froze it).
    """

    entity: str
    accounting: AccountingPeriod
    state: PeriodState
    state_by: str
    """`cut-off`, or the recorded fact: `close` or `reopen`."""
    takes_until: datetime | None
    """When it stops taking usage as far as is known now, None while a recorded reopening keeps it open."""
    documents: int = 0
    without_posting: int = 0
    """Documents that are in no posting yet."""
    postings: dict[str, int] = field(default_factory=dict)
    """By state."""
    recorded: tuple[PeriodClose, ...] = ()
    seal_number: int | None = None
    sealed_at: datetime | None = None
    sealed_by: str = ""
    sha256: str = ""

    @property
    def undelivered(self) -> int:
        """Return how many postings are not in the ERP's books."""
        return sum(count for state, count in self.postings.items() if state not in (*BOOKED, SUPERSEDED))

    @property
    def blocks(self) -> list[str]:
        """Return what is known to stand against sealing it; a check may find more."""
        found = []
        if self.state in ("open", "closing"):
            until = "somebody closes it again" if self.takes_until is None else f"{self.takes_until:%Y-%m-%d %H:%M} UTC"
            found.append(f"takes usage until {until}")
        if self.without_posting:
            found.append(f"{self.without_posting:,} documents are in no posting")
        if self.undelivered:
            found.append(f"{self.undelivered:,} postings are not in the ERP")
        return [] if self.state == "sealed" else found


def periods(stores: Stores, now: datetime, *, since: str = "", entity: str = "") -> list[PeriodStatus]:
    """Return the running period of each entity and all that have documents, newest first.

    `since`: none before that one, such as 2025-11.
    """
    entities = {one.id: one for revision in stores.history.revisions for one in revision.configuration.entities}
    current = {one.id for one in stores.history.latest.configuration.entities}
    with read(stores.engine) as connection:
        recorded = closes.load(connection)
        counts = _counts(connection, since)
        waiting = _counts(connection, since, tables.documents.c.state.in_(_OPEN_DOCUMENTS))
        postings = _postings(connection, since)
        seals = _seals(connection, since)
    keys = {*counts, *seals, *((name, accounting_period(entities[name], now).name) for name in current)}
    found = []
    for key in keys:
        owner = entities.get(key[0])
        if owner is None or key[1] < since or (entity and key[0] != entity):
            continue
        one = _status(stores, owner, recorded, key[1], now)
        one.documents, one.without_posting = counts.get(key, 0), waiting.get(key, 0)
        one.postings = postings.get(key, {})
        if key in seals:
            seal = seals[key]
            one.state, one.seal_number, one.sealed_by = "sealed", seal.number, seal.actor
            one.sealed_at, one.sha256 = to_datetime(seal.sealed_at_ms), seal.digest
        found.append(one)
    return sorted(found, key=lambda one: (one.accounting.name, one.entity), reverse=True)


def _status(stores: Stores, entity: Entity, recorded: PeriodCloses, name: str, now: datetime) -> PeriodStatus:
    accounting = period_named(entity, name)
    fact = recorded.recorded(entity.id, name, to_ms(now))
    closed = recorded.is_closed(entity, accounting, now)
    state: PeriodState = "closed" if closed else "closing" if accounting.end <= now else "open"
    hour = closed_hour(stores.history, recorded, entity.id, name)
    until = None if hour is None else of_hour(hour)
    return PeriodStatus(entity.id, accounting, state, fact or "cut-off", until, recorded=recorded.of(entity.id, name))


def _counts(connection: Connection, since: str, *conditions: Any) -> dict[_Key, int]:
    table = tables.documents.c
    query = (
        select(table.entity, table.accounting_period, func.count())
        .where(table.accounting_period >= since, *conditions)
        .group_by(table.entity, table.accounting_period)
    )
    return {(row[0], row[1]): int(row[2]) for row in connection.execute(query)}


def _postings(connection: Connection, since: str) -> dict[_Key, dict[str, int]]:
    table = tables.postings.c
    query = (
        select(table.entity, table.accounting_period, table.state, func.count())
        .where(table.accounting_period >= since)
        .group_by(table.entity, table.accounting_period, table.state)
        .order_by(table.state)
    )
    found: dict[_Key, dict[str, int]] = {}
    for entity, period, state, count in connection.execute(query):
        found.setdefault((entity, period), {})[state] = int(count)
    return found


def _seals(connection: Connection, since: str) -> dict[_Key, Any]:
    columns = ("number", "entity", "accounting_period", "digest", "actor", "sealed_at_ms")
    query = select(*(_SEALS.c[name] for name in columns)).where(_SEALS.c.accounting_period >= since)
    return {(row.entity, row.accounting_period): row for row in connection.execute(query)}


def plain_periods(found: list[PeriodStatus]) -> Iterator[dict[str, Any]]:
    """Yield each period as one row of plain values, as lists and files have it."""
    for one in found:
        yield {
            "entity": one.entity,
            "accounting_period": one.accounting.name,
            "state": one.state,
            "state_by": one.state_by,
            "begins": one.accounting.start,
            "ends": one.accounting.end,
            "takes_until": one.takes_until,
            "documents": one.documents,
            "without_posting": one.without_posting,
            "postings": sum(one.postings.values()),
            "undelivered": one.undelivered,
            "blocks": one.blocks,
            "seal_number": one.seal_number,
            "sealed_at": one.sealed_at,
            "sealed_by": one.sealed_by,
            "sha256": one.sha256,
        }
