"""`verify`: replays the streams into empty scratch stores and compares them with the live ones, row by row.

This is the proof of the first idea of the design: what is stored is a function of the streams and the recorded
inputs alone. The replay uses the journaled revisions, not the files, and may use other batch, epoch and worker
settings; only sealed rows are compared, up to the watermark the live books had reached.

Writes nothing but the scratch database and directory, which it removes at the end.
"""

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from bytewax.inputs import FixedPartitionedSource
from pydantic import SecretStr
from sqlalchemy import Engine

from config.period_closes import ClosesAt
from config.revision import History
from config.settings import Settings
from core.clock import Clock, SystemClock
from core.directory_lock import DirectoryLock
from core.errors import FatalError, InvalidRequest
from flows import metering
from flows.runtime import Cluster, execute
from sinks import clickhouse as clickhouse_sinks
from sinks import ledger
from sinks.clickhouse.client import connect
from sinks.ledger import act_check, deployment, documents, progress, retention, revisions
from sinks.ledger.closes import LedgerCloses
from sinks.ledger.documents import ACT_KINDS
from sinks.outbox import promote_all
from sources.redis_streams import RedisStreamSource
from sources.stored_events import StoredEventSource
from sources.trimmed import trimmed_until_ms

MS_PER_MINUTE = 60_000
MS_PER_HOUR = 3_600_000
SAMPLES_MAX = 5
ROWS_PER_PASS = 2_000_000


@dataclass(frozen=True, slots=True)
class Comparison:
    """One table: how many rows on each side, how many are on one side only, and a few of them."""

    table: str
    rows_live: int
    rows_replayed: int
    live_only: int
    replayed_only: int
    samples: list[str] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        """Tell whether both sides hold the same rows."""
        return not (self.live_only or self.replayed_only) and self.rows_live == self.rows_replayed


@dataclass(frozen=True, slots=True)
class Report:
    """What was proven: the span of arrival time replayed and every table's comparison."""

    watermark_ms: int
    entries_first_ms: int
    entries_trimmed: int
    stored_until_ms: int
    """Events before it were replayed as ClickHouse stored them, since the streams hold them no longer; 0: none."""
    comparisons: list[Comparison]

    @property
    def equal(self) -> bool:
        """Tell whether everything is the same."""
        return all(comparison.equal for comparison in self.comparisons)

    def to_plain(self) -> dict[str, Any]:
        """Return the report as plain values."""
        return asdict(self) | {"equal": self.equal}


@dataclass(frozen=True, slots=True)
class _Table:
    name: str
    columns: str
    sealed: str
    """Condition that keeps what is sealed below the watermark; parameters `minute` and `hour`."""


TABLES = (
    _Table(
        "intake_counts_current",
        "stream, ingest_minute, outcome, reason, events",
        "ingest_minute < toDateTime({arrival_minute:Int64} * 60, 'UTC')"
        # Stored events know no duplicates: they leave a count and nothing else.
        " AND (outcome != 'duplicate' OR ingest_minute >= toDateTime({stored_minute:Int64} * 60, 'UTC'))",
    ),
    _Table(
        "usage_facts_current",
        "tenant, meter, dimensions, usage_minute, booked_minute, value, value_time, events, version",
        "sealed = 1 AND booked_minute < toDateTime({minute:Int64} * 60, 'UTC')",
    ),
    _Table(
        "rated_usage_current",
        "customer, contract, entity, plan, plan_version, charge, price_row, meter, period_start, usage_hour,"
        " booked_hour, accounting_period, line_kind, quantity, events, amount, revenue_amount, amount_before,"
        " amount_after, revenue_after, currency, config_version, status",
        "status != 'provisional' AND booked_hour < toDateTime({hour:Int64} * 3600, 'UTC')",
    ),
    _Table(
        "financial_documents_current",
        "key, digest, entity, customer, contract, currency, booked_hour, accounting_period, kind, total, lines",
        # Documents of acts are the poster's; the ledger check makes them again.
        f"kind NOT IN {ACT_KINDS} AND booked_hour < toDateTime({{hour:Int64}} * 3600, 'UTC')",
    ),
)


@dataclass(frozen=True, slots=True)
class Replay:
    """Settings of the replay that must not matter: other batch, epoch and worker settings."""

    workers: int = 2
    epoch_s: float = 0.7
    item_events: int = 1_500
    read_entries: int = 317


def verify(
    settings: Settings,
    *,
    replay: Replay | None = None,
    scratch_name: str = "verify",
    stop: threading.Event | None = None,
    clock: Clock | None = None,
    progress_callback: Callable[[str], None] = lambda _: None,
    from_stored: bool = False,
) -> Report:
    """Replay and compare.

    Events come from the streams where they still are, else, or if `from_stored`, from the raw events in ClickHouse.

    :raises InvalidRequest: nothing was booked yet, or `migrate` was not run.
    :raises LockHeld: another `verify` works in the same scratch directory.
    :raises Unreachable: a server does not answer.
    """
    scratch = scratch_settings(settings, replay or Replay(), scratch_name)
    used_stop, used_clock = stop or threading.Event(), clock or SystemClock()

    def run_of(watermark_ms: int) -> Run:
        return Run(settings, scratch, watermark_ms, used_stop, used_clock, from_stored)

    with proven(settings, scratch, run_of, progress_callback) as report:
        return report


@contextmanager
def proven(
    settings: Settings, scratch: Settings, run_of: Callable[[int], "Run"], progress_callback: Callable[[str], None]
) -> Iterator[Report]:
    """Prove into scratch stores that are there as long as this context; then they are removed.

    :param run_of: gives the run for the watermark that the live books have reached.
    :raises InvalidRequest: nothing was booked yet, or `migrate` was not run.
    :raises LockHeld: another run works in the same scratch directory.
    """
    live_ledger = ledger.connect(settings.ledger_url)
    try:
        ledger.check_ready(live_ledger)
        watermark_ms = progress.watermark_ms(live_ledger)
        if not watermark_ms:
            message = "nothing is booked yet: run `meterbridge run --drain` first"
            raise InvalidRequest(message)
        with DirectoryLock(settings.state_dir / f"{scratch.state_dir.name}.lock"):
            try:
                yield prove(run_of(watermark_ms), live_ledger, progress_callback)
            finally:
                drop_scratch(settings, scratch)
    finally:
        live_ledger.dispose()


@dataclass(frozen=True, slots=True)
class Run:
    """One replay: from where to where, and what must not matter. `resumable`: a flow is to go on from its state."""

    live: Settings
    scratch: Settings
    watermark_ms: int
    stop: threading.Event
    clock: Clock
    from_stored: bool = False
    resumable: bool = False


def prove(run: Run, live_ledger: Engine, progress_callback: Callable[[str], None] = lambda _: None) -> Report:
    """Replay up to the watermark into the emptied scratch stores, and compare. What was replayed stays there."""
    history = History(revisions.load_history(live_ledger))
    settings, scratch, watermark_ms = run.live, run.scratch, run.watermark_ms
    _empty_scratch(settings, scratch)
    progress_callback("replaying the events")
    span = _replay(run, history, LedgerCloses(live_ledger, run.stop).at)
    progress_callback("comparing")
    bounds = bounds_of(watermark_ms, history.latest.rules.grace_s * 1000, span.stored_until_ms)
    comparisons = _compare_tables(settings, scratch, bounds)
    comparisons.append(_compare_ledgers(live_ledger, scratch, bounds["hour"]))
    comparisons.append(_compare_digests("documents of acts", *act_check.stored_and_made(live_ledger)))
    return Report(watermark_ms, span.first_ms, span.trimmed, span.stored_until_ms, comparisons)


def scratch_settings(settings: Settings, replay: Replay, name: str) -> Settings:
    """Return settings that write to a database, ledger and directory of their own."""
    flow = settings.flow.model_copy(
        update={
            "workers": replay.workers,
            "epoch_s": replay.epoch_s,
            "item_events_max": replay.item_events,
        }
    )
    return settings.model_copy(
        update={
            "state_dir": settings.state_dir / name,
            "clickhouse": settings.clickhouse.model_copy(update={"database": f"{settings.clickhouse.database}_{name}"}),
            "ledger": settings.ledger.model_copy(update={"url": SecretStr("")}),
            "redis": settings.redis.model_copy(update={"read_entries": replay.read_entries}),
            "flow": flow,
        }
    )


def _empty_scratch(settings: Settings, scratch: Settings) -> None:
    drop_scratch(settings, scratch)
    scratch.state_dir.mkdir(parents=True)
    clickhouse_sinks.migrate(scratch.clickhouse)
    ledger.migrate(scratch.ledger_url)
    live, empty = ledger.connect(settings.ledger_url), ledger.connect(scratch.ledger_url)
    try:
        deployment.fix(empty, scratch)
        for revision, recorded_at in revisions.recorded(live):
            revisions.record_revision(empty, revision, recorded_at)
    finally:
        live.dispose()
        empty.dispose()


def drop_scratch(settings: Settings, scratch: Settings) -> None:
    """Remove the scratch database and directory."""
    if scratch.clickhouse.database == settings.clickhouse.database:
        message = "verify would drop the live database: this is a defect, please report it"
        raise FatalError(message)
    with connect(settings.clickhouse) as client:
        client.command("DROP DATABASE IF EXISTS {name:Identifier}", parameters={"name": scratch.clickhouse.database})
    shutil.rmtree(scratch.state_dir, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class _Span:
    first_ms: int
    trimmed: int
    stored_until_ms: int


def _replay(run: Run, history: History, closes_at: ClosesAt) -> _Span:
    scratch, stop = run.scratch, run.stop
    streams = RedisStreamSource(
        scratch,
        stop=stop,
        read_only=True,
        end_watermark_ms=run.watermark_ms,
        grace_s=history.latest.rules.grace_s,
        clock=run.clock,
    )
    # What is archived stands for itself: then no stream has to be there.
    alone = run.from_stored and not run.resumable
    trimmed, until_ms = (0, 0) if alone else trimmed_until_ms(run.live.redis)
    until_ms = stored_until_ms(until_ms, run.watermark_ms, from_stored=run.from_stored)
    source: FixedPartitionedSource[Any, Any] = streams
    if until_ms:
        _refuse_expired(run.live)
        live = run.live.model_copy(update={"flow": scratch.flow})
        # A flow that is to go on needs the reader's positions, even where it hands on nothing.
        source = StoredEventSource(live, until_ms, streams if run.resumable or until_ms < run.watermark_ms else None)
    table_sink, outbox_sink = metering.production_sinks(scratch, stop)
    parts = metering.Parts(source, table_sink, outbox_sink, closes_at)
    flow = metering.build(scratch, history, parts)
    with parts.resources:
        execute(flow, scratch, stop, Cluster())
    engine = ledger.connect(scratch.ledger_url)
    try:
        promote_all(engine)
    finally:
        engine.dispose()
    return _Span(streams.first_entry_ms, trimmed, until_ms)


def _refuse_expired(live: Settings) -> None:
    engine = ledger.connect(live.ledger_url)
    try:
        expired = retention.expired_before(engine).get("usage_events")
    finally:
        engine.dispose()
    if expired is not None:
        message = (
            f"raw events that arrived before {expired:%Y-%m-%d} expired by policy, so the books cannot be made again"
            " from the beginning: `meterbridge reconcile` compares what was kept of them with the facts, and"
            " `meterbridge verify --period` proves sealed months"
        )
        raise InvalidRequest(message)


def stored_until_ms(trimmed_until_ms: int, watermark_ms: int, *, from_stored: bool) -> int:
    """Return the arrival time before which events are taken from ClickHouse: a whole minute, or the watermark."""
    until_ms = watermark_ms if from_stored else -(-trimmed_until_ms // MS_PER_MINUTE) * MS_PER_MINUTE
    return min(until_ms, watermark_ms)


def bounds_of(watermark_ms: int, grace_ms: int, stored_until_ms: int) -> dict[str, int]:
    """Return the parameters of the tables' conditions: what is sealed below the watermark."""
    return {
        "arrival_minute": watermark_ms // MS_PER_MINUTE,
        "minute": (watermark_ms - grace_ms) // MS_PER_MINUTE,
        "hour": (watermark_ms - grace_ms) // MS_PER_HOUR,
        "stored_minute": stored_until_ms // MS_PER_MINUTE,
    }


def _compare_tables(settings: Settings, scratch: Settings, parameters: dict[str, int]) -> list[Comparison]:
    comparisons = []
    samples: list[list[str]]
    with connect(settings.clickhouse) as client:
        for table in TABLES:
            sides = [
                f"SELECT {table.columns} FROM {database}.{table.name} WHERE {table.sealed}"  # noqa: S608
                for database in (settings.clickhouse.database, scratch.clickhouse.database)
            ]
            counts = [_count(client, side, parameters) for side in sides]
            missing, samples = [0, 0], [[], []]
            passes = -(-max(1, *counts) // ROWS_PER_PASS)
            for remainder in range(passes):
                # Each side is held in memory by turns: many rows are compared in parts, told apart by a hash.
                part = f" AND cityHash64({table.columns}) % {passes} = {remainder}" if passes > 1 else ""
                for place, other in ((0, 1), (1, 0)):
                    query = f"{sides[place]}{part} EXCEPT {sides[other]}{part}"
                    number = _count(client, query, parameters)
                    missing[place] += number
                    if number and len(samples[place]) < SAMPLES_MAX:
                        # Around the whole: a limit behind EXCEPT is one of its second side.
                        text = f"SELECT * FROM ({query}) LIMIT {SAMPLES_MAX}"  # noqa: S608
                        rows = client.query(text, parameters=parameters).result_rows
                        samples[place].extend(f"only in {('live', 'replay')[place]}: {row}" for row in rows)
            kept = [sample for side in samples for sample in side[:SAMPLES_MAX]]
            comparisons.append(Comparison(table.name, counts[0], counts[1], missing[0], missing[1], kept))
    return comparisons


def _count(client: Any, query: str, parameters: dict[str, Any]) -> int:
    return int(client.query(f"SELECT count() FROM ({query})", parameters=parameters).result_rows[0][0])  # noqa: S608


def _compare_ledgers(live: Any, scratch: Settings, hour: int) -> Comparison:
    replayed_engine = ledger.connect(scratch.ledger_url)
    try:
        ours = documents.digests_before(live, hour)
        theirs = documents.digests_before(replayed_engine, hour)
    finally:
        replayed_engine.dispose()
    return _compare_digests("ledger documents", ours, theirs)


def _compare_digests(name: str, ours: dict[str, str], theirs: dict[str, str]) -> Comparison:
    live_only = ours.items() - theirs.items()
    replayed_only = theirs.items() - ours.items()
    samples = [f"only in live: {item}" for item in sorted(live_only)[:SAMPLES_MAX]]
    samples += [f"only in replay: {item}" for item in sorted(replayed_only)[:SAMPLES_MAX]]
    return Comparison(name, len(ours), len(theirs), len(live_only), len(replayed_only), samples)
