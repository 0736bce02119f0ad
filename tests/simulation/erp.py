"""An ERP in memory that loses requests and answers, is slow, throttles, works in jobs and is called by zombies."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from core.clock import ManualClock
from core.errors import Unreachable
from sinks.erp.port import Accepted, Capabilities, ErpEntry, Idempotency, Issue, Outcome, Posting
from tests.simulation.fate import Fate
from tests.sinks.erp.memory_erp import MemoryErp

SETTLE_S = 30.0
FAULTS = ("lost", "dropped", "not_sent", "throttled", "raises", "job", "late")


def chosen_capabilities(fate: Fate) -> Capabilities:
    """Return what this run's ERP promises."""
    chance = fate.random
    kind = chance.choice((Idempotency.UNIQUE_KEY, Idempotency.UPSERT, Idempotency.SEARCH_ONLY, Idempotency.SEARCH_ONLY))
    slow = kind is Idempotency.SEARCH_ONLY or chance.random() < 0.5
    return Capabilities(
        idempotency=kind,
        atomic_batch=chance.random() < 0.3,
        postings_max=chance.choice((2, 50)),
        settle_window_s=SETTLE_S if slow else 0.0,
        settle_lookups=2 if slow else 1,
    )


@dataclass
class SimulatedErp(MemoryErp):
    """Books by key as the in-memory ERP does; the fault of each call is drawn, and late requests settle in time."""

    fate: Fate = field(kw_only=True)
    clock: ManualClock = field(kw_only=True)
    between: Callable[[], None] = lambda: None
    """What others do while a call is under way."""
    waiting: list[tuple[datetime, Posting]] = field(default_factory=list)

    def settle_due(self) -> None:
        """Let requests whose answer was lost take effect, those whose time has come."""
        now = self.clock.now()
        for one in [posting for at, posting in self.waiting if at <= now]:
            self._book(one)
        self.waiting = [(at, posting) for at, posting in self.waiting if at > now]

    def submit(self, postings: Sequence[Posting], attempt_id: str) -> list[Outcome]:
        self.settle_due()
        self.between()
        fault = self.fate.random.choice(FAULTS) if self.fate.fails() else "ok"
        self.fate.note(f"erp.submit {fault}")
        self.script = [fault]
        if self.fate.is_dying_at("erp.submit"):
            self.script = ["ok"]
            if self.fate.random.random() < 0.5:
                super().submit(postings, attempt_id)
            self.fate.die("erp.submit")
        outcomes = super().submit(postings, attempt_id)
        latest_s = min(SETTLE_S, self.capabilities.settle_window_s) * 0.9
        for one in self.late:
            at = self.clock.now() + timedelta(seconds=self.fate.random.uniform(0.0, latest_s))
            self.waiting.append((at, one))
        self.late.clear()
        return outcomes

    def lookup(self, keys: Sequence[str]) -> dict[str, list[ErpEntry]]:
        self.settle_due()
        self.fate.step("erp.lookup")
        self.lookup_script = ["unreachable"] if self.fate.fails() else []
        return super().lookup(keys)

    def preflight(self, postings: Sequence[Posting]) -> list[Issue]:
        if self.fate.fails():
            message = "the ERP is down"
            raise Unreachable(message)
        return super().preflight(postings)

    def poll(self, jobs: Sequence[str]) -> list[Outcome]:
        self.fate.step("erp.poll")
        if self.fate.fails():
            return [Accepted(job) for job in jobs]
        return super().poll(jobs)
