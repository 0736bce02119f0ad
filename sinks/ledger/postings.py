"""Postings and their states. Every change is one transaction that names the state it expects and holds the lease.

PENDING -> SUBMITTED (committed before the ERP is called) -> POSTED | ACCEPTED | HELD | CONFLICT | UNKNOWN | PENDING.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cached_property
from typing import Any, Final

from sqlalchemy import Connection, Engine, Row, bindparam, func, insert, select, union, update

from core.errors import InvariantViolation
from sinks.erp.port import Posting
from sinks.ledger import documents, exceptions, tables
from sinks.ledger.database import read, write
from sinks.ledger.leases import Lease, check
from sinks.ledger.times import to_ms

PENDING: Final = "PENDING"
SUBMITTED: Final = "SUBMITTED"
ACCEPTED: Final = "ACCEPTED"
UNKNOWN: Final = "UNKNOWN"
POSTED: Final = "POSTED"
HELD: Final = "HELD"
CONFLICT: Final = "CONFLICT"
DUPLICATED: Final = "DUPLICATED"
SUPERSEDED: Final = "SUPERSEDED"
REVERSED: Final = "REVERSED"
RECONCILED: Final = "RECONCILED"
MISMATCHED: Final = "MISMATCHED"

BOOKED: Final = (POSTED, RECONCILED, MISMATCHED, REVERSED)
"""States of postings the ERP has under a number of its own."""
NEEDED: Final = "needed"
GIVEN: Final = "given"
NEVER_MS: Final = 1 << 60
"""Due time of a held posting that only a person, a pull or a corrected mapping moves on."""

ACTIVE: Final = (PENDING, SUBMITTED, ACCEPTED, UNKNOWN, HELD)
"""States the poster still works on; HELD because a corrected mapping releases it."""
ALARMS: Final = (CONFLICT, DUPLICATED, HELD)

_TABLE = tables.postings
_KEYS_PER_QUERY: Final = 500
DETAIL_CHARACTERS_MAX: Final = 2_000


@dataclass(frozen=True)
class Stored:
    """A posting as the ledger holds it."""

    key: str
    state: str
    reason: str
    attempts: int
    lookups: int
    submitted_at_ms: int
    due_at_ms: int
    job: str
    text: str
    approval: str = ""
    """Empty, NEEDED or GIVEN."""
    reverses: str = ""
    number: str = ""
    detail: str = ""
    adapter: str = ""
    """The adapter it was sent through last, or is made for."""

    @cached_property
    def posting(self) -> Posting:
        """Return what the ERP gets."""
        return Posting.from_json(self.text)


@dataclass(frozen=True, slots=True)
class Change:
    """The next state of one posting and what to remember with it."""

    key: str
    state: str
    reason: str = ""
    detail: str = ""
    due_at_ms: int = 0
    lookups: int = 0
    job: str = ""
    number: str = ""
    reference: str = ""
    digest: str = ""
    outcome: str = ""
    """Name of the outcome, for the attempt's record; empty when no attempt ended."""
    tax: Decimal | None = None
    draft: bool = False
    """An invoice that waits for a person in the ERP."""


def entities_with_work(engine: Engine) -> list[str]:
    """Return the entities that have documents to group or postings to bring on their way."""
    waiting = select(tables.documents.c.entity).where(tables.documents.c.state == documents.PENDING)
    active = select(_TABLE.c.entity).where(_TABLE.c.state.in_(ACTIVE))
    with read(engine) as connection:
        return sorted(row[0] for row in connection.execute(union(waiting, active)))


def due(engine: Engine, entity: str, state: str, now: datetime, limit: int) -> list[Stored]:
    """Return the postings of an entity in that state whose time has come, oldest hour first."""
    query = (
        select(_TABLE)
        .where(_TABLE.c.entity == entity, _TABLE.c.state == state, _TABLE.c.due_at_ms <= to_ms(now))
        .order_by(_TABLE.c.booked_hour, _TABLE.c.key)
        .limit(limit)
    )
    with read(engine) as connection:
        return [stored(row) for row in connection.execute(query)]


def hurry(engine: Engine, now: datetime, wait: timedelta) -> int:
    """Make due what waits for longer than anything has to; return how many postings that were.

    Times of a clock that was ahead, and was set back since, would make them wait for hours.
    """
    open_states = (PENDING, UNKNOWN, ACCEPTED, SUBMITTED)
    is_late = _TABLE.c.due_at_ms.between(to_ms(now + wait) + 1, NEVER_MS - 1)
    change = update(_TABLE).where(_TABLE.c.state.in_(open_states), is_late)
    with write(engine) as connection:
        return int(connection.execute(change.values(due_at_ms=to_ms(now))).rowcount)


def get(engine: Engine, key: str) -> Stored | None:
    """Return one posting, or None."""
    with read(engine) as connection:
        row = connection.execute(select(_TABLE).where(_TABLE.c.key == key)).first()
    return None if row is None else stored(row)


def stored(row: Row[Any]) -> Stored:
    """Return a row of the table as a posting."""
    return Stored(
        row.key,
        row.state,
        row.reason,
        row.attempts,
        row.lookups,
        row.submitted_at_ms,
        row.due_at_ms,
        row.job,
        row.json,
        row.approval,
        row.reverses,
        row.erp_number,
        row.detail,
        row.adapter,
    )


def next_due_ms(engine: Engine) -> int | None:
    """Return the earliest time at which a posting may be worked on again, or None."""
    query = select(func.min(_TABLE.c.due_at_ms)).where(_TABLE.c.state.in_((PENDING, UNKNOWN, ACCEPTED, SUBMITTED)))
    with read(engine) as connection:
        value = connection.execute(query).scalar()
    return None if value is None else int(value)


def count_by_state(engine: Engine) -> dict[str, int]:
    """Return how many postings are in each state."""
    with read(engine) as connection:
        rows = connection.execute(select(_TABLE.c.state, func.count()).group_by(_TABLE.c.state))
        return {row[0]: row[1] for row in rows}


def begin_attempt(
    engine: Engine, lease: Lease, adapter: str, rows: Sequence[Stored], attempt_id: str, now: datetime
) -> None:
    """Make PENDING postings SUBMITTED through that adapter, durably, before the ERP is called.

    :raises LeaseLost: another poster took over.
    :raises InvariantViolation: one of them is not PENDING any more.
    """
    at_ms = to_ms(now)
    with write(engine) as connection:
        check(connection, lease)
        expect(connection, [row.key for row in rows], (PENDING,))
        connection.execute(
            update(_TABLE)
            .where(_TABLE.c.key == bindparam("posting"))
            .values(
                state=SUBMITTED,
                adapter=adapter,
                attempts=_TABLE.c.attempts + 1,
                lookups=0,
                submitted_at_ms=at_ms,
                changed_at_ms=at_ms,
                fence=lease.fence,
                version=_TABLE.c.version + 1,
            ),
            [{"posting": row.key} for row in rows],
        )
        connection.execute(
            insert(tables.attempts),
            [
                {
                    "posting_key": row.key,
                    "attempt": row.attempts + 1,
                    "attempt_id": attempt_id,
                    "fence": lease.fence,
                    "digest": row.posting.digest,
                    "started_at_ms": at_ms,
                }
                for row in rows
            ],
        )


def expect(connection: Connection, keys: list[str], states: tuple[str, ...]) -> None:
    """Make sure all these postings are in one of these states, and keep them locked."""
    for start in range(0, len(keys), _KEYS_PER_QUERY):
        part = keys[start : start + _KEYS_PER_QUERY]
        query = select(_TABLE.c.key).where(_TABLE.c.key.in_(part), _TABLE.c.state.in_(states)).with_for_update()
        found = {row[0] for row in connection.execute(query)}
        if len(found) != len(part):
            missing = sorted(set(part) - found)[:3]
            message = f"postings {missing} are not {' or '.join(states)} any more: another program changed the ledger"
            raise InvariantViolation(message)


def apply(
    engine: Engine, lease: Lease, adapter: str, expected: tuple[str, ...], changes: Sequence[Change], now: datetime
) -> None:
    """Move postings on, in one transaction; record entries, the end of attempts, and exceptions.

    :raises LeaseLost: another poster took over; nothing was changed.
    :raises InvariantViolation: one is in none of the expected states.
    """
    if not changes:
        return
    at_ms = to_ms(now)
    with write(engine) as connection:
        check(connection, lease)
        expect(connection, [change.key for change in changes], expected)
        connection.execute(
            update(_TABLE)
            .where(_TABLE.c.key == bindparam("posting"))
            .values(
                state=bindparam("to_state"),
                reason=bindparam("to_reason"),
                detail=bindparam("to_detail"),
                due_at_ms=bindparam("to_due"),
                lookups=bindparam("to_lookups"),
                job=bindparam("to_job"),
                erp_number=bindparam("to_number"),
                changed_at_ms=at_ms,
                fence=lease.fence,
                version=_TABLE.c.version + 1,
            ),
            [_parameters(change) for change in changes],
        )
        _record_entries(connection, adapter, changes, at_ms)
        _end_attempts(connection, changes, at_ms)
        for change in changes:
            if change.state in ALARMS:
                detail = f"{change.reason}: {change.detail}"[:DETAIL_CHARACTERS_MAX]
                exceptions.raise_exception(connection, f"posting_{change.state.lower()}", change.key, detail, now)
        posted = [change.key for change in changes if change.state == POSTED]
        exceptions.resolve(connection, "posting_held", posted, now)
        _mark_reversed(connection, posted, at_ms)


def _mark_reversed(connection: Connection, posted: Sequence[str], at_ms: int) -> None:
    """Call what these postings reverse REVERSED, in the transaction that says the reversal is booked."""
    for start in range(0, len(posted), _KEYS_PER_QUERY):
        part = posted[start : start + _KEYS_PER_QUERY]
        query = select(_TABLE.c.reverses).where(_TABLE.c.key.in_(part), _TABLE.c.reverses != "")
        for key in connection.execute(query).scalars().all():
            change = update(_TABLE).where(_TABLE.c.key == key, _TABLE.c.state.in_(BOOKED))
            connection.execute(change.values(state=REVERSED, changed_at_ms=at_ms, version=_TABLE.c.version + 1))


def _parameters(change: Change) -> dict[str, Any]:
    return {
        "posting": change.key,
        "to_state": change.state,
        "to_reason": change.reason,
        "to_detail": change.detail[:DETAIL_CHARACTERS_MAX],
        "to_due": change.due_at_ms,
        "to_lookups": change.lookups,
        "to_job": change.job,
        "to_number": change.number,
    }


def _record_entries(connection: Connection, adapter: str, changes: Iterable[Change], at_ms: int) -> None:
    rows = [
        {
            "adapter": adapter,
            "posting_key": change.key,
            "number": change.number,
            "digest": change.digest,
            "reference": change.reference,
            "posted_at_ms": at_ms,
            "tax": change.tax,
            "draft": int(change.draft),
        }
        for change in changes
        if change.state == POSTED
    ]
    exceptions.insert_or_ignore(connection, tables.erp_entries, rows)


def _end_attempts(connection: Connection, changes: Iterable[Change], at_ms: int) -> None:
    ended = [change for change in changes if change.outcome]
    if not ended:
        return
    attempts = tables.attempts
    connection.execute(
        update(attempts)
        .where(attempts.c.posting_key == bindparam("posting"), attempts.c.finished_at_ms.is_(None))
        .values(finished_at_ms=at_ms, outcome=bindparam("ended_with"), detail=bindparam("ended_detail")),
        [
            {
                "posting": change.key,
                "ended_with": change.outcome,
                "ended_detail": change.detail[:DETAIL_CHARACTERS_MAX],
            }
            for change in ended
        ],
    )
