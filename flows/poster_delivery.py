"""One entity's turn: recover, release, look up, poll, submit. Holds nothing durable; the ledger does."""

import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

import structlog
from sqlalchemy import Engine

from config.entities import Entity
from core import faults, metrics
from core.clock import Clock
from core.errors import MeterbridgeError
from flows.poster_outcomes import after_lookup, after_submit, name_of, says_nothing
from flows.poster_pace import Breaker, TokenBucket, backoff_s
from sinks.erp.port import ErpPort, Outcome, Posting, Rejected, Throttled, Unknown
from sinks.ledger import grouping, leases, postings
from sinks.ledger.leases import Lease
from sinks.ledger.postings import Change, Stored

log = structlog.get_logger()

BATCHES_PER_TURN_MAX = 20
LOOKUPS_PER_TURN_MAX = 1_000
MAPPING_REASONS = ("missing_account", "unknown_account")
"""Reasons a HELD posting is looked at again: the configuration may have been corrected."""


@dataclass
class Delivery:
    """One turn of one entity under its lease."""

    engine: Engine
    lease: Lease
    entity: Entity
    adapter: ErpPort
    clock: Clock
    chance: random.Random
    breaker: Breaker
    bucket: TokenBucket
    stop: threading.Event
    batch_max: int
    posted: int = 0

    def run(self) -> int:
        """Do the turn and return how many postings changed their state.

        :raises LeaseLost: another poster took over.
        :raises Unreachable: a lookup or poll got no answer; nothing was decided.
        """
        moved = self._recover() + self._release()
        if self.breaker.wait_s() > 0:
            return moved
        moved += self._resolve() + self._poll()
        for _ in range(BATCHES_PER_TURN_MAX):
            if self.stop.is_set() or self.breaker.wait_s() > 0:
                break
            sent = self._submit()
            moved += sent
            if not sent:
                break
        return moved

    def _due(self, state: str, limit: int) -> list[Stored]:
        return postings.due(self.engine, self.entity.id, state, self.clock.now(), limit)

    def _apply(self, expected: str, changes: Sequence[Change]) -> None:
        postings.apply(self.engine, self.lease, self.adapter.name, (expected,), changes, self.clock.now())
        self.posted += sum(change.state == postings.POSTED for change in changes)

    def _recover(self) -> int:
        """Call SUBMITTED postings unknown: no call is under way now, so a process died in one."""
        rows = self._due(postings.SUBMITTED, LOOKUPS_PER_TURN_MAX)
        detail = "the poster ended between sending and the answer"
        changes = [
            Change(row.key, postings.UNKNOWN, reason="interrupted", detail=detail, outcome="interrupted")
            for row in rows
        ]
        self._apply(postings.SUBMITTED, changes)
        return len(changes)

    def _release(self) -> int:
        """Send HELD postings again, under the same key, whose accounts the configuration now maps otherwise."""
        released = 0
        accounts = {str(role): code for role, code in self.entity.accounts.items()}
        for row in self._due(postings.HELD, LOOKUPS_PER_TURN_MAX):
            if row.reason not in MAPPING_REASONS:
                continue
            lines = tuple(replace(line, account=accounts.get(line.account_role, "")) for line in row.posting.lines)
            mapped = replace(row.posting, lines=lines, company=self.entity.erp.company)
            if grouping.missing_roles(mapped) or mapped.to_json() == row.text:
                continue
            postings.replace_content(self.engine, self.lease, mapped, self.clock.now())
            released += 1
        return released

    def _resolve(self) -> int:
        """Look UNKNOWN postings up by key."""
        rows = self._due(postings.UNKNOWN, LOOKUPS_PER_TURN_MAX)
        if not rows:
            return 0
        found = self.adapter.lookup([row.key for row in rows])
        now = self.clock.now()
        changes = [
            after_lookup(row, found.get(row.key, []), self.adapter.capabilities, now, self.chance) for row in rows
        ]
        self._apply(postings.UNKNOWN, changes)
        return sum(change.state != postings.UNKNOWN for change in changes)

    def _poll(self) -> int:
        """Ask for the outcome of accepted jobs."""
        rows = self._due(postings.ACCEPTED, LOOKUPS_PER_TURN_MAX)
        if not rows:
            return 0
        outcomes = self.adapter.poll([row.job for row in rows])
        now, wait_s = self.clock.now(), self._backoff_s(rows)
        pairs = zip(rows, outcomes, strict=True)
        changes = [replace(after_submit(row, outcome, now, wait_s), outcome="") for row, outcome in pairs]
        self._apply(postings.ACCEPTED, changes)
        return sum(change.state != postings.ACCEPTED for change in changes)

    def _submit(self) -> int:
        """Send one batch; return how many postings got an answer."""
        size = min(self.batch_max, self.adapter.capabilities.postings_max)
        rows = self._due(postings.PENDING, 1 if self.breaker.tripped else size)
        if rows:
            leases.renew(self.engine, self.lease, self.clock.now())
        rows, refused = self._preflight(rows)
        self._apply(postings.PENDING, refused)
        if not rows:
            return len(refused)
        if wait_s := self.bucket.take_or_wait_s():
            self.breaker.pause(wait_s)
            return len(refused)
        attempt_id = f"{rows[0].key}-{rows[0].attempts + 1}"
        postings.begin_attempt(self.engine, self.lease, rows, attempt_id, self.clock.now())
        return len(refused) + self._send(rows, attempt_id)

    def _preflight(self, rows: list[Stored]) -> tuple[list[Stored], list[Change]]:
        """Hold what cannot be booked, before anything is sent."""
        if not rows:
            return [], []
        issues = {issue.key: issue for issue in self.adapter.preflight([row.posting for row in rows])}
        lines_max = self.adapter.capabilities.lines_max
        good, refused = [], []
        for row in rows:
            issue = issues.get(row.key)
            if issue is not None:
                refused.append(Change(row.key, postings.HELD, reason=issue.reason, detail=issue.text))
            elif len(row.posting.lines) > lines_max:
                count = len(row.posting.lines)
                detail = f"{count} lines, the ERP takes {lines_max}: choose a coarser posting.line_grain"
                refused.append(Change(row.key, postings.HELD, reason="too_many_lines", detail=detail))
            else:
                good.append(row)
        return good, refused

    def _send(self, rows: list[Stored], attempt_id: str) -> int:
        """Call the ERP and record what it said; a rejected atomic batch is cut in two to find the bad one."""
        faults.reach("poster.submit")
        outcomes = self._call([row.posting for row in rows], attempt_id)
        faults.reach("poster.answered")
        everything_rejected = all(isinstance(outcome, Rejected) for outcome in outcomes)
        if self.adapter.capabilities.atomic_batch and len(rows) > 1 and everything_rejected:
            self.breaker.succeeded()
            leases.renew(self.engine, self.lease, self.clock.now())
            middle = len(rows) // 2
            return self._send(rows[:middle], f"{attempt_id}a") + self._send(rows[middle:], f"{attempt_id}b")
        now, wait_s = self.clock.now(), self._backoff_s(rows)
        changes = [after_submit(row, outcome, now, wait_s) for row, outcome in zip(rows, outcomes, strict=True)]
        for outcome in outcomes:
            metrics.POST_ATTEMPTS.labels(adapter=self.adapter.name, outcome=name_of(outcome)).inc()
        self._apply(postings.SUBMITTED, changes)
        faults.reach("poster.applied")
        self._pace(outcomes)
        return sum(not says_nothing(outcome) for outcome in outcomes)

    def _backoff_s(self, rows: Sequence[Stored]) -> float:
        """Return one wait for the whole batch, so that it stays one batch."""
        return backoff_s(1 + max(row.attempts for row in rows), self.chance)

    def _call(self, batch: Sequence[Posting], attempt_id: str) -> list[Outcome]:
        """Submit; whatever goes wrong inside the adapter leaves the outcome unknown, never good."""
        try:
            outcomes = self.adapter.submit(batch, attempt_id)
        except MeterbridgeError as error:
            return [Unknown(str(error)) for _ in batch]
        except Exception as error:
            log.exception("The adapter failed while submitting; the postings are looked up.", adapter=self.adapter.name)
            return [Unknown(f"{type(error).__name__}: {error}") for _ in batch]
        if len(outcomes) != len(batch):
            return [Unknown(f"the adapter gave {len(outcomes)} outcomes for {len(batch)} postings") for _ in batch]
        return outcomes

    def _pace(self, outcomes: Sequence[Outcome]) -> None:
        if all(says_nothing(outcome) for outcome in outcomes):
            self.breaker.failed()
        else:
            self.breaker.succeeded()
        waits = [one.after_s for one in outcomes if isinstance(one, Throttled) and one.after_s is not None]
        if waits:
            self.breaker.pause(max(waits))
