"""The poster: brings postings into the ERP, once each, whatever happens in between.

Guarantee: a posting is in the ERP's books at most once, and a posting called POSTED is there under the ERP's number.
Unit of parallelism: one poster per entity, by a lease with a fencing token; several processes share the entities.
What happens if the process dies, step by step:
 1. before a posting is SUBMITTED: nothing was sent; it is PENDING at the next start.
 2. after SUBMITTED is committed, before, during or after the call: it is unknown; the next start looks it up by key.
 3. after the answer, before it is committed: the same as 2; the lookup finds the entry.
 4. after the commit: done; its state reaches ClickHouse with the next pass.
"""

import os
import random
import secrets
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import structlog
from sqlalchemy import Engine

from config.entities import Entity, EntityErp
from config.revision import History
from config.settings import Settings
from core import metrics
from core.clock import Clock
from core.errors import ConfigError, Unreachable
from flows.clock_watch import STEP_S_MAX, StepDetector
from flows.poster_delivery import Delivery
from flows.poster_outcomes import OUTCOMES
from flows.poster_pace import BACKOFF_MAX_S, Breaker, TokenBucket
from flows.poster_states import PostingStateWriter, StateFeed
from flows.poster_summary import Summary
from sinks.erp.port import ErpPort
from sinks.ledger import database, documents, erp_status, leases, posting_ages, posting_creation, postings, revisions
from sinks.ledger.erp_codes import ErpNames
from sinks.ledger.leases import Lease, LeaseLost

log = structlog.get_logger()

COUNT_EVERY_S = 10.0
IDLE_PASSES_MAX = 5
WAIT_S_MAX = 30.0
STOP_POLL_S = 0.2


@dataclass
class _Desk:
    """What the poster keeps per entity while it runs: the pace, nothing durable."""

    breaker: Breaker
    bucket: TokenBucket
    adapter: ErpPort
    erp: EntityErp
    remapped_by: History | None = None
    """The configuration that held postings were last compared with."""
    says_waiting: bool | None = None
    """What the ledger tells about this ERP; None before the first turn."""
    checked: set[str] = field(default_factory=set)
    """Postings that preflight found good and that were not sent yet."""
    sweep_at_s: float | None = None
    """When (monotonic) what lost requests left is to be deleted; None: nothing was lost since."""


class Poster:
    """Groups, submits, looks up and polls, entity by entity; never sleeps while another entity has work."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        adapters: Callable[[EntityErp], ErpPort],
        clock: Clock,
        state_writer: PostingStateWriter | None = None,
        *,
        stop: threading.Event | None = None,
        chance: random.Random | None = None,
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._adapters = adapters
        self._clock = clock
        self._feed = StateFeed(engine, state_writer, clock)
        self._stop = stop or threading.Event()
        self._chance = chance or random.Random()  # noqa: S311 - spreads retries, guards no secret
        self.holder = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._desks: dict[str, _Desk] = {}
        self._leases: dict[str, Lease] = {}
        self._elsewhere: set[str] = set()
        self._names: dict[str, tuple[History, ErpNames]] = {}
        self._history: History | None = None
        self._counted_at_s = -COUNT_EVERY_S
        self._ledger_missing = False
        self._posted = 0
        self._created = 0
        self._steps: StepDetector | None = None
        self._lease_watch = leases.LeaseWatch(clock)

    def run(self) -> Summary:
        """Work until the stop flag is set, then give the leases back."""
        try:
            while not self._stop.is_set():
                if not self._pass_or_wait():
                    self._wait(self._settings.poster.poll_s)
        finally:
            self._give_back()
        return self.summary()

    def _pass_or_wait(self) -> int:
        """Do one round; a ledger that does not answer is waited for, since nothing can be decided without it."""
        waiting = metrics.WAITING_SINCE.labels(server="ledger")
        try:
            moved = self.pass_once()
        except Exception as error:
            if not database.unreachable(error):
                raise
            if not self._ledger_missing:
                waiting.set(self._clock.now().timestamp())
                log.warning(
                    "The ledger database does not answer; the poster waits.",
                    cause=str(getattr(error, "orig", error))[:300],
                )
            self._ledger_missing = True
            return 0
        if self._ledger_missing:
            waiting.set(0)
            self._ledger_missing = False
        return moved

    def run_once(self) -> Summary:
        """Deliver what is deliverable now, waiting a little for retries, and return what remains."""
        idle = 0
        try:
            while not self._stop.is_set() and idle < IDLE_PASSES_MAX:
                if self.pass_once():
                    idle = 0
                    continue
                due_ms = postings.next_due_ms(self._engine)
                if due_ms is None or self._elsewhere:
                    break
                idle += 1
                wait_s = due_ms / 1000 - self._clock.now().timestamp()
                self._wait(min(WAIT_S_MAX, max(wait_s, self._longest_wait_s(), 0.05)))
        finally:
            self._give_back()
        return self.summary()

    def pass_once(self) -> int:
        """Do one round over the entities and return how many postings moved."""
        moved = 0
        self._mind_the_clock()
        self._history = self._load_history()
        self._elsewhere.clear()
        if self._history is not None:
            for entity in postings.entities_with_work(self._engine):
                if self._stop.is_set():
                    break
                moved += self._entity_pass(entity, self._history)
            self._sweep()
        self._feed.run()
        self._count()
        return moved

    def _mind_the_clock(self) -> None:
        """At the start, and after the clock was set back, let nothing wait for times of a clock that was ahead."""
        if self._steps is None:
            self._steps = StepDetector(self._clock)
        elif self._steps.set_back_s() <= STEP_S_MAX:
            return
        else:
            log.warning("This machine's clock was set back; retries that wait for a later time are made now.")
        hurried = postings.hurry(self._engine, self._clock.now(), timedelta(seconds=BACKOFF_MAX_S))
        if hurried:
            log.warning("Retries were due later than any wait allows, and are made now.", postings=hurried)

    def summary(self) -> Summary:
        """Return the state of all postings."""
        return Summary(
            posted=self._posted,
            created=self._created,
            by_state=postings.count_by_state(self._engine),
            entities_elsewhere=tuple(sorted(self._elsewhere)),
            entities_waiting=tuple(one.entity for one in erp_status.waiting(self._engine)),
            states_unwritten=self._feed.waiting(),
        )

    def _load_history(self) -> History | None:
        known = revisions.load_history_if_changed(self._engine, self._history)
        return known if known is not None else self._history

    def _entity_pass(self, name: str, history: History) -> int:
        entity = posting_creation.newest_entity(history, name)
        if entity is None:
            log.error("Documents name an entity that no revision has; they wait.", entity=name)
            return 0
        names = self._erp_names(entity, history)
        lease = leases.acquire(self._engine, name, self.holder, self._clock.now(), watch=self._lease_watch)
        if lease is None:
            self._elsewhere.add(name)
            self._leases.pop(name, None)
            return 0
        self._leases[name] = lease
        desk = self._desk(entity)
        try:
            lines_max = _lines_max(entity, desk.adapter)
            now = self._clock.now()
            created = posting_creation.create(self._engine, lease, history, entity, names, now, lines_max)
            self._created += created
            delivery = Delivery(
                engine=self._engine,
                lease=lease,
                entity=entity,
                adapter=desk.adapter,
                clock=self._clock,
                chance=self._chance,
                breaker=desk.breaker,
                bucket=desk.bucket,
                stop=self._stop,
                batch_max=self._settings.poster.batch_documents,
                names=names,
                lines_max=lines_max,
                checked=desk.checked,
                remap=desk.remapped_by is not history,
            )
            moved = delivery.run()
            desk.remapped_by = None if delivery.held else history  # what is newly held may have an old mapping
        except LeaseLost as error:
            self._leases.pop(name, None)
            log.warning("A posting lease was lost.", entity=name, cause=str(error))
            return 0
        except (Unreachable, ConfigError) as error:
            # A company or credential that is wrong is this entity's affair: the others go on.
            desk.breaker.failed(str(error))
            log.warning("The ERP does not answer, or refuses what names it.", entity=name, cause=str(error))
            self._sweep_later(desk)
            self._tell(name, desk)
            return 0
        self._tell(name, desk)
        if delivery.unclear:
            self._sweep_later(desk)
        self._posted += delivery.posted
        return created + moved

    def _sweep_later(self, desk: _Desk) -> None:
        """Note that a request may be lost: what it leaves is deleted once it cannot take effect any more."""
        if desk.adapter.capabilities.two_phase:
            desk.sweep_at_s = self._clock.monotonic_s() + desk.adapter.capabilities.settle_window_s

    def _sweep(self) -> None:
        """Delete what lost requests left in ERPs that book in two steps, under the entity's lease."""
        for name, desk in self._desks.items():
            now_s = self._clock.monotonic_s()
            if desk.sweep_at_s is None or now_s < desk.sweep_at_s or desk.breaker.wait_s() > 0:
                continue
            lease = leases.acquire(self._engine, name, self.holder, self._clock.now())
            if lease is None or desk.bucket.take_or_wait_s() > 0:
                continue
            self._leases[name] = lease
            try:
                swept = desk.adapter.sweep()
            except (Unreachable, ConfigError) as error:
                desk.breaker.failed(str(error))
                log.warning("The ERP does not answer; what lost requests left there stays for now.", cause=str(error))
                continue
            desk.sweep_at_s = None
            if swept:
                log.info("Drafts that lost requests left in the ERP were deleted.", entity=name, drafts=swept)

    def _desk(self, entity: Entity) -> _Desk:
        desk = self._desks.get(entity.id)
        erp = entity.erp.without_mappings()
        if desk is None or desk.erp != erp:
            adapter = self._adapters(entity.erp)
            for outcome in OUTCOMES:  # from 0, so that the first one shows as an increase
                metrics.POST_ATTEMPTS.labels(adapter=adapter.name, outcome=outcome)
            rate = adapter.capabilities
            bucket = TokenBucket(rate.rate_per_s, rate.burst, self._clock)
            desk = _Desk(Breaker(self._clock), bucket, adapter, erp)
            if rate.two_phase:  # the poster before this one may have died in a call
                desk.sweep_at_s = self._clock.monotonic_s()
            self._desks[entity.id] = desk
        return desk

    def _erp_names(self, entity: Entity, history: History) -> ErpNames:
        """Return the entity's names in the ERP; made once per configuration, since customers may be many."""
        known = self._names.get(entity.id)
        if known is None or known[0] is not history:
            known = self._names[entity.id] = (history, posting_creation.erp_names(history, entity))
        return known[1]

    def _tell(self, entity: str, desk: _Desk) -> None:
        """Let metrics and the ledger say since when the ERP does not answer, once it is more than a hiccup."""
        since = desk.breaker.failing_since
        is_waiting = desk.breaker.tripped and since is not None
        metrics.ERP_WAITING_SINCE.labels(entity=entity).set(since.timestamp() if is_waiting and since else 0)
        if is_waiting == desk.says_waiting:
            return
        if is_waiting and since is not None:
            erp_status.waits(self._engine, entity, since, desk.breaker.cause, self._clock.now())
        else:
            erp_status.answers(self._engine, entity)
        desk.says_waiting = is_waiting

    def _longest_wait_s(self) -> float:
        return max((desk.breaker.wait_s() for desk in self._desks.values()), default=0.0)

    def _count(self) -> None:
        now_s = self._clock.monotonic_s()
        if now_s - self._counted_at_s < COUNT_EVERY_S:
            return
        self._counted_at_s = now_s
        found = documents.count_by_state(self._engine)
        for state in ALL_STATES:
            metrics.OUTBOX.labels(state=state).set(found.get(state, 0))
        oldest = posting_ages.oldest_made(self._engine)
        for state in posting_ages.WATCHED:
            made = oldest.get(state)
            metrics.POSTINGS_OLDEST.labels(state).set(made.timestamp() if made else 0)

    def _wait(self, seconds: float) -> None:
        """Sleep in small steps, so that a stop is noticed."""
        until_s = self._clock.monotonic_s() + seconds
        while not self._stop.is_set() and (left_s := until_s - self._clock.monotonic_s()) > 0:
            self._clock.sleep(min(left_s, STOP_POLL_S))

    def _give_back(self) -> None:
        for lease in self._leases.values():
            leases.release(self._engine, lease)
        self._leases.clear()


def _lines_max(entity: Entity, adapter: ErpPort) -> int:
    """Return how many lines a posting may have: the least of what the adapter takes and the entity says."""
    configured = entity.posting.line_limits.lines
    takes = adapter.capabilities.lines_max
    return min(takes, configured) if configured else takes


ALL_STATES: Sequence[str] = (
    documents.STAGED,
    documents.PENDING,
    documents.NOT_POSTED_ZERO,
    postings.SUBMITTED,
    postings.ACCEPTED,
    postings.UNKNOWN,
    postings.POSTED,
    postings.HELD,
    postings.CONFLICT,
    postings.DUPLICATED,
    postings.SUPERSEDED,
    postings.REVERSED,
    postings.RECONCILED,
    postings.MISMATCHED,
)
