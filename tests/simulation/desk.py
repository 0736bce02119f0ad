"""Posters on a simulated ERP: they die, are paused until another took over, and are watched after every pass."""

import random
from collections.abc import Sequence

from sqlalchemy import Engine

from config.settings import PosterSettings, Settings
from core.clock import ManualClock
from core.errors import Unreachable
from flows.poster import Poster
from sinks.clickhouse.posting_states import PostingState
from sinks.erp.port import Idempotency
from sinks.ledger import documents, held, leases, postings
from sinks.ledger.act_documents import ActDocument
from tests.simulation.erp import SimulatedErp, chosen_capabilities
from tests.simulation.fate import Died, Fate, require
from tests.simulation.ledger import final_states, posting_states


class StateTable:
    """`posting_states` in memory: the larger version wins; a write may fail before or after it was applied."""

    def __init__(self, fate: Fate) -> None:
        self._fate = fate
        self.rows: dict[str, PostingState] = {}

    def write(self, rows: Sequence[PostingState]) -> None:
        """Write rows, or fail."""
        self._fate.step("posting_states.insert")
        if self._fate.fails():
            message = "ClickHouse is away"
            raise Unreachable(message)
        for row in rows:
            known = self.rows.get(row.key)
            if known is None or row.version >= known.version:
                self.rows[row.key] = row
        self._fate.step("posting_states.inserted")
        if self._fate.fails():
            message = "ClickHouse took it and did not say so"
            raise Unreachable(message)

    def write_documents(self, made: Sequence[ActDocument]) -> None:
        """Refuse documents of acts: nobody acts in the simulated world."""
        require(not made, "a document of an act came to a world without acts")


PASSES_MAX = 400


class Desk:
    """The posting side of one run."""

    def __init__(self, engine: Engine, fate: Fate, clock: ManualClock) -> None:
        self._engine, self._fate, self._clock = engine, fate, clock
        self.erp = SimulatedErp(chosen_capabilities(fate), fate=fate, clock=clock, between=self._between)
        batch = fate.random.choice((1, 3, 100))
        self._settings = Settings(poster=PosterSettings(batch_documents=batch))
        self._states = StateTable(fate)
        self._poster: Poster | None = None
        self._nested = False

    def act(self) -> None:
        """Do one pass of the poster, made anew if it died, then look whether all is as it must be."""
        if self._poster is None:
            self._poster = self._new()
        try:
            with self._fate.process("pass"):
                self._poster.pass_once()
        except Died:
            self._poster = None
            if self._fate.random.random() < 0.5:
                self._clock.sleep(leases.TTL.total_seconds() + 1)
        self.check()

    def _new(self) -> Poster:
        chance = random.Random(self._fate.random.random())
        return Poster(self._settings, self._engine, lambda _: self.erp, self._clock, self._states, chance=chance)

    def _between(self) -> None:
        """Now and then the calling poster is paused so long that another takes its lease and its postings."""
        if self._nested or not self._fate.fails() or self._fate.random.random() > 0.3:
            return
        self._fate.note("the poster is paused")
        self._nested = True
        try:
            self._clock.sleep(leases.TTL.total_seconds() + 1)
            self._new().pass_once()
        finally:
            self._nested = False

    def check(self) -> None:
        """At most one entry per key; what is called posted is in the books with the same content."""
        for key, entries in self.erp.entries.items():
            require(len(entries) <= 1, f"the ERP has {len(entries)} entries under {key}")
        for key, (state, _, digest) in posting_states(self._engine).items():
            entries = self.erp.entries.get(key, [])
            if state == postings.POSTED:
                require(entries, f"posting {key} is called posted and is not in the ERP")
                require(entries[0][1] == digest, f"posting {key} is in the ERP with another digest")
            require(state not in {postings.CONFLICT, postings.DUPLICATED}, f"posting {key} is {state}")

    def finish(self) -> None:
        """Deliver everything; what an ERP that can only be searched left open, a person releases who looked."""
        for _ in range(PASSES_MAX):
            self.act()
            self._clock.sleep(20)
            for key, (state, reason, _) in posting_states(self._engine).items():
                if (state, reason) == (postings.HELD, "unknown_outcome"):
                    self._release(key)
            if set(final_states(self._engine).values()) <= {postings.POSTED, documents.NOT_POSTED_ZERO}:
                break
        for _ in range(2):
            self.act()
            self._clock.sleep(20)
        left = {key: state for key, state in posting_states(self._engine).items() if state[0] != postings.POSTED}
        require(not left, f"postings are left: {left}")
        told = {key: row.state for key, row in self._states.rows.items()}
        require(told == final_states(self._engine), "the dashboards were told other states than the ledger has")
        require(
            set(self.erp.entries) == set(posting_states(self._engine)), "the ERP has other postings than the ledger"
        )

    def _release(self, key: str) -> None:
        require(self.erp.capabilities.idempotency is Idempotency.SEARCH_ONLY, f"posting {key} was left to a person")
        self.erp.settle_due()
        if key not in self.erp.entries:
            held.release(
                self._engine, key, actor="simulation", reason="looked it up: it is not there", now=self._clock.now()
            )
