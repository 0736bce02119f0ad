"""Held postings and how they get on: a mapping or the ERP was corrected, a person released or approved them.

A posting is held because something is not mapped, because the ERP or its preflight said no, because an outcome
cannot be found out, or because it waits for approval. It keeps its key: the ERP never took it.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Engine, Row, and_, select, update

from core.errors import InvalidRequest
from sinks.erp.port import Posting
from sinks.ledger import acts, audit, exceptions, tables
from sinks.ledger.database import read, write
from sinks.ledger.grouping import hold_reason, posting_key
from sinks.ledger.leases import Lease, check
from sinks.ledger.postings import (
    DETAIL_CHARACTERS_MAX,
    GIVEN,
    HELD,
    NEEDED,
    NEVER_MS,
    PENDING,
    Stored,
    stored,
)
from sinks.ledger.times import to_ms

_TABLE = tables.postings
_ROWS_PER_PAGE: Final = 500
APPROVAL_REQUIRED = "approval_required"


def held(engine: Engine, entity: str, reasons: Sequence[str]) -> Iterator[Stored]:
    """Yield all postings of an entity that are held for one of these reasons, in pages, in order of their keys."""
    after = ""
    while True:
        query = select(_TABLE).where(_of(entity, reasons), _TABLE.c.key > after).order_by(_TABLE.c.key)
        with read(engine) as connection:
            rows = connection.execute(query.limit(_ROWS_PER_PAGE)).all()
        yield from map(stored, rows)
        if len(rows) < _ROWS_PER_PAGE:
            return
        after = rows[-1].key


def due(engine: Engine, entity: str, reasons: Sequence[str], now: datetime, limit: int) -> list[Stored]:
    """Return the held postings it is time to look at again, longest due first."""
    query = select(_TABLE).where(_of(entity, reasons), _TABLE.c.due_at_ms <= to_ms(now))
    with read(engine) as connection:
        return [stored(row) for row in connection.execute(query.order_by(_TABLE.c.due_at_ms).limit(limit))]


def _of(entity: str, reasons: Sequence[str]) -> ColumnElement[bool]:
    return and_(_TABLE.c.entity == entity, _TABLE.c.state == HELD, _TABLE.c.reason.in_(list(reasons)))


def _still_held(connection: Connection, key: str) -> Row[Any] | None:
    """Lock a held posting; None if a person released it since it was read."""
    return connection.execute(
        select(_TABLE).where(_TABLE.c.key == key, _TABLE.c.state == HELD).with_for_update()
    ).first()


def replace_content(engine: Engine, lease: Lease, posting: Posting, lines_max: int, now: datetime) -> bool:
    """Give a HELD posting new content (what it lacked was mapped) under the same key; return whether it is PENDING.

    Only a posting the ERP never took may change. One that still waits for approval stays held for that.
    """
    with write(engine) as connection:
        check(connection, lease)
        row = _still_held(connection, posting.key)
        if row is None:
            return False
        reason, detail = hold_reason(posting, "approval" if row.approval == NEEDED else "", lines_max)
        if reason == APPROVAL_REQUIRED:
            detail = "its mapping is complete now; it waits for approval"
        _move(
            connection,
            posting.key,
            now,
            state=HELD if reason else PENDING,
            reason=reason,
            detail=detail,
            json=posting.to_json(),
            digest=posting.digest,
            lines=len(posting.lines),
            fence=lease.fence,
        )
    return not reason


def free(engine: Engine, lease: Lease, keys: Sequence[str], now: datetime) -> int:
    """Make HELD postings PENDING, as preflight finds nothing wrong any more; those awaiting approval stay held."""
    moved = 0
    with write(engine) as connection:
        check(connection, lease)
        for key in keys:
            row = _still_held(connection, key)
            if row is None:
                continue
            if row.approval == NEEDED:
                detail = "the ERP has what was missing; it waits for approval"
                _move(connection, key, now, state=HELD, reason=APPROVAL_REQUIRED, detail=detail, due_at_ms=NEVER_MS)
            else:
                _move(connection, key, now, state=PENDING, reason="", detail="")
                moved += 1
    return moved


def look_again(connection: Connection, entity: str, reasons: Sequence[str], period: str | None = None) -> int:
    """Make held postings due for another preflight, because the ERP's data changed. Return how many."""
    change = update(_TABLE).where(
        _TABLE.c.entity == entity, _TABLE.c.state == HELD, _TABLE.c.reason.in_(list(reasons)), _TABLE.c.due_at_ms > 0
    )
    if period is not None:
        change = change.where(_TABLE.c.accounting_period == period)
    return int(connection.execute(change.values(due_at_ms=0)).rowcount)


def postpone(engine: Engine, lease: Lease, due_at_ms: dict[str, int]) -> None:
    """Set when held postings are looked at again; counts the look."""
    with write(engine) as connection:
        check(connection, lease)
        for key, due in due_at_ms.items():
            change = update(_TABLE).where(_TABLE.c.key == key, _TABLE.c.state == HELD)
            connection.execute(change.values(due_at_ms=due, lookups=_TABLE.c.lookups + 1))


def release(engine: Engine, key: str, *, actor: str, reason: str, now: datetime) -> None:
    """Make a HELD posting PENDING again with the same content, because a person says so.

    :raises InvalidRequest: there is no HELD posting with that key, or it waits for approval.
    """
    with write(engine) as connection:
        row = _find(connection, key)
        if row is None or row.state != HELD:
            message = f"there is no held posting {key}: `meterbridge report postings` lists them"
            raise InvalidRequest(message)
        if row.approval == NEEDED:
            message = f"posting {row.key} waits for approval: use `meterbridge erp approve {row.key}`"
            raise InvalidRequest(message)
        _move(connection, row.key, now, state=PENDING, reason="", detail="")
        detail = f"was held: {row.reason}: {row.detail}"[:DETAIL_CHARACTERS_MAX]
        audit.record(connection, at=now, actor=actor, action="release", subject=row.key, reason=reason, detail=detail)


def approve(engine: Engine, key: str, *, actor: str, reason: str, now: datetime) -> bool:
    """Approve a posting (by its key or that of its one document); return whether it was not approved before.

    What else holds it (a missing account) holds it still.

    :raises InvalidRequest: nothing of that key waits for approval.
    """
    with write(engine) as connection:
        row = _approvable(connection, key)
        if row.approval == GIVEN:
            return False
        connection.execute(update(_TABLE).where(_TABLE.c.key == row.key).values(approval=GIVEN))
        if row.state == HELD and row.reason == APPROVAL_REQUIRED:
            _move(connection, row.key, now, state=PENDING, reason="", detail="")
        acts.record(
            connection,
            acts.Act(posting_key("approval", row.key), acts.APPROVAL, row.key, row.entity, 0, {}),
            actor=actor,
            reason=reason,
            at=now,
        )
        audit.record(
            connection, at=now, actor=actor, action="approve", subject=row.key, reason=reason, detail=row.detail
        )
    return True


def approvable(engine: Engine, key: str) -> Stored:
    """Return what `approve` would approve.

    :raises InvalidRequest: nothing of that key waits for approval, or was approved.
    """
    with write(engine) as connection:
        return stored(_approvable(connection, key))


def _approvable(connection: Connection, key: str) -> Row[Any]:
    row = _find(connection, key)
    if row is None:
        message = f"no posting or document {key}: `meterbridge report postings` lists what is held"
        raise InvalidRequest(message)
    if row.approval not in (NEEDED, GIVEN):
        message = f"posting {row.key} is {row.state} and needs no approval"
        raise InvalidRequest(message)
    return row


def _find(connection: Connection, key: str) -> Row[Any] | None:
    """Return a posting by its own key or by the key of a document in it."""
    row = connection.execute(select(_TABLE).where(_TABLE.c.key == key).with_for_update()).first()
    if row is None:
        members = tables.posting_documents
        inner = select(members.c.posting_key).where(members.c.document_key == key).scalar_subquery()
        row = connection.execute(select(_TABLE).where(_TABLE.c.key == inner).with_for_update()).first()
    return row


def _move(connection: Connection, key: str, now: datetime, **values: Any) -> None:
    """Change a held posting; a new state is a new version, and its open exception ends unless it stays held."""
    change = update(_TABLE).where(_TABLE.c.key == key)
    defaults = {"due_at_ms": 0, "lookups": 0, "changed_at_ms": to_ms(now), "version": _TABLE.c.version + 1}
    connection.execute(change.values(defaults | values))
    exceptions.resolve(connection, "posting_held", [key], now)
    if values.get("state") == HELD:
        detail = f"{values.get('reason', '')}: {values.get('detail', '')}"
        exceptions.raise_exception(connection, "posting_held", key, detail, now)
