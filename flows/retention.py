"""`retention`: removes rows that are older than the policy says, whole months at a time, and keeps what proves them.

Per table and month, oldest first:

1. For raw events: totals and digests per series and hour go to `kept_usage`, and their count is compared with the rows.
   Dying here leaves totals beside the events; the next run makes them again.
2. The ledger records that the month expires, with a digest over what is kept. From then on its totals are never made
   again, since events may be missing.
3. The partition is dropped; where a legal hold keeps rows of it, all others are deleted. Dying before leaves rows that
   the next run removes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from config.revision import History
from core.directory_lock import DirectoryLock
from core.errors import Disagreement
from flows import summing
from queries import kept_usage
from queries.reconcile import sealed_until
from queries.stores import Stores
from sinks.clickhouse import usage_hours
from sinks.ledger import retention
from sinks.ledger.retention import EVENTS, Expiration, Hold, first_of, following

AUDIT: Final = "audit_log"
FACTS: Final = "usage_facts"
_SIZE_LIMIT: Final = "max_partition_size_to_drop"


@dataclass(frozen=True, slots=True)
class _Table:
    """A table in monthly partitions: the time they go by, and which rows a hold keeps."""

    name: str
    time: str
    held: str


_TENANT: Final = "tenant IN {tenants:Array(String)}"
_CUSTOMER: Final = "customer IN {customers:Array(String)}"
_SUBJECT: Final = "JSONExtractString(raw, 'subject') IN {tenants:Array(String)}"
TABLES: Final = (
    _Table("usage_events", "ingest_time", _TENANT),
    _Table("usage_rejects", "ingest_time", _SUBJECT),
    _Table("intake_counts", "ingest_minute", "0"),
    _Table(FACTS, "booked_minute", _TENANT),
    _Table("rated_usage", "booked_hour", f"({_CUSTOMER} OR {_TENANT})"),
    _Table("financial_documents", "booked_hour", _CUSTOMER),
)


@dataclass(frozen=True, slots=True)
class Due:
    """A month of a table that is older than the policy says. `held` rows stay; `recorded`: it expired before."""

    table: str
    month: int
    rows: int
    held: int
    recorded: bool = False

    @property
    def removes(self) -> int:
        """Return how many rows go."""
        return self.rows - self.held


@dataclass(frozen=True, slots=True)
class Held:
    """What holds in force keep: customers with all their tenants, and tenants with their customers."""

    customers: list[str]
    tenants: list[str]

    @property
    def parameters(self) -> dict[str, Any]:
        """Return it as query parameters."""
        return {"customers": self.customers, "tenants": self.tenants}


def held_by(holds: list[Hold], history: History) -> Held:
    """Return the customers and tenants that holds keep, by every configuration there ever was."""
    owners: set[tuple[str, str]] = {
        (customer.id, subject.id)
        for revision in history.revisions
        for customer in revision.configuration.customers
        for subject in customer.subjects
    }
    customers = {one.name for one in holds if one.kind == "customer"}
    tenants = {one.name for one in holds if one.kind == "tenant"}
    customers |= {customer for customer, tenant in owners if tenant in tenants}
    tenants |= {tenant for customer, tenant in owners if customer in customers}
    return Held(sorted(customers), sorted(tenants))


def cut(now: datetime, months: int) -> int:
    """Return the first month that is kept whole, such as 202410: those before it ended so many months ago."""
    number = now.year * 12 + now.month - 1 - months
    return number // 12 * 100 + number % 12 + 1


def due(stores: Stores, now: datetime) -> list[Due]:
    """Return what the policy removes now, oldest first: of tables only months that the flow has passed.

    History that is being loaded arrives in old months: their totals would be kept, and more would still come.
    """
    policy = stores.settings.retention
    held = held_by(retention.holds(stores.engine), stores.history)
    recorded = {(one.table, one.month) for one in retention.expirations(stores.engine)}
    passed = sealed_until(stores)
    found = []
    for table in TABLES:
        months = getattr(policy, table.name)
        if months is None:
            continue
        for month, rows in _partitions(stores, table.name):
            if month < cut(now, months) and first_of(following(month)) <= passed:
                kept = _held_rows(stores, table, month, held)
                if rows > kept or (table.name, month) not in recorded:
                    found.append(Due(table.name, month, rows, kept, (table.name, month) in recorded))
    if policy.audit_log is not None:
        first = cut(now, policy.audit_log)
        rows = retention.audit_rows(stores.engine, first_of(first))
        # The log says who did what to whom in words only: a hold on anybody keeps all of it.
        kept = rows if held.customers or held.tenants else 0
        if rows > kept:
            found.append(Due(AUDIT, first, rows, kept))
    return found


@dataclass(frozen=True, slots=True)
class Policy:
    """What the policy says of one table, and what of it is due. `months` None: its rows are kept for ever."""

    table: str
    time: str
    months: int | None
    kept_from: datetime | None
    """Rows from before that time are older than the policy says."""
    due: list[Due]
    expired: list[Expiration]

    @property
    def removes(self) -> int:
        """Return how many rows are due."""
        return sum(one.removes for one in self.due)

    @property
    def held(self) -> int:
        """Return how many rows would be due if no hold kept them."""
        return sum(one.held for one in self.due)


def policies(stores: Stores, now: datetime) -> list[Policy]:
    """Return the policy table by table, with what is due now and what went before."""
    found, gone = due(stores, now), retention.expirations(stores.engine)
    times = {table.name: table.time for table in TABLES} | {AUDIT: "at"}
    rows = []
    for name, time in times.items():
        months = getattr(stores.settings.retention, name)
        rows.append(
            Policy(
                name,
                time,
                months,
                None if months is None else first_of(cut(now, months)),
                [one for one in found if one.table == name],
                [one for one in gone if one.table == name],
            )
        )
    return rows


def _partitions(stores: Stores, table: str) -> list[tuple[int, int]]:
    rows = stores.client.query(
        "SELECT toUInt32(partition) AS month, sum(rows) FROM system.parts WHERE active AND database = {database:String}"
        " AND table = {table:String} GROUP BY month ORDER BY month",
        {"database": stores.settings.clickhouse.database, "table": table},
    ).result_rows
    return [(int(month), int(count)) for month, count in rows]


def _held_rows(stores: Stores, table: _Table, month: int, held: Held) -> int:
    if not held.customers and not held.tenants:
        return 0
    text = f"SELECT count() FROM @{table.name} WHERE toYYYYMM({table.time}) = {{month:UInt32}} AND {table.held}"  # noqa: S608
    return int(stores.client.query(stores.resolved(text), held.parameters | {"month": month}).result_rows[0][0])


def apply(stores: Stores, now: datetime, actor: str, done: Callable[[Due], None] = lambda _one: None) -> Iterator[Due]:
    """Remove everything that is due, and yield it month by month.

    :raises Disagreement: the totals of raw events do not count as many as there are; nothing of that month is removed.
    :raises LockHeld: another run works on it, or facts are being summed; the next run goes on where this one ended.
    """
    with DirectoryLock(stores.settings.state_dir / "retention.lock"):
        yield from _apply(stores, now, actor, done)


def _apply(stores: Stores, now: datetime, actor: str, done: Callable[[Due], None]) -> Iterator[Due]:
    tables = {table.name: table for table in TABLES}
    for planned in due(stores, now):
        # A run may take hours: what was put on hold meanwhile stays.
        held = held_by(retention.holds(stores.engine), stores.history)
        one = planned
        if one.table == AUDIT:
            if held.customers or held.tenants:
                continue
            retention.remove_audit(stores.engine, first_of(one.month), actor, now)
        else:
            one = replace(one, held=_held_rows(stores, tables[one.table], one.month, held))
            if not one.recorded:
                rows, digest = _keep(stores, one) if one.table == EVENTS else (0, "")
                retention.record(stores.engine, Expiration(one.table, one.month, one.removes, rows, digest, now), actor)
            _remove(stores, tables[one.table], one, held)
        done(one)
        yield one


def _keep(stores: Stores, one: Due) -> tuple[int, str]:
    kept_usage.keep(stores, one.month)
    rows, events, digest = kept_usage.digest(stores, one.month)
    text = "SELECT count() FROM @usage_events FINAL WHERE toYYYYMM(ingest_time) = {month:UInt32}"
    stored = int(stores.client.query(stores.resolved(text), {"month": one.month}).result_rows[0][0])
    if events != stored:
        message = (
            f"the totals kept of {one.month} count {events:,} events, and {stored:,} are stored: nothing was removed;"
            " is something else writing to usage_events?"
        )
        raise Disagreement(message)
    return rows, digest


def _remove(stores: Stores, table: _Table, one: Due, held: Held) -> None:
    if table.name != FACTS:
        _remove_rows(stores, table, one, held)
        return
    # Sums of the month that another process is making just now would outlive its facts.
    with DirectoryLock(stores.settings.state_dir / summing.LOCK):
        _remove_sums(stores, one, held)
        _remove_rows(stores, table, one, held)


def _remove_rows(stores: Stores, table: _Table, one: Due, held: Held) -> None:
    if not one.held:
        _drop(stores, table.name, one.month)
        return
    text = f"ALTER TABLE @{table.name} DELETE IN PARTITION {one.month} WHERE NOT {table.held}"
    stores.client.command(stores.resolved(text), held.parameters, {"mutations_sync": 2})


def _remove_sums(stores: Stores, one: Due, held: Held) -> None:
    """Remove what sums the facts, before them: whoever dies in between finds the facts, and removes both again."""
    if not one.held:
        for name in usage_hours.TABLES:
            _drop(stores, name, one.month)
        return
    usage_hours.total_again(stores.client, stores.history.meters, one.month, _TENANT, held.parameters)
    text = f"ALTER TABLE @usage_hours DELETE IN PARTITION {one.month} WHERE NOT {_TENANT}"
    stores.client.command(stores.resolved(text), held.parameters, {"mutations_sync": 2})


def _drop(stores: Stores, table: str, month: int) -> None:
    # Servers refuse to drop what is larger than 50 GB, unless the statement says that it is meant.
    sure = {_SIZE_LIMIT: 0} if stores.client.knows_setting(_SIZE_LIMIT) else {}
    stores.client.command(stores.resolved(f"ALTER TABLE @{table} DROP PARTITION {month}"), settings=sure)
