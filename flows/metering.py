"""The metering flow: the way of an event from a stream to facts, rated rows and documents. Wiring only.

    read -> decode -> [id shard] dedupe -> [tenant shard] book -> [customer shard] rate -> document -> outbox

Every sink is a fixed-partitioned one that flushes in `snapshot()`: the epoch commits only after its rows are
in ClickHouse and its documents are staged in the ledger.
"""

import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource
from bytewax.operators import KeyedStream, StatefulBatchLogic
from bytewax.outputs import FixedPartitionedSink

from config.period_closes import ClosesAt, none_recorded
from config.revision import History
from config.settings import Settings
from core.collector import loading
from core.shard_keys import CUSTOMER_KEYS, ID_KEYS, TENANT_KEYS
from flows import routing, steps
from flows.keyed import Build, KeyedStep
from operators.book import BookLogic
from operators.decode import Decoder
from operators.decode_scan import Compiled
from operators.dedupe import DedupeLogic
from operators.dedupe_compiled import Probes
from operators.dedupe_log import IdLog
from operators.rate import RateLogic
from operators.sums import partial_sums

SinkFactory = Callable[[str], FixedPartitionedSink[Any, Any]]


@dataclass(frozen=True, slots=True)
class Parts:
    """What the flow is wired from; tests and `verify` pass their own."""

    source: FixedPartitionedSource[Any, Any]
    table_sink: SinkFactory
    outbox: FixedPartitionedSink[Any, Any]
    closes_at: ClosesAt = none_recorded
    """Recorded closes of accounting periods, asked once per rated hour."""
    resources: ExitStack = field(default_factory=ExitStack)
    """Takes what the steps open; whoever runs the flow closes it when the engine has ended."""


def build(settings: Settings, history: History, parts: Parts) -> Dataflow:
    """Return the metering dataflow."""
    flow = Dataflow(steps.FLOW)
    shards = settings.flow
    compiled = Compiled(settings.compiled_dir, shards.compiled_after_events) if shards.compiled else None
    decoder = Decoder(history, settings.redis.streams, shards.id_shards, compiled=compiled)
    logs = IdLogs(
        parts.resources, Probes(settings.compiled_dir, shards.compiled_after_events) if shards.compiled else None
    )

    raw = op.input(steps.READ, flow, parts.source)
    decoded = op.flat_map_batch(steps.DECODE, raw, routing.decode_to_id_shards(decoder, shards.id_shards))
    deduped = _keyed(steps.DEDUPE, decoded, dedupe_builder(settings, history, logs))
    for table in ("usage_events", "usage_rejects", "intake_counts"):
        _write(table, deduped, parts)

    partials = op.flat_map_batch(steps.TO_TENANT, deduped, routing.to_tenant_shards(shards.tenant_shards))
    booked = _keyed(steps.BOOK, partials, book_builder(settings, history, logs))
    _write("usage_facts", booked, parts)

    facts = op.flat_map_batch(steps.TO_CUSTOMER, booked, routing.to_customer_shards(history, shards.customer_shards))
    rated = _keyed(steps.RATE, facts, rate_builder(settings, history, parts.closes_at))
    _write("rated_usage", rated, parts)
    _write("exceptions", op.merge("all_exceptions", booked, rated), parts)

    drafted = op.flat_map_batch(steps.DOCUMENT, rated, routing.to_documents(history))
    documents = op.flat_map_batch("to_financial_documents", drafted, routing.to_document_table)
    op.output("write_financial_documents", documents, parts.table_sink("financial_documents"))
    op.output(steps.OUTBOX, drafted, parts.outbox)
    return flow


def _keyed(step: str, up: KeyedStream[Any], build_logic: Build) -> KeyedStream[Any]:
    def builder(state: dict[str, Any] | None) -> StatefulBatchLogic[Any, Any, Any]:
        return KeyedStep(step, build_logic, state)

    return op.stateful_batch(step, up, builder)


def _write(table: str, up: KeyedStream[Any], parts: Parts) -> None:
    rows = op.flat_map_batch(f"to_{table}", up, routing.to_table(table))
    op.output(f"write_{table}", rows, parts.table_sink(table))


def reader_names(settings: Settings) -> list[str]:
    """Return the names under which the readers send markers."""
    return [f"reader-{index:02d}" for index in range(settings.flow.readers)]


class IdLogs:
    """Opens the id logs of a process.

    :param resources: closes them. :param probes: loads compiled look-ups; None: do without.
    """

    def __init__(self, resources: ExitStack, probes: Probes | None) -> None:
        self._resources = resources
        self._probes = probes

    def open(self, directory: Path, state: dict[str, Any] | None) -> IdLog:
        """Open the log of a shard directory for its state; raises as `IdLog.open`."""
        log = IdLog.open(directory, state, probes=self._probes)
        self._resources.callback(log.close)
        return log


def dedupe_builder(settings: Settings, history: History, logs: IdLogs) -> Build:
    """Return the builder of one dedupe shard."""

    def build_logic(shard: int, state: dict[str, Any] | None) -> DedupeLogic:
        key = ID_KEYS[shard]
        log = logs.open(settings.state_dir / "dedupe" / key, state and state["log"])
        return DedupeLogic(
            key,
            log,
            history,
            settings.flow.tenant_shards,
            partial_sums,
            state,
            senders=reader_names(settings),
        )

    return build_logic


def book_builder(settings: Settings, history: History, logs: IdLogs) -> Build:
    """Return the builder of one book shard."""
    senders = ID_KEYS[: settings.flow.id_shards]

    def build_logic(shard: int, state: dict[str, Any] | None) -> BookLogic:
        key = TENANT_KEYS[shard]
        log = logs.open(settings.state_dir / "unique" / key, state and state["unique"])
        return BookLogic(key, senders, history, log, state)

    return build_logic


def rate_builder(settings: Settings, history: History, closes_at: ClosesAt) -> Build:
    """Return the builder of one rate shard."""
    senders = TENANT_KEYS[: settings.flow.tenant_shards]

    def build_logic(shard: int, state: dict[str, Any] | None) -> RateLogic:
        key, shards = CUSTOMER_KEYS[shard], settings.flow.customer_shards
        return RateLogic(key, shard, shards, senders, history, state, closes_at)

    return build_logic


def production_sinks(settings: Settings, stop: threading.Event) -> tuple[SinkFactory, Any]:
    """Return the ClickHouse sink factory and the outbox sink of a real run."""
    with loading():
        from sinks.clickhouse.sink import ClickHouseSink  # noqa: PLC0415
        from sinks.outbox import OutboxSink  # noqa: PLC0415

    tables = partial(ClickHouseSink, settings=settings, stop=stop, partitions=settings.flow.workers)
    senders = CUSTOMER_KEYS[: settings.flow.customer_shards]
    return tables, OutboxSink(settings, senders=senders, stop=stop)
