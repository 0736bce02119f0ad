"""The operations report: how fast months are done, how much of it needs hands, what came late, what is still open."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import orjson
from sqlalchemy import Connection, func, select

from config.entities import Entity
from config.period_closes import PeriodCloses, period_named
from queries import exceptions
from queries.closing import closed_hour
from queries.reconcile import sealed_until
from queries.stores import Stores, of_hour
from sinks.ledger import acts, closes, documents, seals, tables
from sinks.ledger.database import read
from sinks.ledger.postings import BOOKED, RECONCILED, REVERSED, SUPERSEDED
from sinks.ledger.times import to_datetime, to_ms

ON_POSTINGS: Final = ("approve", "release", "reverse", "adjust")
"""Acts in the audit log that somebody had to do because a posting did not go by itself; their subject is its key."""
ELSEWHERE: Final = ("resolve_exception", "send_again", "approve-price-correction", "withdraw-price-correction")
"""Such acts that belong to no entity."""


@dataclass(slots=True)
class Month:
    """One entity's accounting period. Hours are from its end; None: not yet, or not all of it."""

    entity: str
    period: str
    ended_at: datetime
    documents: int = 0
    postings: int = 0
    first_time: int = 0
    """Postings that the ERP took at the first attempt."""
    posted_postings: int = 0
    hours_to_booked: Decimal | None = None
    """Until every hour that counts for it is booked: its cut-off or recorded close, plus the grace."""
    hours_to_posted: Decimal | None = None
    hours_to_reconciled: Decimal | None = None
    hours_to_invoiced: Decimal | None = None
    """Until the newest invoice of a billing period that ended in it."""
    hours_to_sealed: Decimal | None = None
    touches: int = 0
    """Acts by hand on its postings, and reopenings."""

    @property
    def first_time_percent(self) -> Decimal | None:
        """Return the share of posted postings that needed one attempt."""
        return _share(100 * self.first_time, self.posted_postings)

    @property
    def touches_per_1000(self) -> Decimal | None:
        """Return acts by hand per thousand documents."""
        return _share(1000 * self.touches, self.documents)


@dataclass(frozen=True, slots=True)
class Late:
    """Exact amounts of an entity, accounting period and currency. `prior`: of closed periods, booked in this one."""

    entity: str
    period: str
    currency: str
    amount: Decimal
    late: Decimal
    prior: Decimal


@dataclass(frozen=True, slots=True)
class Unrated:
    """Usage without a price."""

    tenant: str
    meter: str
    events: int
    quantity: Decimal
    since: datetime


@dataclass(frozen=True, slots=True)
class Age:
    """Open exceptions of one kind."""

    kind: str
    groups: int
    count: int
    oldest_hours: Decimal


@dataclass(frozen=True, slots=True)
class Report:
    """All of it."""

    months: list[Month]
    late: list[Late]
    unrated: list[Unrated]
    exceptions: list[Age] = field(default_factory=list)
    other_touches: dict[str, int] = field(default_factory=dict)
    """Acts by hand that belong to no entity, since the first of these periods began."""


def _share(part: int, whole: int) -> Decimal | None:
    return None if not whole else (Decimal(part) / whole).quantize(Decimal("0.1"))


def hours_between(begins: datetime, ends: datetime) -> Decimal:
    """Return hours with one decimal place."""
    return (Decimal((ends - begins) // timedelta(seconds=1)) / 3600).quantize(Decimal("0.1"))


def report(stores: Stores, now: datetime, *, entity: str = "", periods: int = 6) -> Report:
    """Return the report over each entity's newest accounting periods that have documents."""
    entities = {one.id: one for revision in stores.history.revisions for one in revision.configuration.entities}
    with read(stores.engine) as connection:
        recorded = closes.load(connection)
        months = [
            _month(stores, connection, recorded, entities[name], period)
            for name, period in _newest(connection, entity, periods)
            if name in entities
        ]
        first = min((period_named(entities[one.entity], one.period).start for one in months), default=now)
        others = _other_touches(connection, first)
    chosen = [(month.entity, month.period) for month in months]
    return Report(months, _late(stores, chosen), _unrated(stores), _ages(stores, now), others)


def _newest(connection: Connection, entity: str, periods: int) -> Iterator[tuple[str, str]]:
    table = tables.documents
    query = select(table.c.entity, table.c.accounting_period).where(table.c.state != documents.STAGED).distinct()
    if entity:
        query = query.where(table.c.entity == entity)
    found: dict[str, list[str]] = {}
    for name, period in connection.execute(query):
        found.setdefault(name, []).append(period)
    for name in sorted(found):
        yield from ((name, period) for period in sorted(found[name])[-periods:])


def _month(stores: Stores, connection: Connection, recorded: PeriodCloses, entity: Entity, name: str) -> Month:
    period = period_named(entity, name)
    month = Month(entity.id, name, period.end)
    table = tables.documents
    own = (table.c.entity == entity.id, table.c.accounting_period == name, table.c.state != documents.STAGED)
    month.documents = connection.execute(select(func.count()).select_from(table).where(*own)).scalar() or 0
    month.touches = _touches(connection, month)
    closed = closed_hour(stores.history, recorded, entity.id, name)
    if closed is not None and sealed_until(stores) >= of_hour(closed):
        grace_s = stores.history.at(closed * 3_600_000).rules.grace_s
        month.hours_to_booked = hours_between(period.end, of_hour(closed) + timedelta(seconds=grace_s))
    waiting = connection.execute(
        select(func.count()).select_from(table).where(*own, table.c.state == documents.PENDING)
    ).scalar()
    _postings(connection, month, complete=not waiting)
    invoiced = [
        at_ms
        for at_ms, text in connection.execute(
            select(tables.acts.c.recorded_at_ms, tables.acts.c.json).where(
                tables.acts.c.kind == acts.INVOICE, tables.acts.c.entity == entity.id
            )
        )
        if period.start < datetime.fromisoformat(orjson.loads(text)["period_end"]) <= period.end
    ]
    month.hours_to_invoiced = _until(period.end, invoiced)
    seal = seals.find(connection, entity.id, name)
    month.hours_to_sealed = None if seal is None else hours_between(period.end, seal.sealed_at)
    return month


def _touches(connection: Connection, month: Month) -> int:
    audit, postings = tables.audit_log, tables.postings
    own = select(postings.c.key).where(postings.c.entity == month.entity, postings.c.accounting_period == month.period)
    papers = tables.documents
    single = select(papers.c.key).where(papers.c.entity == month.entity, papers.c.accounting_period == month.period)
    on_postings = audit.c.action.in_(ON_POSTINGS) & (audit.c.subject.in_(own) | audit.c.subject.in_(single))
    reopened = (audit.c.action == "reopen-period") & (audit.c.subject == f"{month.entity}/{month.period}")
    query = select(func.count()).select_from(audit).where(on_postings | reopened)
    return int(connection.execute(query).scalar() or 0)


def _other_touches(connection: Connection, since: datetime) -> dict[str, int]:
    table = tables.audit_log
    query = (
        select(table.c.action, func.count())
        .where(table.c.action.in_(ELSEWHERE), table.c.at_ms >= to_ms(since))
        .group_by(table.c.action)
    )
    return {row[0]: int(row[1]) for row in connection.execute(query)}


def _postings(connection: Connection, month: Month, *, complete: bool) -> None:
    """Add what became of the period's postings; `complete`: every document is in one."""
    table, entries = tables.postings, tables.erp_entries
    posted = select(func.min(entries.c.posted_at_ms)).where(entries.c.posting_key == table.c.key).scalar_subquery()
    query = select(table.c.state, table.c.attempts, table.c.changed_at_ms, posted.label("posted_at_ms")).where(
        table.c.entity == month.entity, table.c.accounting_period == month.period, table.c.state != SUPERSEDED
    )
    rows = connection.execute(query).all()
    booked = [row for row in rows if row.state in BOOKED]
    month.postings, month.posted_postings = len(rows), len(booked)
    month.first_time = sum(row.attempts <= 1 for row in booked)
    if complete and len(booked) == len(rows):
        month.hours_to_posted = _until(month.ended_at, [row.posted_at_ms or row.changed_at_ms for row in booked])
        if all(row.state in (RECONCILED, REVERSED) for row in booked):
            month.hours_to_reconciled = _until(month.ended_at, [row.changed_at_ms for row in booked])


def _until(ended_at: datetime, times_ms: Sequence[int]) -> Decimal | None:
    """Return the hours to the last of these times; a month that was done before its end took none."""
    if not times_ms:
        return None
    return max(Decimal("0.0"), hours_between(ended_at, to_datetime(max(times_ms))))


def _late(stores: Stores, chosen: list[tuple[str, str]]) -> list[Late]:
    if not chosen:
        return []
    rows = stores.rows(
        "SELECT toString(entity) AS e, toString(accounting_period) AS p, toString(currency) AS c,"
        " sum(r.amount) AS amount, sumIf(r.amount, line_kind = 'late_usage') AS late,"
        " sumIf(r.amount, original_period != accounting_period) AS prior FROM @rated_usage_current AS r"
        " WHERE status = 'sealed' AND (e, p) IN {chosen:Array(Tuple(String, String))} GROUP BY ALL ORDER BY e, p, c",
        {"chosen": chosen},
    )
    return [Late(row["e"], row["p"], row["c"], row["amount"], row["late"], row["prior"]) for row in rows]


def _unrated(stores: Stores) -> list[Unrated]:
    rows = stores.rows(
        "SELECT r.tenant AS t, toString(r.meter) AS m, sum(r.events) AS n, sum(r.quantity) AS q,"
        " min(booked_hour) AS since FROM @rated_usage_current AS r WHERE status = 'unrated'"
        " GROUP BY t, m HAVING n != 0 OR q != 0 ORDER BY n DESC, t, m LIMIT 1000"
    )
    return [Unrated(row["t"], row["m"], int(row["n"]), row["q"], row["since"]) for row in rows]


def _ages(stores: Stores, now: datetime) -> list[Age]:
    found: dict[str, list[Any]] = {}
    for group in exceptions.groups(stores):
        found.setdefault(group.kind, []).append(group)
    return [
        Age(
            kind,
            len(groups),
            sum(group.count for group in groups),
            hours_between(min(group.first for group in groups), now),
        )
        for kind, groups in sorted(found.items())
    ]
