"""Outbox, ledger, poster and ERP: documents of epochs that may be replayed, delivered once each."""

import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from core.clock import ManualClock
from operators.items import Marker
from sinks.ledger import documents, revisions
from sinks.ledger.times import MS_PER_HOUR
from sinks.outbox import OutboxPartition
from tests.simulation.desk import Desk
from tests.simulation.fate import Died, Fate, require
from tests.simulation.ledger import document_states, open_ledger
from tests.sinks.ledger import samples
from tests.sinks.ledger.samples import HOUR, SampleDocument

START = datetime(2025, 11, 24, 18, tzinfo=UTC)
SENDERS = ("customer-0", "customer-1")
PROMOTED = {documents.PENDING, documents.IN_POSTING, documents.NOT_POSTED_ZERO}


class PostingWorld:
    """The input is a list of hours with documents; how they fall into epochs changes with every replay."""

    def __init__(self, fate: Fate, directory: Path) -> None:
        chance = fate.random
        self._fate = fate
        self._clock = ManualClock(START)
        self._engine = open_ledger(directory, fate)
        entity = samples.entity(grain=chance.choice(("customer", "entity")))
        revisions.record_revision(self._engine, samples.revision(entity), START)
        self._hours = [self._documents(hour) for hour in range(chance.randrange(2, 7))]
        self._desk = Desk(self._engine, fate, self._clock)
        self._outbox: OutboxPartition | None = None
        self._state: dict[str, Any] | None = None
        self._at = 0
        self._durable: set[str] = set()

    def _documents(self, hour: int) -> list[SampleDocument]:
        chance = self._fate.random
        return [
            SampleDocument(
                samples.key(100 * hour + number),
                amount=chance.choice(("0.00", "1.00", "-0.10", "999999999999.99")),
                customer=f"customer-{number}",
                booked_hour=HOUR + hour,
            )
            for number in range(chance.randrange(0, 4))
        ]

    def run(self) -> None:
        """Interleave epochs and passes of the poster, then finish both."""
        chance = self._fate.random
        for _ in range(chance.randrange(6, 16)):
            self._act()
            for _ in range(chance.randrange(3)):
                self._desk.act()
            self._clock.sleep(chance.choice((0, 1, 20, 70)))
            self._check()
        self._fate.calm()
        while self._at < len(self._hours):
            self._act()
        self._epoch()
        self._desk.finish()
        wanted = {one.key: one.digest for hour in self._hours for one in hour}
        states = document_states(self._engine)
        require({key: digest for key, (_, digest) in states.items()} == wanted, "other documents than were made")
        open_states = {state for state, _ in states.values()} - {documents.IN_POSTING, documents.NOT_POSTED_ZERO}
        require(not open_states, f"documents are left {open_states}")

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def _act(self) -> None:
        try:
            with self._fate.process("epoch"):
                self._epoch()
        except Died:
            self._outbox = None

    def _epoch(self) -> None:
        """Write some hours' documents and markers in two writes or one, snapshot, and commit."""
        chance = self._fate.random
        if self._outbox is None:
            self._outbox = OutboxPartition(self._engine, SENDERS, threading.Event(), self._state)
            self._check()
        until = min(len(self._hours), self._at + chance.randrange(0, 3))
        made = [one for hour in self._hours[self._at : until] for one in hour]
        watermark_ms = (HOUR + until) * MS_PER_HOUR + 60_000
        cut = chance.randrange(len(made) + 1)
        self._outbox.write_batch([*made[:cut], Marker(SENDERS[0], watermark_ms)])
        self._check()
        self._outbox.write_batch([*made[cut:], Marker(SENDERS[1], watermark_ms)])
        state = self._outbox.snapshot()
        self._check()
        self._fate.step("engine.commit")
        self._state, self._at = state, until
        self._durable |= {one.key for one in made}
        self._fate.step("engine.after-commit")

    def _check(self) -> None:
        """Only documents of durable epochs may be seen by the poster."""
        early = {key for key, (state, _) in document_states(self._engine).items() if state in PROMOTED} - self._durable
        require(not early, f"documents {sorted(early)} were promoted before their epoch was durable")
