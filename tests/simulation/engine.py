"""The dataflow engine in small: real steps behind queues, epochs, snapshots of everything, one commit.

As the real one does it: items of one sender to one receiver stay in order, those of different senders mix as chance
will; at the end of an epoch everything is drained before any source is called again; only what was awake in the epoch
is asked for a snapshot; the epoch commits when all snapshots are there; after a crash everything goes back to the last
commit, while what sinks wrote stays written.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from config.revision import History
from config.settings import FlowSettings
from core.shard_keys import CUSTOMER_KEYS, ID_KEYS, TENANT_KEYS
from flows import routing
from flows.keyed import Build, KeyedStep
from operators.book import BookLogic
from operators.decode import Decoder
from operators.dedupe import DedupeLogic
from operators.dedupe_disk import Disk
from operators.dedupe_log import IdLog
from operators.rate import RateLogic
from operators.sums import partial_sums
from tests.simulation.fate import Fate
from tests.simulation.warehouse import TableSink, Warehouse

STAGES: Final = ("dedupe", "book", "rate")
KEYS: Final = {"dedupe": ID_KEYS, "book": TENANT_KEYS, "rate": CUSTOMER_KEYS}
TABLES_OF: Final = {
    "dedupe": ("usage_events", "usage_rejects", "intake_counts"),
    "book": ("usage_facts", "exceptions"),
    "rate": ("rated_usage", "exceptions"),
}
OUTBOX: Final = "outbox"

Node = tuple[str, int]
"""(stage, shard); sinks have the shard 0."""
Committed = dict[str, dict[str, Any]]
"""Last committed snapshot by participant."""


@dataclass
class Plan:
    """What one process of the flow is made of."""

    fate: Fate
    history: History
    streams: tuple[str, ...]
    shards: FlowSettings
    directory: Path
    disk: Disk
    seal_records: int
    warehouse: Warehouse
    readers: Callable[[Committed], dict[str, Any]]
    """Builds the reader partitions by name."""
    outbox: Callable[[dict[str, Any] | None], Any]
    """Builds the outbox partition."""
    after_outbox: Callable[[], None] = lambda: None
    """Called whenever the outbox was written to."""


@dataclass
class _Queue:
    """What waits for one node, by sender."""

    by_sender: dict[str, deque[Any]] = field(default_factory=dict)

    def put(self, sender: str, items: Iterable[Any]) -> None:
        self.by_sender.setdefault(sender, deque()).extend(items)

    def take(self, fate: Fate) -> list[Any]:
        """Take some items of some senders, each sender's in order."""
        chance = fate.random
        waiting = {sender: queue for sender, queue in self.by_sender.items() if queue}
        taken: list[Any] = []
        left = {sender: chance.randrange(1, len(queue) + 1) for sender, queue in waiting.items()}
        if len(left) > 1 and chance.random() < 0.3:
            del left[chance.choice(sorted(left))]
        while left:
            sender = chance.choice(sorted(left))
            taken.append(waiting[sender].popleft())
            left[sender] -= 1
            if not left[sender]:
                del left[sender]
        return taken

    def __bool__(self) -> bool:
        return any(self.by_sender.values())


class Life:
    """One life of the flow's processes, from a start to a crash."""

    def __init__(self, plan: Plan, committed: Committed) -> None:
        self._plan = plan
        self._fate = plan.fate
        self._committed = committed
        self._logs: list[IdLog] = []
        self._queues: dict[Node, _Queue] = {}
        self._awake: set[Node] = set()
        shards = plan.shards
        self._counts = {"dedupe": shards.id_shards, "book": shards.tenant_shards, "rate": shards.customer_shards}
        decoder = Decoder(plan.history, plan.streams, shards.id_shards)
        self._decode = routing.decode_to_id_shards(decoder, shards.id_shards)
        self._forward: dict[str, tuple[str, routing.Batch]] = {
            "dedupe": ("book", routing.to_tenant_shards(shards.tenant_shards)),
            "book": ("rate", routing.to_customer_shards(plan.history, shards.customer_shards)),
        }
        self._to_documents = routing.to_documents(plan.history)
        self._steps: dict[Node, KeyedStep] = {}
        self._sinks: dict[Node, Any] = {}
        self._running: Node | None = None
        self.documents: list[Any] = []

    def start(self) -> None:
        """Build what has a committed state; the rest is built by its first item."""
        plan = self._plan
        self._readers = plan.readers(self._committed)
        for stage in STAGES:
            for shard in range(self._counts[stage]):
                state = self._committed.get(KEYS[stage][shard])
                if state is not None:
                    self._fate.step(f"{stage}.start")
                    self._steps[stage, shard] = KeyedStep(stage, self._builder(stage), state)
        self._sinks = {(table, 0): TableSink(table, plan.warehouse, self._fate) for table in routing_tables()}
        self._sinks[OUTBOX, 0] = plan.outbox(self._committed.get(OUTBOX))
        plan.after_outbox()

    def epoch(self) -> Committed:
        """Run one epoch and return the snapshots to be committed."""
        chance = self._fate.random
        self.documents = []
        for name in chance.choices(sorted(self._readers), k=chance.randrange(1, 3)):
            self._read(name)
            for _ in range(chance.randrange(0, 4)):
                self._run_some()
        for name in sorted(self._readers):
            self._read(name)
        return self._close_epoch()

    def linger(self) -> None:
        """Let the other processes go on for a moment after one has died; nothing they do is committed."""
        for _ in range(self._fate.random.randrange(0, 3)):
            self._run_some(dead=self._running)

    def close(self) -> list[tuple[str, Any]]:
        """Release what a dead process releases; return inserts that may still be applied."""
        for log in self._logs:
            log.close()
        sinks = [(node[0], sink) for node, sink in self._sinks.items() if isinstance(sink, TableSink)]
        return [(table, item) for table, sink in sinks for item in sink.in_flight()]

    # --- inside ------------------------------------------------------------------------------------------

    def _read(self, name: str) -> None:
        items = self._readers[name].next_batch()
        cut = self._fate.random.randrange(len(items) + 1)
        for part in (items[:cut], items[cut:]):
            self._send("dedupe", name, self._decode(part))

    def _send(self, stage: str, sender: str, routed: Iterable[Any]) -> None:
        for _, (shard, item) in routed:
            self._queues.setdefault((stage, shard), _Queue()).put(sender, [(shard, item)])

    def _run_some(self, dead: Node | None = None) -> None:
        ready = sorted(node for node, queue in self._queues.items() if queue and node != dead)
        if ready:
            self._run(self._fate.random.choice(ready))

    def _run(self, node: Node) -> None:
        """Let one node process some of what waits for it."""
        stage, shard = node
        self._awake.add(node)
        self._running = node
        items = self._queues[node].take(self._fate)
        self._fate.step(f"{stage}.run {shard}")
        if stage not in STAGES:
            self._sinks[node].write_batch(items)
            if stage == OUTBOX:
                self._plan.after_outbox()
            return
        step = self._steps.get(node)
        if step is None:
            step = self._steps[node] = KeyedStep(stage, self._builder(stage), None)
        emitted, _ = step.on_batch(items)
        self._emit(stage, KEYS[stage][shard], emitted)

    def _emit(self, stage: str, key: str, emitted: list[Any]) -> None:
        keyed = [(key, item) for item in emitted]
        for table in TABLES_OF[stage]:
            self._write(table, key, [frame for _, frame in routing.to_table(table)(keyed)])
        if stage in self._forward:
            following, route = self._forward[stage]
            self._send(following, key, route(keyed))
            return
        drafted = list(self._to_documents(keyed))
        made = [document for _, document in routing.to_document_table(drafted)]
        self.documents += made
        self._write("financial_documents", key, made)
        self._write(OUTBOX, key, [item for _, item in drafted])

    def _write(self, sink: str, key: str, items: list[Any]) -> None:
        if items:
            self._queues.setdefault((sink, 0), _Queue()).put(key, items)

    def _close_epoch(self) -> Committed:
        """Drain everything and take the snapshots; a step gives its own as soon as nothing can reach it any more."""
        snapshots: Committed = {}
        for name in sorted(self._readers):
            snapshots[name] = self._readers[name].snapshot()
        while True:
            ready = sorted(node for node, queue in self._queues.items() if queue)
            quiet = sorted(node for node in self._awake if not self._reachable(node))
            if not ready and not quiet:
                return snapshots
            node = self._fate.random.choice(ready + quiet)
            if node in quiet:
                self._awake.discard(node)
                snapshots[self._name(node)] = self._snapshot(node)
            else:
                self._run(node)

    def _snapshot(self, node: Node) -> dict[str, Any]:
        self._fate.step(f"{node[0]}.snapshot {node[1]}")
        if node[0] in STAGES:
            return self._steps[node].snapshot()
        state: dict[str, Any] = self._sinks[node].snapshot()
        return state

    def _reachable(self, node: Node) -> bool:
        """Tell whether items wait for this node, or for one from which items come to it."""
        if self._queues.get(node):
            return True
        before = STAGES[: STAGES.index(node[0])] if node[0] in STAGES else STAGES
        return any(queue and other[0] in before for other, queue in self._queues.items())

    @staticmethod
    def _name(node: Node) -> str:
        return KEYS[node[0]][node[1]] if node[0] in KEYS else node[0]

    def _builder(self, stage: str) -> Build:
        plan, shards = self._plan, self._plan.shards
        senders = {"dedupe": sorted(self._readers), "book": ID_KEYS[: shards.id_shards]}

        def build(shard: int, state: dict[str, Any] | None) -> Any:
            key = KEYS[stage][shard]
            if stage == "dedupe":
                log = self._log("dedupe", key, state and state["log"])
                return DedupeLogic(
                    key, log, plan.history, shards.tenant_shards, partial_sums, state, senders=senders["dedupe"]
                )
            if stage == "book":
                log = self._log("unique", key, state and state["unique"])
                return BookLogic(key, senders["book"], plan.history, log, state)
            tenant_keys = TENANT_KEYS[: shards.tenant_shards]
            return RateLogic(key, shard, shards.customer_shards, tenant_keys, plan.history, state)

        return build

    def _log(self, kind: str, key: str, state: dict[str, Any] | None) -> IdLog:
        plan = self._plan
        log = IdLog.open(
            plan.directory / kind / key, state, disk=plan.disk, seal_records=plan.seal_records, background=False
        )
        self._logs.append(log)
        return log


def routing_tables() -> list[str]:
    """Return the tables the flow writes, each once."""
    return sorted({table for tables in TABLES_OF.values() for table in tables} | {"financial_documents"})
