"""What expired by policy, and legal holds that keep rows from it. Recorded before rows are removed."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from sqlalchemy import Connection, Engine, exc, func, insert, select, update

from config.revision import History
from core.errors import InvalidRequest
from sinks.ledger import audit, tables
from sinks.ledger.database import read, write
from sinks.ledger.times import to_datetime, to_ms

_EXPIRATIONS, _HOLDS = tables.expirations, tables.legal_holds
HoldKind = Literal["customer", "tenant"]
EVENTS: Final = "usage_events"


def first_of(month: int) -> datetime:
    """Return when a month such as 202610 begins, in UTC."""
    return datetime(month // 100, month % 100, 1, tzinfo=UTC)


def following(month: int) -> int:
    """Return the month after one such as 202612."""
    return month + 89 if month % 100 == 12 else month + 1


def expired_before(engine: Engine) -> Mapping[str, datetime]:
    """Return per table the time before which its rows expired; tables of which nothing did are left out."""
    query = select(_EXPIRATIONS.c.table_name, func.max(_EXPIRATIONS.c.month)).group_by(_EXPIRATIONS.c.table_name)
    with read(engine) as connection:
        return {row[0]: first_of(following(row[1])) for row in connection.execute(query)}


@dataclass(frozen=True, slots=True)
class Expiration:
    """One month of a table that expired. `digest` is over the rows kept in its place, "" if none are."""

    table: str
    month: int
    removed_rows: int
    kept_rows: int
    digest: str
    recorded_at: datetime


def expirations(engine: Engine, table: str | None = None) -> list[Expiration]:
    """Return what expired, oldest month first."""
    query = select(_EXPIRATIONS).order_by(_EXPIRATIONS.c.table_name, _EXPIRATIONS.c.month)
    if table is not None:
        query = query.where(_EXPIRATIONS.c.table_name == table)
    with read(engine) as connection:
        return [
            Expiration(
                row.table_name, row.month, row.removed_rows, row.kept_rows, row.digest, to_datetime(row.recorded_at_ms)
            )
            for row in connection.execute(query)
        ]


def record(engine: Engine, found: Expiration, actor: str) -> None:
    """Record that a month expires, before its rows go; the totals kept for it are complete by then.

    :raises InvalidRequest: it is recorded already.
    """
    values = {
        "table_name": found.table,
        "month": found.month,
        "removed_rows": found.removed_rows,
        "kept_rows": found.kept_rows,
        "digest": found.digest,
        "actor": actor,
        "recorded_at_ms": to_ms(found.recorded_at),
    }
    with write(engine) as connection:
        try:
            connection.execute(insert(_EXPIRATIONS).values(values))
        except exc.IntegrityError as error:
            message = f"{found.month} of {found.table} was recorded as expired in this moment: is it run elsewhere too?"
            raise InvalidRequest(message) from error
        audit.record(
            connection,
            at=found.recorded_at,
            actor=actor,
            action="expire",
            subject=f"{found.table}/{found.month}",
            detail=f"{found.removed_rows} rows by policy, {found.kept_rows} rows of totals kept",
        )


def remove_audit(engine: Engine, before: datetime, actor: str, now: datetime) -> int:
    """Delete rows of the audit log from before that time, say so in it, and return how many."""
    table = tables.audit_log
    with write(engine) as connection:
        rows = int(connection.execute(table.delete().where(table.c.at_ms < to_ms(before))).rowcount)
        detail = f"{rows} rows from before {before:%Y-%m-%d} by policy"
        audit.record(connection, at=now, actor=actor, action="expire", subject="audit_log", detail=detail)
    return rows


def audit_rows(engine: Engine, before: datetime) -> int:
    """Return how many rows of the audit log are from before that time."""
    table = tables.audit_log
    with read(engine) as connection:
        query = select(func.count()).select_from(table).where(table.c.at_ms < to_ms(before))
        return int(connection.execute(query).scalar() or 0)


@dataclass(frozen=True, slots=True)
class Hold:
    """A legal hold on a customer (with all its tenants) or on one tenant."""

    kind: str
    name: str
    placed_at: datetime
    actor: str
    reason: str
    released_at: datetime | None = None


def holds(engine: Engine, *, released: bool = False) -> list[Hold]:
    """Return the holds in force, and with `released` the earlier ones too."""
    query = select(_HOLDS).order_by(_HOLDS.c.kind, _HOLDS.c.name, _HOLDS.c.placed_at_ms)
    if not released:
        query = query.where(_HOLDS.c.released_at_ms.is_(None))
    with read(engine) as connection:
        return [_hold(row) for row in connection.execute(query)]


def _hold(row: Any) -> Hold:
    released = None if row.released_at_ms is None else to_datetime(row.released_at_ms)
    return Hold(row.kind, row.name, to_datetime(row.placed_at_ms), row.actor, row.reason, released)


def check_known(history: History, kind: HoldKind, name: str) -> None:
    """Make sure that a hold on that name can keep anything. Tenants are whatever events call them: any may come.

    :raises InvalidRequest: no configuration ever had the customer.
    """
    if kind == "customer" and not any(name in revision.customers for revision in history.revisions):
        message = f"no configuration ever had a customer {name[:64]!r}"
        raise InvalidRequest(message)


def is_held(engine: Engine, kind: HoldKind, name: str) -> bool:
    """Tell whether a hold of that kind and name is in force."""
    with read(engine) as connection:
        return connection.execute(_in_force(select(_HOLDS.c.name), kind, name)).first() is not None


def check_held(engine: Engine, kind: HoldKind, name: str) -> None:
    """Make sure that a hold of that kind and name is in force.

    :raises InvalidRequest: there is none.
    """
    if not is_held(engine, kind, name):
        raise _none(kind, name)


def _none(kind: HoldKind, name: str) -> InvalidRequest:
    return InvalidRequest(f"there is no hold on {kind} {name[:256]!r}: see `meterbridge retention hold list`")


def place(engine: Engine, kind: HoldKind, name: str, *, actor: str, reason: str, now: datetime) -> bool:
    """Place a hold, and return whether it is new."""
    with write(engine) as connection:
        if connection.execute(_in_force(select(_HOLDS.c.name), kind, name)).first() is not None:
            return False
        values = {"kind": kind, "name": name, "placed_at_ms": to_ms(now), "actor": actor, "reason": reason}
        connection.execute(insert(_HOLDS).values(values))
        _tell(connection, "place-hold", kind, name, actor, reason, now)
    return True


def release(engine: Engine, kind: HoldKind, name: str, *, actor: str, reason: str, now: datetime) -> None:
    """End a hold: what expired meanwhile goes at the next run.

    :raises InvalidRequest: there is none.
    """
    with write(engine) as connection:
        change = _in_force(update(_HOLDS), kind, name).values(released_at_ms=to_ms(now))
        if not connection.execute(change).rowcount:
            raise _none(kind, name)
        _tell(connection, "release-hold", kind, name, actor, reason, now)


def _in_force(statement: Any, kind: str, name: str) -> Any:
    return statement.where(_HOLDS.c.kind == kind, _HOLDS.c.name == name, _HOLDS.c.released_at_ms.is_(None))


def _tell(connection: Connection, action: str, kind: str, name: str, actor: str, reason: str, now: datetime) -> None:
    subject = f"{kind}/{name}"
    audit.record(connection, at=now, actor=actor, action=action, subject=subject, reason=reason)
