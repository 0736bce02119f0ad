"""`close`: checks that a period is complete, and freezes a signed summary of everything in it.

1. Leaves go to ClickHouse under a name nobody knows yet. Dying here leaves rows without use.
2. The ledger records the signed summary, and the period's close if only the cut-off had closed it, in one
   transaction. From then on the period is sealed.
3. The summary is written to a file. Dying before leaves no file; closing again writes it, and changes nothing else.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy import func, select

from config.period_closes import PeriodClose
from core.errors import InvalidRequest
from core.signing import Key, read_key
from flows.period_acts import known_from_ms
from queries import sealed_leaves
from queries.closing import Finding, Period, completeness
from queries.leaves import Leaf, Root
from queries.leaves_clickhouse import PARTS, Scope, table_leaves
from queries.leaves_ledger import DOCUMENTS, POSTINGS, document_leaves, posting_leaves
from queries.reconcile import Report
from queries.stores import Stores, of_hour
from sinks.ledger import closes, seals, tables
from sinks.ledger.database import read, write

FORMAT: Final = "meterbridge.seal/1"
Done = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a close found, and what it froze."""

    period: Period
    findings: list[Finding]
    parts: dict[str, dict[str, Any]]
    """Rows, leaves and digest by part; empty where the period is not complete."""
    seal: seals.Seal | None = None
    made_now: bool = False
    file: Path | None = None

    @property
    def open_findings(self) -> list[Finding]:
        """Return what does not hold."""
        return [finding for finding in self.findings if not finding.holds]

    def against(self, *, accept: bool) -> list[Finding]:
        """Return what keeps it from being sealed: with `accept` only what nobody may seal over."""
        return [finding for finding in self.open_findings if not (accept and finding.acceptable)]

    def to_plain(self) -> dict[str, Any]:
        """Return it as plain values, for machines."""
        seal = self.seal
        return {
            "entity": self.period.entity,
            "period": self.period.accounting.name,
            "sealed": seal is not None,
            "made_now": self.made_now,
            "findings": [
                {
                    "name": one.name,
                    "holds": one.holds,
                    "acceptable": one.acceptable,
                    "detail": one.detail,
                    "items": one.items,
                }
                for one in self.findings
            ],
            "digests": self.parts,
            "seal": None
            if seal is None
            else {
                "number": seal.number,
                "sha256": seal.digest,
                "previous": seal.previous,
                "key_id": seal.key_id,
                "signature": seal.signature,
                "sealed_by": seal.actor,
                "sealed_at": seal.sealed_at,
                "file": self.file,
            },
        }


@dataclass(frozen=True, slots=True)
class Decision:
    """Who closes, and whether over what a person may accept."""

    actor: str
    reason: str
    accept: bool = False


_TABLES: Final = {part.name: part for part in PARTS}
PART_NAMES: Final = (*_TABLES, DOCUMENTS, POSTINGS)


def part_leaves(stores: Stores, scope: Scope, name: str) -> Iterator[Leaf]:
    """Yield the leaves of a part, in order."""
    if name == DOCUMENTS:
        return document_leaves(stores.engine, scope)
    if name == POSTINGS:
        return posting_leaves(stores.engine, scope)
    return table_leaves(stores, _TABLES[name], scope)


def root(name: str) -> Root:
    """Return an empty root for a part: documents and postings have totals by owner only."""
    return Root(by_item=name in {"usage_facts", "rated_usage"})


def signing_key(stores: Stores) -> Key:
    """Return the key that signs.

    :raises InvalidRequest: none is configured, or its file is unusable.
    """
    path = stores.settings.closing.key_file
    if path is None:
        message = (
            "no signing key is configured: write one with `openssl rand -hex 32 > seal.key`, keep the file from"
            " others, and name it in METERBRIDGE_CLOSING__KEY_FILE"
        )
        raise InvalidRequest(message)
    return read_key(path)


def close(
    stores: Stores,
    period: Period,
    decision: Decision,
    now: datetime,
    *,
    dry_run: bool = False,
    done: Done = lambda _name: None,
) -> Outcome:
    """Check a period and seal it; a period that is sealed already only gets its file again if that is missing.

    :raises InvalidRequest: there is no signing key.
    """
    with read(stores.engine) as connection:
        found = seals.find(connection, period.entity, period.accounting.name)
    if found is not None:
        file = None if dry_run else write_file(stores, found)
        return Outcome(period, [], found.summary["digests"], found, False, file)
    key = None if dry_run else signing_key(stores)
    findings, report = completeness(stores, period, done)
    failed = [finding for finding in findings if not finding.holds]
    acceptable = all(finding.acceptable and decision.accept for finding in failed)
    if report is None or not (dry_run or acceptable):
        return Outcome(period, findings, {})
    name = f"{period.entity}/{period.accounting.name}/{now.isoformat()}"
    roots: dict[str, Root] = {}
    for part in PART_NAMES:
        own = roots[part] = root(part)
        leaves = part_leaves(stores, period.scope, part)
        if key is None:
            for _ in own.take(leaves):
                pass
        else:
            sealed_leaves.keep(stores, name, part, own.take(leaves))
        done(part)
    parts = {part: own.plain() for part, own in roots.items()}
    if key is None:
        return Outcome(period, findings, parts)
    content = _summary(stores, period, findings, report, roots, decision, now) | {"leaves": name}
    seal = _record(stores, period, content, key, decision, now)
    return Outcome(period, findings, parts, seal, True, write_file(stores, seal))


def _summary(
    stores: Stores,
    period: Period,
    findings: list[Finding],
    report: Report,
    roots: dict[str, Root],
    decision: Decision,
    now: datetime,
) -> dict[str, Any]:
    accounting, scope = period.accounting, period.scope
    accepted = [_finding(finding) for finding in findings if not finding.holds]
    totals = {name: own.totals() for name, own in roots.items()}
    known = [one for one in stores.history.revisions if one.known_from_ms < scope.closed_hour * 3_600_000]
    return {
        "format": FORMAT,
        "entity": period.entity,
        "accounting_period": accounting.name,
        "period_from": accounting.start.isoformat(),
        "period_to": accounting.end.isoformat(),
        "booked_until": of_hour(scope.closed_hour).isoformat(),
        "scope": asdict(scope),
        "configuration": [{"known_from_ms": one.known_from_ms, "sha256": one.digest} for one in known],
        "checks": [{"name": one.name, "groups": one.groups, "broken": one.broken} for one in report.checks],
        "accepted": accepted,
        "postings": _posting_states(stores, scope),
        "digests": {name: own.plain() for name, own in roots.items()},
        "totals": totals,
        "sealed_by": decision.actor,
        "reason": decision.reason,
        "sealed_at": now.isoformat(),
    }


def _finding(finding: Finding) -> dict[str, Any]:
    plain = asdict(finding)
    plain["items"] = [{name: str(value) for name, value in item.items()} for item in finding.items]
    return {name: plain[name] for name in ("name", "detail", "items")}


def _posting_states(stores: Stores, scope: Scope) -> dict[str, int]:
    table = tables.postings
    query = (
        select(table.c.state, func.count())
        .where(table.c.entity == scope.entity, table.c.accounting_period == scope.period)
        .group_by(table.c.state)
    )
    with read(stores.engine) as connection:
        return {row[0]: int(row[1]) for row in connection.execute(query)}


def _record(
    stores: Stores, period: Period, content: dict[str, Any], key: Key, decision: Decision, now: datetime
) -> seals.Seal:
    name = period.accounting.name
    with read(stores.engine) as connection:
        recorded = closes.load(connection).recorded(period.entity, name, 1 << 62)
    fact = None
    if recorded != "close":
        fact = PeriodClose(period.entity, name, known_from_ms(stores.settings, stores.engine), "close")
    with write(stores.engine) as connection:
        if seals.find(connection, period.entity, name) is not None:
            message = f"{name} of {period.entity} was sealed in this moment: see `meterbridge verify --period {name}`"
            raise InvalidRequest(message)
        if fact is not None:
            # The cut-off alone could be moved by a later configuration.
            closes.record_in(connection, fact, actor=decision.actor, reason=decision.reason or "sealed", now=now)
        return seals.record(
            connection,
            lambda number, previous: content | {"number": number, "previous": previous},
            key,
            actor=decision.actor,
            reason=decision.reason,
            now=now,
        )


def file_of(stores: Stores, seal: seals.Seal) -> Path:
    """Return where a seal's summary is written."""
    return stores.settings.closes_dir / f"{seal.entity}-{seal.accounting_period}.json"


def write_file(stores: Stores, seal: seals.Seal) -> Path:
    """Write the summary's file if it is missing, by a rename once it is on disk, and return its path."""
    path = file_of(stores, seal)
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    try:
        with temporary.open("wb") as file:
            file.write(seal.file_text())
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()
    return path
