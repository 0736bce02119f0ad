"""Reconciliation: every identity that must hold between stream, events, facts, rated rows, documents and postings.

Design section 5. Each check compares two independent accounts of the same thing, group by group and to the last digit,
and says for each group that differs what is on either side, by how much, and the likely cause. Reads only.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from queries.stores import EPOCH, Stores, of_hour
from sinks.ledger import progress, retention
from sinks.ledger.database import read

BREAKS_KEPT_MAX: Final = 100
"""Per check; more are counted."""

EVENTS_PER_PART: Final = 5_000_000
"""What one query looks at, more or less; an hour is never divided."""

PART_MAX: Final = timedelta(days=31)


@dataclass(frozen=True, slots=True)
class Span:
    """Booked time from one hour to another (exclusive), all of it sealed."""

    begins: datetime
    ends: datetime

    @property
    def parameters(self) -> dict[str, datetime]:
        """Return the span as query parameters `from` and `to`."""
        return {"from": self.begins, "to": self.ends}


@dataclass(frozen=True, slots=True)
class Break:
    """A group in which the two sides differ."""

    where: dict[str, Any]
    left: Decimal | int | str
    right: Decimal | int | str
    difference: Decimal | int | str
    cause: str


@dataclass(slots=True)
class Check:
    """One identity: what was compared, how many groups, and which of them break it."""

    name: str
    left: str
    right: str
    groups: int = 0
    broken: int = 0
    breaks: list[Break] = field(default_factory=list)
    note: str = ""

    @property
    def holds(self) -> bool:
        """Tell whether no group differs."""
        return self.broken == 0

    def compare(self, where: dict[str, Any], left: Any, right: Any, cause: str) -> None:
        """Compare one group. `cause` may hold two texts with `|` between them: for left above right, and below."""
        self.groups += 1
        if left == right:
            return
        more, _, less = cause.partition("|")
        comparable = not isinstance(left, str)
        difference = left - right if comparable else "differs"
        likely = more if not comparable or left > right or not less else less
        self.add(Break(where, left, right, difference, likely))

    def add(self, found: Break) -> None:
        """Count a break, and keep it if there is room."""
        self.broken += 1
        if len(self.breaks) < BREAKS_KEPT_MAX:
            self.breaks.append(found)

    def compare_all(
        self,
        names: Sequence[str],
        left: Mapping[tuple[Any, ...], Any],
        right: Mapping[tuple[Any, ...], Any],
        cause: str,
    ) -> None:
        """Compare two tables of groups; a group missing on one side is zero there."""
        for key in sorted(left.keys() | right.keys(), key=str):
            self.compare(dict(zip(names, key, strict=True)), left.get(key, 0), right.get(key, 0), cause)


@dataclass(frozen=True, slots=True)
class Report:
    """All checks over a span."""

    span: Span
    checks: list[Check]

    @property
    def holds(self) -> bool:
        """Tell whether every identity holds."""
        return all(check.holds for check in self.checks)

    @property
    def compared(self) -> int:
        """Return how many groups were compared: with none, nothing was looked at, and holding says nothing."""
        return sum(check.groups for check in self.checks)


def report_to_plain(report: Report) -> dict[str, Any]:
    """Return a report as plain values for JSON."""
    return {
        "holds": report.holds,
        "compared": report.compared,
        "from": report.span.begins,
        "to": report.span.ends,
        "checks": [
            {
                "name": check.name,
                "left": check.left,
                "right": check.right,
                "groups": check.groups,
                "broken": check.broken,
                "note": check.note,
                "breaks": [
                    {
                        "where": {name: str(value) for name, value in found.where.items()},
                        "left": found.left,
                        "right": found.right,
                        "difference": found.difference,
                        "likely_cause": found.cause,
                    }
                    for found in check.breaks
                ],
            }
            for check in report.checks
        ],
    }


def sealed_until(stores: Stores) -> datetime:
    """Return the end of the last booked hour that is complete: what lies behind can still change."""
    with read(stores.engine) as connection:
        watermark_ms = progress.get(connection, progress.PROMOTED).watermark_ms
    grace_ms = max(revision.rules.grace_s for revision in stores.history.revisions) * 1000
    return of_hour(max(0, watermark_ms - grace_ms) // 3_600_000)


def span_of(stores: Stores, begins: datetime | None, ends: datetime | None) -> Span:
    """Return the span asked for, cut to whole hours and to what is sealed."""
    limit = sealed_until(stores)
    last = min(limit, _hour(ends) if ends else limit)
    first = _hour(begins) if begins else EPOCH
    return Span(min(first, last), last)


def parts(stores: Stores, span: Span) -> list[Span]:
    """Return the span in pieces of about EVENTS_PER_PART events, so that no query needs more than a server gives."""
    rows = stores.rows(
        "SELECT toStartOfHour(ingest_minute) AS hour, sum(events) AS n FROM @intake_counts_current"
        " WHERE outcome = 'accepted' AND ingest_minute >= {from:DateTime} AND ingest_minute < {to:DateTime}"
        " GROUP BY hour ORDER BY hour",
        span.parameters,
    )
    found, begins, events = [], span.begins, 0
    for row in rows:
        if events and (events + int(row["n"]) > EVENTS_PER_PART or row["hour"] - begins >= PART_MAX):
            found.append(Span(begins, row["hour"]))
            begins, events = row["hour"], 0
        events += int(row["n"])
    return [*found, Span(begins, span.ends)] if begins < span.ends else found


def kept(stores: Stores, span: Span, *names: str) -> Span:
    """Return the part of the span of which no rows of these tables expired by policy."""
    expired = retention.expired_before(stores.engine)
    begins = max([span.begins, *(expired[name] for name in names if name in expired)])
    return Span(min(begins, span.ends), span.ends)


def note_expired(check: Check, asked: Span, looked_at: Span) -> None:
    """Say so where a check left out what expired."""
    if looked_at.begins > asked.begins:
        text = f"before {looked_at.begins:%Y-%m-%d} expired by policy, and is left out"
        check.note = f"{check.note}; {text}" if check.note else text


def _hour(when: datetime) -> datetime:
    return when.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def reconcile(
    stores: Stores,
    span: Span,
    done: Callable[[str], None] = lambda _name: None,
    more: Callable[[Stores, Span], Iterable[Check]] | None = None,
) -> Report:
    """Run every check over the span, and `more` behind them; `done` is told each one's name as it ends."""
    from queries import (  # noqa: PLC0415  # the checks use this module's types
        reconcile_control,
        reconcile_documents,
        reconcile_facts,
        reconcile_intake,
        reconcile_kept,
        reconcile_rated,
        reconcile_sums,
    )

    checks: list[Check] = []
    modules: tuple[tuple[Any, tuple[str, ...]], ...] = (
        (reconcile_intake, ()),
        (reconcile_kept, ()),
        (reconcile_control, ("usage_events",)),
        (reconcile_facts, ("usage_facts",)),
        (reconcile_sums, ("usage_facts",)),
        (reconcile_rated, ("usage_facts", "rated_usage")),
        (reconcile_documents, ("rated_usage", "financial_documents")),
    )
    for module, tables in modules:
        own = kept(stores, span, *tables)
        for check in module.checks(stores, own):
            note_expired(check, span, own)
            checks.append(check)
            done(check.name)
    for check in more(stores, span) if more is not None else ():
        checks.append(check)
        done(check.name)
    return Report(span, checks)
