"""Where everything stands, in figures cheap enough to ask for every few seconds: intake, freshness, books, ERP."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import func, select

from queries.reconcile import sealed_until
from queries.stores import Stores
from sinks.ledger import documents, erp_status, postings, progress, tables
from sinks.ledger.database import read
from sinks.ledger.erp_status import Waiting
from sinks.ledger.times import to_datetime

OUTCOMES: Final = ("accepted", "duplicate", "conflicting_duplicate", "rejected")
"""What can become of an event that was read; every one has exactly one of them."""
RATE_OVER: Final = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class IntakeMinute:
    """Events that arrived in one minute, by outcome."""

    at: datetime
    events: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Intake:
    """Arrivals of a span of time; `steps` has one element per `step_minutes`, those without events included."""

    begins: datetime
    ends: datetime
    step_minutes: int
    steps: list[IntakeMinute]
    totals: Mapping[str, int]
    by_reason: Mapping[str, int]

    @property
    def read(self) -> int:
        """Return how many events were read: the sum of all outcomes."""
        return sum(self.totals.values())


@dataclass(frozen=True, slots=True)
class Books:
    """How far the books are, and what waits."""

    watermark: datetime | None
    sealed_until: datetime | None
    documents_by_state: Mapping[str, int]
    postings_by_state: Mapping[str, int]
    oldest_unposted: datetime | None
    erp_waiting: list[Waiting] = field(default_factory=list)
    open_exceptions: Mapping[str, int] = field(default_factory=dict)
    """The ledger's own, by kind."""


def intake(stores: Stores, begins: datetime, ends: datetime, step_minutes: int) -> Intake:
    """Return the arrivals from `begins` to `ends` (exclusive, both cut to the step), by outcome and reason."""
    step_s = step_minutes * 60
    first, last = (int(when.timestamp()) // step_s * step_s for when in (begins, ends - timedelta(microseconds=1)))
    last += step_s
    rows = stores.rows(
        "SELECT intDiv(toUnixTimestamp(ingest_minute), {step:UInt32}) * {step:UInt32} AS at, toString(outcome) AS name,"
        " toString(reason) AS why, sum(events) AS n FROM @intake_counts_current"
        " WHERE ingest_minute >= {from:DateTime} AND ingest_minute < {to:DateTime} GROUP BY at, name, why",
        {"step": step_s, "from": _utc(first), "to": _utc(last)},
    )
    steps: dict[int, Counter[str]] = {at: Counter() for at in range(first, last, step_s)}
    totals: Counter[str] = Counter(dict.fromkeys(OUTCOMES, 0))
    by_reason: Counter[str] = Counter()
    for row in rows:
        steps[int(row["at"])][row["name"]] += int(row["n"])
        totals[row["name"]] += int(row["n"])
        if row["why"]:
            by_reason[row["why"]] += int(row["n"])
    minutes = [IntakeMinute(_utc(at), counts) for at, counts in sorted(steps.items())]
    return Intake(_utc(first), _utc(last), step_minutes, minutes, totals, by_reason)


def last_arrival(stores: Stores) -> datetime | None:
    """Return the arrival of the newest event whose row is visible, or None if there is none yet."""
    found = stores.rows("SELECT max(ingest_time) AS newest, count() AS n FROM @usage_events")
    return found[0]["newest"].replace(tzinfo=UTC) if int(found[0]["n"]) else None


def rate_per_s(stores: Stores, now: datetime) -> float:
    """Return the events read each second, over the last five whole minutes."""
    ends = now.replace(second=0, microsecond=0)
    minutes = intake(stores, ends - RATE_OVER, ends, 1)
    return minutes.read / RATE_OVER.total_seconds()


def books(stores: Stores) -> Books:
    """Return how far the books are."""
    waits, tries = tables.exceptions, tables.postings
    with read(stores.engine) as connection:
        mark_ms = progress.get(connection, progress.PROMOTED).watermark_ms
        kinds = connection.execute(
            select(waits.c.kind, func.count())
            .where(waits.c.resolved_at_ms.is_(None), ~waits.c.kind.startswith("group:"))
            .group_by(waits.c.kind)
        ).all()
        unsettled = (*postings.ACTIVE, postings.CONFLICT, postings.DUPLICATED)
        oldest_ms = connection.execute(
            select(func.min(tries.c.created_at_ms)).where(tries.c.state.in_(unsettled))
        ).scalar()
    return Books(
        watermark=to_datetime(mark_ms) if mark_ms else None,
        sealed_until=sealed_until(stores) if mark_ms else None,
        documents_by_state=documents.count_by_state(stores.engine),
        postings_by_state=postings.count_by_state(stores.engine),
        oldest_unposted=None if oldest_ms is None else to_datetime(oldest_ms),
        erp_waiting=erp_status.waiting(stores.engine),
        open_exceptions={kind: int(n) for kind, n in kinds},
    )


def _utc(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def chart_of(found: Intake) -> dict[str, Any]:
    """Return the arrivals as a chart's data: times in Unix seconds, one series per outcome that occurs."""
    names = [name for name in OUTCOMES if found.totals.get(name)] or [OUTCOMES[0]]
    return {
        "times": [int(step.at.timestamp()) for step in found.steps],
        "unit": "events",
        "step": found.step_minutes * 60,
        "series": [
            {
                "name": name.replace("_", " "),
                "values": [step.events.get(name, 0) for step in found.steps],
                "kind": "area",
            }
            for name in names
        ],
    }
