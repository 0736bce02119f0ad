"""Accounting periods and postings as finance looks at them: what is in which period, what is not delivered, and why."""

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Engine, func, select

from config.entities import Entity
from config.period_closes import period_named
from sinks.ledger import closes, documents, tables
from sinks.ledger.amounts import exact
from sinks.ledger.database import read
from sinks.ledger.postings import BOOKED, SUPERSEDED
from sinks.ledger.times import to_datetime, to_ms

_DOCUMENTS, _POSTINGS = tables.documents, tables.postings


@dataclass(slots=True)
class Period:
    """One entity's accounting period in one currency."""

    entity: str
    period: str
    currency: str
    state: str = "open"
    """`open`, or `closed` by its cut-off or a recorded close."""
    state_by: str = ""
    documents: int = 0
    revenue: Decimal = Decimal(0)
    """What its documents earn."""
    by_kind: dict[str, int] = field(default_factory=dict)
    undelivered: int = 0
    """Documents that are not in the ERP's books yet."""

    @property
    def can_close(self) -> bool:
        """Tell whether everything of it is in the ERP's books."""
        return self.undelivered == 0


def periods(engine: Engine, entities: dict[str, Entity], now: datetime) -> list[Period]:
    """Return every accounting period that has documents, oldest first."""
    table = _DOCUMENTS.c
    joined = _DOCUMENTS.outerjoin(_POSTINGS, _POSTINGS.c.key == table.posting_key)
    query = (
        select(table.entity, table.accounting_period, table.currency, table.kind, table.state, table.net,
               _POSTINGS.c.state.label("posting"))
        .select_from(joined)
        .where(table.state != documents.STAGED)
    )  # fmt: skip
    found: dict[tuple[str, str, str], Period] = {}
    with read(engine) as connection, exact():
        recorded = closes.load(connection)
        for row in connection.execute(query.execution_options(yield_per=5_000)):
            key = (row.entity, row.accounting_period, row.currency)
            one = found.setdefault(key, Period(*key))
            one.documents += 1
            one.revenue += row.net or Decimal(0)
            one.by_kind[row.kind] = one.by_kind.get(row.kind, 0) + 1
            one.undelivered += row.state != documents.NOT_POSTED_ZERO and row.posting not in BOOKED
    for one in found.values():
        entity = entities.get(one.entity)
        if entity is None:
            continue
        period = period_named(entity, one.period)
        fact = recorded.recorded(entity.id, one.period, to_ms(now))
        one.state = "closed" if recorded.is_closed(entity, period, now) else "open"
        one.state_by = f"recorded {fact}" if fact else f"cut-off {period.cutoff_at.isoformat(timespec='minutes')}"
    return [found[key] for key in sorted(found)]


@dataclass(frozen=True, slots=True)
class StateCount:
    """Postings of one entity and state."""

    entity: str
    state: str
    reason: str
    postings: int
    documents: int
    oldest: datetime


@dataclass(frozen=True, slots=True)
class Waiting:
    """A posting that waits for somebody."""

    key: str
    entity: str
    state: str
    reason: str
    detail: str
    documents: int
    since: datetime
    do: str
    """What to do about it."""


DO: dict[str, str] = {
    "missing_account": "map the role in the entity's accounts, then `meterbridge migrate`: it goes on by itself",
    "missing_customer": "give the customer its erp.customer, then `meterbridge migrate`: it goes on by itself",
    "missing_dimension_mapping": "add it to erp.mappings.dimensions, then `meterbridge migrate`: it goes on by itself",
    "missing_tax_mapping": "add it to erp.mappings.taxes, then `meterbridge migrate`: it goes on by itself",
    "unknown_tax": "create the tax in the ERP or correct erp.mappings.taxes, then run `meterbridge erp pull`",
    "unknown_dimension": "create the value in the ERP or correct erp.mappings.dimensions, then `meterbridge erp pull`",
    "unknown_account": "create the account in the ERP or correct the mapping, then run `meterbridge erp pull`",
    "unknown_customer": "create the customer in the ERP or correct erp.customer, then run `meterbridge erp pull`",
    "missing_dimension": "complete the dimension in the ERP, then run `meterbridge erp pull`",
    "closed_period": "reopen it in the ERP, or `meterbridge erp close-period` with erp_closed: next_open",
    "approval_required": "look at it, then run `meterbridge erp approve KEY --name NAME --reason TEXT`",
    "unknown_outcome": "look for the key in the ERP; if absent, `meterbridge post --once --release KEY --reason TEXT`",
    "other_company": "nothing: the poster writes it anew for the company that is named now",
    "too_many_lines": "choose a coarser posting.line_grain or a higher cap",
    "unbalanced": "a defect: keep the posting and report it",
    "original_missing": "the entry to be reversed is gone from the ERP: run `meterbridge reconcile --erp`",
    "original_duplicated": "the entry to be reversed is there more than once: run `meterbridge reconcile --erp`",
    "CONFLICT": "correct or remove the ERP's entry of this key, then `meterbridge reconcile --erp`",
    "DUPLICATED": "reverse the extra entries in the ERP, take the key out of them, then `meterbridge reconcile --erp`",
    "MISMATCHED": "correct the entry in the ERP, then `meterbridge reconcile --erp`",
    "UNKNOWN": "nothing: the poster looks it up until it knows",
}
OTHERWISE = "read the detail, correct the cause, then `meterbridge post --once --release KEY --reason TEXT`"


def by_state(engine: Engine) -> list[StateCount]:
    """Return how many postings are in each state, by entity and reason."""
    table = _POSTINGS.c
    group = (table.entity, table.state, table.reason)
    query = select(*group, func.count(), func.sum(table.documents), func.min(table.created_at_ms)).group_by(*group)
    with read(engine) as connection:
        rows = connection.execute(query.order_by(*group)).all()
    return [StateCount(row[0], row[1], row[2], row[3], int(row[4]), to_datetime(row[5])) for row in rows]


def waiting(engine: Engine, limit: int = 100) -> list[Waiting]:
    """Return the oldest postings that are not in the books, or not as they should be."""
    table = _POSTINGS.c
    settled: tuple[Any, ...] = (*(state for state in BOOKED if state != "MISMATCHED"), SUPERSEDED, "PENDING")
    query = select(_POSTINGS).where(table.state.not_in(settled)).order_by(table.created_at_ms, table.key).limit(limit)
    with read(engine) as connection:
        rows = connection.execute(query).all()
    return [
        Waiting(row.key, row.entity, row.state, row.reason, row.detail, row.documents, to_datetime(row.changed_at_ms),
                DO.get(row.reason) or DO.get(row.state) or OTHERWISE)
        for row in rows
    ]  # fmt: skip
