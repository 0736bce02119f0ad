"""One entity's turn: recover, release, look up, poll, submit. Holds nothing durable; the ledger does."""

import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import structlog
from sqlalchemy import Engine

from config.entities import Entity
from core import faults, metrics
from core.clock import Clock
from core.errors import MeterbridgeError
from flows.poster_held import ERP_REASONS, LOOK_AGAIN_FIRST_S, OTHER_COMPANY, HeldDesk
from flows.poster_log import shown, tell_waiting
from flows.poster_outcomes import after_lookup, after_submit, name_of, says_nothing
from flows.poster_pace import Breaker, TokenBucket, backoff_s
from sinks.erp.port import ErpPort, NotSent, Outcome, Posting, Rejected, Throttled, Unknown
from sinks.ledger import leases, postings
from sinks.ledger.erp_codes import ErpNames
from sinks.ledger.leases import Lease
from sinks.ledger.postings import Change, Stored
from sinks.ledger.times import to_ms

log = structlog.get_logger()

BATCHES_PER_TURN_MAX = 20
LOOKUPS_PER_TURN_MAX = 1_000
TOKEN_POLL_S = 1.0
"""Longest sleep while work under way waits for its token; the lease is renewed in between."""


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
    names: ErpNames
    lines_max: int
    """Lines of one posting, the least of what the adapter and the entity say."""
    checked: set[str] = field(default_factory=set)
    """Keys that preflight found good and that wait for a token to be sent: it is not asked about them again."""
    remap: bool = True
    """Whether the configuration may have changed since the last turn."""
    posted: int = 0
    held: int = 0
    unclear: int = 0
    """Outcomes of this turn that nobody knows yet."""

    def run(self) -> int:
        """Do the turn and return how many postings changed their state.

        :raises LeaseLost: another poster took over.
        :raises Unreachable: a lookup or poll got no answer; nothing was decided.
        """
        moved = self._recover()
        is_open = self.breaker.wait_s() <= 0
        desk = HeldDesk(
            self.engine, self.lease, self.entity, self.adapter, self.clock, self.chance, self.names, self.lines_max,
            self._preflight_token,
        )  # fmt: skip
        moved += desk.run(remap=self.remap, ask_erp=is_open)
        if not is_open:
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
        self.held += sum(change.state == postings.HELD for change in changes)
        self.unclear += sum(change.state == postings.UNKNOWN for change in changes)
        tell_waiting(self.entity.id, changes)

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

    def _resolve(self) -> int:
        """Look UNKNOWN postings up by key."""
        rows = self._mine(postings.UNKNOWN)
        if not rows or not self._token():
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
        rows = self._mine(postings.ACCEPTED)
        if not rows or not self._token():
            return 0
        outcomes = self.adapter.poll([row.job for row in rows])
        now, wait_s = self.clock.now(), self._backoff_s(rows)
        pairs = zip(rows, outcomes, strict=True)
        changes = [replace(after_submit(row, outcome, now, wait_s), outcome="") for row, outcome in pairs]
        self._apply(postings.ACCEPTED, changes)
        return sum(change.state != postings.ACCEPTED for change in changes)

    def _mine(self, state: str) -> list[Stored]:
        """Return what to ask this ERP about; what was sent to another one it cannot know, and a person decides.

        One token asks about no more keys than are sent at once: an adapter may need a request for each.
        """
        rows = self._due(state, min(LOOKUPS_PER_TURN_MAX, self.adapter.capabilities.postings_max))
        strange = [row for row in rows if row.adapter != self.adapter.name]
        self._apply(state, [self._sent_elsewhere(row) for row in strange])
        return [row for row in rows if row not in strange]

    def _sent_elsewhere(self, row: Stored) -> Change:
        detail = (
            f"it was sent through {row.adapter}, and entity {self.entity.id} names {self.adapter.name} now: look for"
            " the key there, and release it if it is absent"
        )
        return Change(row.key, postings.HELD, reason="unknown_outcome", detail=detail, due_at_ms=postings.NEVER_MS)

    def _token(self) -> bool:
        """Take the right to call the ERP once; without one, the desk pauses until there is."""
        wait_s = self.bucket.take_or_wait_s()
        if wait_s:
            self.breaker.pause(wait_s)
        return not wait_s

    def _preflight_token(self) -> bool:
        return not self.adapter.capabilities.preflight_asks or self._token()

    def _submit(self) -> int:
        """Send one batch, and reversals one by one; return how many postings got an answer."""
        size = min(self.batch_max, self.adapter.capabilities.postings_max)
        rows = self._due(postings.PENDING, 1 if self.breaker.tripped else size)
        if not rows:
            return 0
        leases.renew(self.engine, self.lease, self.clock.now())
        answered = 0
        if not self.checked.issuperset(row.key for row in rows):
            if not self._preflight_token():
                return 0
            rows, refused = self._preflight(rows)
            self._apply(postings.PENDING, refused)
            answered = len(refused)
            self.checked.clear()
            self.checked.update(row.key for row in rows)
        plain = [row for row in rows if not row.posting.reverses]
        if plain and self._token():
            self.checked.clear()
            attempt_id = f"{plain[0].key}-{plain[0].attempts + 1}"
            postings.begin_attempt(self.engine, self.lease, self.adapter.name, plain, attempt_id, self.clock.now())
            answered += self._send(plain, attempt_id)
        for row in rows:
            if row.posting.reverses and self.breaker.wait_s() <= 0 and not self.stop.is_set():
                answered += self._reverse(row)
        return answered

    def _preflight(self, rows: list[Stored]) -> tuple[list[Stored], list[Change]]:
        """Hold what cannot be booked, before anything is sent."""
        issues = {issue.key: issue for issue in self.adapter.preflight([row.posting for row in rows])}
        good, refused = [], []
        look_again_ms = to_ms(self.clock.now()) + int(1000 * LOOK_AGAIN_FIRST_S)
        for row in rows:
            issue = issues.get(row.key)
            lines = len(row.posting.lines)
            if row.posting.company != self.entity.erp.company and not row.reverses:
                # Another company may have other codes too: the next turn writes it anew, as what was never sent may be.
                detail = f"made for company {row.posting.company}; entity {self.entity.id} names another one now"
                refused.append(Change(row.key, postings.HELD, reason=OTHER_COMPANY, detail=detail))
            elif issue is not None:
                due_ms = look_again_ms if issue.reason in ERP_REASONS else postings.NEVER_MS
                refused.append(Change(row.key, postings.HELD, reason=issue.reason, detail=issue.text, due_at_ms=due_ms))
            elif lines > self.lines_max:
                detail = f"{lines} lines, the ERP takes {self.lines_max}: choose a coarser posting.line_grain"
                refused.append(
                    Change(row.key, postings.HELD, reason="too_many_lines", detail=detail, due_at_ms=postings.NEVER_MS)
                )
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
            middle = len(rows) // 2
            return self._half(rows[:middle], f"{attempt_id}a") + self._half(rows[middle:], f"{attempt_id}b")
        return self._record(rows, outcomes)

    def _half(self, rows: list[Stored], attempt_id: str) -> int:
        """Send a part of a rejected batch at the ERP's pace; when it is time to stop or wait, it goes back unsent."""
        if self.breaker.wait_s() > 0:
            return self._unsent(rows, "the ERP asked to wait before this part of a rejected batch was sent again")
        if not self._wait_for_token():
            return self._unsent(rows, "the poster stopped before this part of a rejected batch was sent again")
        leases.renew(self.engine, self.lease, self.clock.now())
        return self._send(rows, attempt_id)

    def _wait_for_token(self) -> bool:
        """Take the right to call the ERP, waiting for it where work under way needs it; False: it is time to stop."""
        while wait_s := self.bucket.take_or_wait_s():
            if self.stop.is_set():
                return False
            self.clock.sleep(min(wait_s, TOKEN_POLL_S))
            leases.renew(self.engine, self.lease, self.clock.now())
        return True

    def _unsent(self, rows: list[Stored], why: str) -> int:
        """Give back what is SUBMITTED and was not sent; the ERP was not asked, so its pace does not change."""
        now, wait_s = self.clock.now(), self._backoff_s(rows)
        self._apply(postings.SUBMITTED, [after_submit(row, NotSent(why), now, wait_s) for row in rows])
        return 0

    def _record(self, rows: list[Stored], outcomes: Sequence[Outcome]) -> int:
        now, wait_s = self.clock.now(), self._backoff_s(rows)
        changes = [after_submit(row, outcome, now, wait_s) for row, outcome in zip(rows, outcomes, strict=True)]
        for outcome in outcomes:
            metrics.POST_ATTEMPTS.labels(adapter=self.adapter.name, outcome=name_of(outcome)).inc()
        self._apply(postings.SUBMITTED, changes)
        faults.reach("poster.applied")
        self._pace(outcomes)
        return sum(not says_nothing(outcome) for outcome in outcomes)

    def _reverse(self, row: Stored) -> int:
        """Book the opposite of an entry that is in the books; a reversal never goes before what it reverses."""
        original = postings.get(self.engine, row.reverses)
        if original is None or original.state not in postings.BOOKED or not self._token():
            return 0
        found = self.adapter.lookup([row.reverses]).get(row.reverses, [])
        if len(found) != 1:
            detail = f"the ERP has {len(found)} entries of {row.reverses}, which this one reverses: correct that first"
            reason = "original_missing" if not found else "original_duplicated"
            change = Change(row.key, postings.HELD, reason=reason, detail=detail, due_at_ms=postings.NEVER_MS)
            self._apply(postings.PENDING, [change])
            return 1
        if not self._wait_for_token():  # giving up here would spend the token on the lookup again and again
            return 0
        attempt_id = f"{row.key}-{row.attempts + 1}"
        postings.begin_attempt(self.engine, self.lease, self.adapter.name, [row], attempt_id, self.clock.now())
        outcomes = self._guarded(lambda: [self.adapter.reverse(found[0], row.posting)], [row.key])
        return self._record([row], outcomes)

    def _backoff_s(self, rows: Sequence[Stored]) -> float:
        """Return one wait for the whole batch, so that it stays one batch."""
        return backoff_s(1 + max(row.attempts for row in rows), self.chance)

    def _call(self, batch: Sequence[Posting], attempt_id: str) -> list[Outcome]:
        return self._guarded(lambda: self.adapter.submit(batch, attempt_id), [posting.key for posting in batch])

    def _guarded(self, call: Callable[[], list[Outcome]], keys: Sequence[str]) -> list[Outcome]:
        """Call the adapter; whatever goes wrong inside it leaves the outcome unknown, never good."""
        count = len(keys)
        try:
            outcomes = call()
        except MeterbridgeError as error:
            return [Unknown(str(error)) for _ in range(count)]
        except Exception as error:
            log.exception(
                "The adapter failed while submitting; the postings are looked up.",
                adapter=self.adapter.name,
                entity=self.entity.id,
                postings=shown(keys),
                count=count,
            )
            return [Unknown(f"{type(error).__name__}: {error}") for _ in range(count)]
        if len(outcomes) != count:
            return [Unknown(f"the adapter gave {len(outcomes)} outcomes for {count} postings") for _ in range(count)]
        return outcomes

    def _pace(self, outcomes: Sequence[Outcome]) -> None:
        if all(says_nothing(outcome) for outcome in outcomes):
            self.breaker.failed(_cause(outcomes[0]))
        else:
            self.breaker.succeeded()
        waits = [one.after_s for one in outcomes if isinstance(one, Throttled) and one.after_s is not None]
        if waits:
            self.breaker.pause(max(waits))


def _cause(outcome: Outcome) -> str:
    match outcome:
        case NotSent(why) | Unknown(why):
            return why
        case Throttled():
            return "the ERP asks to slow down"
    return ""
