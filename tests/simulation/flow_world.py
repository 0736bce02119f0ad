"""The whole flow: streams, readers, dedupe, book, rate, documents, outbox, poster and ERP, all at fault at times."""

import threading
from pathlib import Path
from typing import Any

from config.revision import Configuration
from config.settings import FlowSettings, RedisSettings, Settings
from core.clock import ManualClock
from core.errors import StreamBackward
from core.shard_keys import CUSTOMER_KEYS
from flows import runtime
from sinks import outbox
from sinks.ledger import documents
from sinks.outbox import OutboxPartition
from tests.simulation import checks
from tests.simulation.desk import Desk
from tests.simulation.disk import FaultyDisk
from tests.simulation.engine import Committed, Life, Plan
from tests.simulation.fate import Died, Fate, require
from tests.simulation.ledger import document_states, open_ledger
from tests.simulation.reader_world import build_reader
from tests.simulation.redis_server import Server
from tests.simulation.variants import HOURS, draw
from tests.simulation.warehouse import Warehouse
from tests.simulation.workload import Producers

SKEWS_MS = (-3_600_000, 0, 0, 3_600_000)
STREAMS = ("usage:0", "usage:1", "usage:2", "usage:3")
PROMOTED = {documents.PENDING, documents.IN_POSTING, documents.NOT_POSTED_ZERO}


class FlowWorld:
    """Everything of one deployment."""

    def __init__(self, fate: Fate, directory: Path) -> None:
        chance = fate.random
        self._fate = fate
        self.variant = draw(fate)
        self._span = self.variant.span
        self.clock = ManualClock(self._span.start)
        self.server = Server(self.clock)
        self.streams = STREAMS[: chance.choice((1, 2, 3))]
        readers = 2 if len(self.streams) > 1 and chance.random() < 0.2 else 1
        shards = [chance.choice((1, 1, 2)) for _ in range(3)]
        self.settings = Settings(
            redis=RedisSettings(
                streams=self.streams,
                read_entries=chance.choice((2, 50)),
                idle_claim_ms=10,
                fence=chance.choice(("xsetid", "xsetid", "tick")),
            ),
            flow=FlowSettings(
                id_shards=shards[0],
                tenant_shards=shards[1],
                customer_shards=shards[2],
                readers=readers,
                item_events_max=chance.choice((2, 7, 100)),
            ),
        )
        self.engine = open_ledger(directory, fate)
        self._configure(self.variant.configuration(second=False))
        self.warehouse = Warehouse(unique_identities=self._span is HOURS)
        self._producers = Producers(
            fate, self.server, self.clock, self.streams, own_streams=readers > 1, sends_voids=self.variant.sends_voids
        )
        self.desk = Desk(self.engine, fate, self.clock)
        self._state_dir = directory / "state"
        self._state_dir.mkdir()
        self.undisturbed_dir = directory / "undisturbed"
        self._disk = FaultyDisk(fate, self._state_dir)
        self._seal_records = chance.choice((4, 1000))
        self._committed: Committed = {}
        self.alarms = 0
        self._accept_gap = False
        self._durable: set[str] = set()
        self._life: Life | None = None
        self._ghosts: list[tuple[str, Any]] = []

    def run(self) -> None:
        """Let everybody act in turn; then calm, drain, and compare."""
        chance = self._fate.random
        for _ in range(chance.randrange(6, 14)):
            for _ in range(chance.randrange(0, 6)):
                self._producers.act()
            self._pass_time(chance.choice(self._span.pauses_s))
            self._disturb()
            self._flow_acts()
            if chance.random() < 0.1 and self._life is not None:
                self._stop()
            if chance.random() < 0.4:
                self.desk.act()
        self._fate.calm()
        self._drain()
        self.desk.finish()
        checks.compare(self)

    def close(self) -> None:
        """Close what is open."""
        if self._life is not None:
            self._life.close()
        self.engine.dispose()

    # --- inside ------------------------------------------------------------------------------------------

    def _configure(self, wanted: Configuration) -> None:
        """Journal a configuration as a start of the flow does."""
        self.history = runtime.journal(self.engine, wanted, self.server.now_ms, self.clock)
        self._fate.note(f"the newest revision is known from {self.history.latest.known_from_ms}")

    def _pass_time(self, seconds: float) -> None:
        self.clock.sleep(min(seconds, max(0.0, (self._span.last - self.clock.now()).total_seconds() / 3)))

    def _disturb(self) -> None:
        chance = self._fate.random
        if chance.random() < 0.05:
            self._fate.note("server restarts")
            self.server.restart()
        if chance.random() < 0.05:
            self.server.skew_ms = chance.choice(SKEWS_MS)
            self._fate.note(f"the server's clock is set to {self.server.skew_ms} ms")
        if chance.random() < 0.1:
            for name, state in self._committed.items():
                if name.startswith("reader"):
                    for stream, values in state["streams"].items():
                        self.server.trim(stream, (values["ms"], values["seq"] + 1))
        while self._ghosts and chance.random() < 0.5:
            self.warehouse.insert(*self._ghosts.pop(chance.randrange(len(self._ghosts))))

    def _flow_acts(self) -> None:
        try:
            with self._fate.process("epoch"):
                self._epoch()
        except Died:
            self._crash()
        except StreamBackward as error:
            self._look_at(error)

    def _epoch(self) -> None:
        if self._life is None:
            in_time = self.clock.now() <= self._span.last  # else nothing of it would be booked before the end
            if self.variant.has_second and in_time and self._fate.random.random() < 0.5:
                self._configure(self.variant.configuration(second=True))
            self._life = Life(self._plan(), dict(self._committed))
            self._life.start()
        made = self._life
        snapshots = made.epoch()
        self._fate.step("engine.commit")
        self._committed |= snapshots
        self._durable |= {document.key for document in made.documents}
        self.warehouse.commit()
        self._accept_gap = False
        self._fate.step("engine.after-commit")

    def _stop(self) -> None:
        """End the process as SIGTERM does: after a snapshot, with everything handed over and promoted."""
        self._fate.note("the flow is stopped")
        assert self._life is not None
        self._life.close()
        self._life = None
        outbox.promote_all(self.engine)

    def _look_at(self, error: StreamBackward) -> None:
        """Go on as a person would who sees that only a fence was lost: no entry ever is, here.

        That is the one false alarm: the flow died after it staged an epoch, whose claims no snapshot has then, and
        Redis lost the fences of those claims as well. So nothing shows that the stream was only idle.
        """
        require("books go up to" in str(error) and self.server.life, f"a false alarm of another kind: {error}")
        self._fate.note("a person accepts that a stream's end is gone")
        self.alarms += 1
        self._accept_gap = True
        self._crash()

    def _crash(self) -> None:
        life, self._life = self._life, None
        if life is not None:
            life.linger()
            self._ghosts += life.close()
        self._disk.crash(power_lost=self._fate.random.random() < 0.5)
        if self._fate.random.random() < 0.1:
            self.server.restart()  # the same power cut
        self._disk = FaultyDisk(self._fate, self._state_dir)

    def _drain(self) -> None:
        """Read everything at a time at which all of it seals, promote the last epoch, and end."""
        for ghost in self._ghosts:
            self.warehouse.insert(*ghost)
        self._ghosts.clear()
        self.server.skew_ms = 0
        self.clock.sleep(max(0.0, (self._span.end - self.clock.now()).total_seconds()))
        for _ in range(60):
            self._flow_acts()
            self.clock.sleep(6)
            if self._sent_ms() >= int(self._span.end.timestamp() * 1000):
                break
        require(
            self._sent_ms() >= int(self._span.end.timestamp() * 1000),
            "the flow does not come to the end of the streams",
        )
        self._epoch()
        self._check_outbox()
        outbox.promote_all(self.engine)

    def _sent_ms(self) -> int:
        return min(
            (state["sent_ms"] for name, state in self._committed.items() if name.startswith("reader")), default=0
        )

    def _check_outbox(self) -> None:
        early = {key for key, (state, _) in document_states(self.engine).items() if state in PROMOTED} - self._durable
        require(not early, f"documents {sorted(early)} were promoted before their epoch was durable")

    def _plan(self) -> Plan:
        return Plan(
            fate=self._fate,
            history=self.history,
            streams=self.streams,
            shards=self.settings.flow,
            directory=self._state_dir,
            disk=self._disk,
            seal_records=self._seal_records,
            warehouse=self.warehouse,
            readers=self._readers,
            outbox=self._outbox,
            after_outbox=self._check_outbox,
        )

    def _readers(self, committed: Committed) -> dict[str, Any]:
        count = self.settings.flow.readers
        high_water_ms = outbox.high_water_ms(self.engine)
        return {
            f"reader-{number:02d}": build_reader(
                f"reader-{number:02d}",
                [(index, name) for index, name in enumerate(self.streams) if index % count == number],
                committed.get(f"reader-{number:02d}"),
                self.server, self._fate, self.clock, self.settings, high_water_ms=high_water_ms,
                grace_s=self.history.latest.rules.grace_s,
                accept_gap=self._accept_gap,
            )
            for number in range(count)
        }  # fmt: skip

    def _outbox(self, state: dict[str, Any] | None) -> OutboxPartition:
        senders = CUSTOMER_KEYS[: self.settings.flow.customer_shards]
        return OutboxPartition(self.engine, senders, threading.Event(), state)
