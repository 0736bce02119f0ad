"""Is a period complete? Everything that has to hold before it is sealed, and what somebody may accept as it is."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import func, select

from config.entities import Entity
from config.period_closes import PeriodCloses, period_named
from config.periods import AccountingPeriod
from config.revision import History
from core.errors import InvalidRequest
from queries import exceptions
from queries.leaves_clickhouse import Scope
from queries.reconcile import Report, Span, reconcile, sealed_until
from queries.stores import Stores, minute_of, of_hour
from sinks.ledger import closes, documents, tables
from sinks.ledger.database import read
from sinks.ledger.postings import BOOKED, SUPERSEDED
from sinks.ledger.times import MS_PER_HOUR, to_ms

NAMED_MAX: Final = 20
"""Keys a finding names; more are counted."""


@dataclass(frozen=True, slots=True)
class Period:
    """One entity's accounting period, and the first booked hour in which it takes nothing more (None: it is open)."""

    entity: str
    accounting: AccountingPeriod
    closed_hour: int | None

    @property
    def scope(self) -> Scope:
        """Return which rows belong to it.

        :raises InvalidRequest: it is not closed yet.
        """
        if self.closed_hour is None:
            message = f"{self.accounting.name} of {self.entity} still takes usage of its own"
            raise InvalidRequest(message)
        begins, ends = (to_ms(when) // 1000 for when in (self.accounting.start, self.accounting.end))
        return Scope(self.entity, self.accounting.name, begins, ends, self.closed_hour)


@dataclass(frozen=True, slots=True)
class Finding:
    """One condition. `acceptable`: a person may seal over it, with a reason; else it has to be mended first."""

    name: str
    holds: bool
    detail: str = ""
    acceptable: bool = False
    items: list[dict[str, Any]] = field(default_factory=list)


def entity_of(history: History, name: str) -> Entity:
    """Return the entity as it was configured last.

    :raises InvalidRequest: no configuration ever had it.
    """
    entities = {one.id: one for revision in history.revisions for one in revision.configuration.entities}
    if name not in entities:
        message = f"unknown entity {name[:64]!r}: known are {', '.join(sorted(entities))}"
        raise InvalidRequest(message)
    return entities[name]


def period_of(entity: Entity, name: str) -> AccountingPeriod:
    """Return the entity's accounting period of that name.

    :raises InvalidRequest: the name is not such as 2026-10.
    """
    try:
        return period_named(entity, name)
    except (ValueError, OverflowError):
        message = f"{name[:64]!r} is not an accounting period such as 2026-01"
        raise InvalidRequest(message) from None


def find_period(stores: Stores, entity: str, name: str) -> Period:
    """Return the period of that name.

    :raises InvalidRequest: the entity is unknown, or the name is not such as 2026-10.
    """
    accounting = period_of(entity_of(stores.history, entity), name)
    with read(stores.engine) as connection:
        recorded = closes.load(connection)
    return Period(entity, accounting, closed_hour(stores.history, recorded, entity, name))


def closed_hour(history: History, recorded: PeriodCloses, entity: str, period: str) -> int | None:
    """Return the first booked hour from which the period takes nothing more for good, or None while it is open.

    Every hour is judged by the configuration and the closes that were known in it, as rating does.
    """
    moments = {0} | {fact.known_from_ms for fact in recorded.of(entity, period)}
    for revision in history.revisions:
        moments.add(revision.known_from_ms)
        found = revision.entities.get(entity)
        if found is not None:
            moments.add(to_ms(period_named(found, period).cutoff_at))
    closed_from: int | None = None
    for hour in sorted({-(-moment // MS_PER_HOUR) for moment in moments}):
        found = history.at(hour * MS_PER_HOUR).entities.get(entity)
        closed = found is None or recorded.is_closed(found, period_named(found, period), of_hour(hour))
        if not closed:
            closed_from = None
        elif closed_from is None:
            closed_from = hour
    return closed_from


def completeness(
    stores: Stores, period: Period, done: Callable[[str], None] = lambda _name: None
) -> tuple[list[Finding], Report | None]:
    """Return every finding, and the reconciliation of the period; without one where hours are still to come."""
    findings = [_closed(period), _watermark(stores, period)]
    if not all(finding.holds for finding in findings):
        return findings, None
    scope = period.scope
    findings += [_facts(stores, scope), _documents(stores, scope), _postings(stores, scope)]
    span = Span(of_hour(minute_of(period.accounting.start) // 60), of_hour(scope.closed_hour))
    report = reconcile(stores, span, done)
    findings += _identities(report)
    findings += [_unrated(stores, scope), _exceptions(stores, scope)]
    return findings, report


def _closed(period: Period) -> Finding:
    name = "the period takes no more usage"
    if period.closed_hour is not None:
        return Finding(name, True, f"from {of_hour(period.closed_hour):%Y-%m-%d %H:%M} UTC on")
    return Finding(name, False, f"its reopening is recorded: {_close_it(period)}")


def _close_it(period: Period) -> str:
    return f"`meterbridge erp close-period {period.entity} {period.accounting.name} --reason TEXT` records a close"


def _watermark(stores: Stores, period: Period) -> Finding:
    name = "all its hours are sealed and booked"
    until = sealed_until(stores)
    wanted = period.closed_hour
    if wanted is None or until >= of_hour(wanted):
        return Finding(name, wanted is not None, f"booked until {until:%Y-%m-%d %H:%M} UTC")
    detail = (
        f"it takes usage until {of_hour(wanted):%Y-%m-%d %H:%M} UTC, booked is until {until:%Y-%m-%d %H:%M}: let"
        f" `meterbridge run` go on until then; {_close_it(period)} before its cut-off"
    )
    return Finding(name, False, detail)


def _facts(stores: Stores, scope: Scope) -> Finding:
    rows = stores.rows(
        "SELECT tenant, toString(meter) AS m, count() AS n FROM @usage_facts_current WHERE sealed = 0"
        " AND booked_minute >= toDateTime({begins:Int64}, 'UTC') AND booked_minute < toDateTime({closed:Int64}, 'UTC')"
        " GROUP BY ALL ORDER BY n DESC, tenant, m LIMIT 20",
        scope.parameters,
    )
    items = [{"tenant": row["tenant"], "meter": row["m"], "facts": int(row["n"])} for row in rows]
    detail = "facts of complete hours are open: run `meterbridge verify`" if items else ""
    return Finding("all its facts are sealed", not items, detail, items=items)


def _documents(stores: Stores, scope: Scope) -> Finding:
    table = tables.documents
    query = (
        select(table.c.key, table.c.state)
        .where(
            table.c.entity == scope.entity,
            table.c.accounting_period == scope.period,
            table.c.state.in_((documents.STAGED, documents.PENDING)),
        )
        .order_by(table.c.key)
    )
    with read(stores.engine) as connection:
        rows = connection.execute(query.limit(NAMED_MAX)).all()
    items = [{"document": row.key, "state": row.state} for row in rows]
    detail = "run `meterbridge post --once`: it makes postings even while the ERP is away" if items else ""
    return Finding("all its documents are in postings", not items, detail, items=items)


def _postings(stores: Stores, scope: Scope) -> Finding:
    table = tables.postings
    own = (table.c.entity == scope.entity, table.c.accounting_period == scope.period)
    open_ = (*own, table.c.state.not_in((*BOOKED, SUPERSEDED)))
    query = select(table.c.key, table.c.state, table.c.reason).where(*open_).order_by(table.c.key).limit(NAMED_MAX)
    with read(stores.engine) as connection:
        count = connection.execute(select(func.count()).select_from(table).where(*open_)).scalar() or 0
        rows = connection.execute(query).all()
    items = [{"posting": row.key, "state": row.state, "reason": row.reason} for row in rows]
    detail = f"{count:,} are not: see `meterbridge report postings`" if count else ""
    return Finding("all its postings are in the ERP", not count, detail, True, items)


def _identities(report: Report) -> Iterator[Finding]:
    broken = [check for check in report.checks if not check.holds]
    if not broken:
        yield Finding("its accounts reconcile", True, f"{len(report.checks)} checks")
    for check in broken:
        items = [
            {name: str(value) for name, value in one.where.items()} | {"difference": str(one.difference)}
            for one in check.breaks[:NAMED_MAX]
        ]
        detail = f"{check.broken:,} of {check.groups:,} groups differ: run `meterbridge reconcile`"
        yield Finding(f"reconcile: {check.name}", False, detail, True, items)


def _unrated(stores: Stores, scope: Scope) -> Finding:
    rows = stores.rows(
        "SELECT r.tenant AS tenant, toString(r.meter) AS m, sum(r.events) AS n, sum(r.quantity) AS q"
        " FROM @rated_usage_current AS r WHERE status = 'unrated'"
        " AND usage_hour >= toDateTime({begins:Int64}, 'UTC') AND usage_hour < toDateTime({ends:Int64}, 'UTC')"
        " AND booked_hour < toDateTime({closed:Int64}, 'UTC')"
        " GROUP BY ALL HAVING n != 0 OR q != 0 ORDER BY n DESC, tenant, m",
        scope.parameters,
    )
    items = [
        {"tenant": row["tenant"], "meter": row["m"], "events": int(row["n"]), "quantity": row["q"]}
        for row in rows[:NAMED_MAX]
    ]
    detail = f"{len(rows):,} subjects and meters have usage without a price" if rows else ""
    return Finding("all its usage has a price", not rows, detail, True, items)


def _exceptions(stores: Stores, scope: Scope) -> Finding:
    before: datetime = of_hour(scope.closed_hour)
    found = [group for group in exceptions.groups(stores) if group.first < before]
    items = [{"key": group.key, "kind": group.kind, "count": group.count, "cause": group.cause} for group in found]
    detail = f"{len(found):,} groups are open: see `meterbridge exceptions list`" if found else ""
    return Finding("no exceptions are open", not found, detail, True, items)
