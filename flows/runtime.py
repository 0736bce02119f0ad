"""Runs the metering flow: lock, revisions, recovery, signals, and what an ending means.

What happens if the process dies:
 1. before the lock: nothing was touched.
 2. after recording a configuration revision: it is in the journal, known from the next hour; the next start finds it.
 3. while the recovery directory is made: an unfinished one is thrown away at the next start.
 4. inside an epoch: the epoch is replayed; rows and documents replace themselves by identity.
 5. after the last epoch, before `promote_all`: documents stay STAGED; the next start promotes them.
"""

import gc
import shutil
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import structlog
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from sqlalchemy import Engine

from config.journal import next_revision
from config.revision import Configuration, History
from config.settings import Settings
from core import faults
from core.clock import Clock, SystemClock
from core.directory_lock import DirectoryLock
from core.errors import InvalidRequest, MeterbridgeError, RetryableError, StopRequested
from core.redis_client import connect as connect_redis
from core.redis_client import server_time_ms
from flows import health, measurements, metering, recovery_check
from flows.clock_watch import ClockWatch
from flows.watch import Watch
from sinks import ledger, outbox
from sinks.clickhouse.meters import record_meters
from sinks.ledger import deployment, price_corrections, progress, revisions
from sinks.ledger.closes import LedgerCloses
from sinks.ledger.exceptions import raise_exception
from sources.redis_streams import RedisStreamSource

log = structlog.get_logger()

GC_ALLOCATIONS = 50_000


@dataclass(frozen=True, slots=True)
class Cluster:
    """One process of several: all addresses in the same order everywhere, and which one this is.

    :raises InvalidRequest: there is no such process. It would have a lock of its own, and run beside the one meant.
    """

    addresses: tuple[str, ...] = ()
    process_id: int = 0

    def __post_init__(self) -> None:
        """Refuse a number without an address."""
        if not 0 <= self.process_id < max(1, len(self.addresses)):
            message = (
                f"--process-id {self.process_id} is none of the {len(self.addresses)} processes of --addresses: name"
                " the addresses of all processes of the cluster, numbered from 0, or leave both options out"
            )
            raise InvalidRequest(message)


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended. `replayed`: the last epoch was not committed and is replayed at the next start.

    `entries_held`: read and not booked, since they lie ahead of the server's clock or history is being loaded; they
    are read again.
    """

    drained: bool
    stopped: bool
    replayed: bool
    entries_held: int = 0


def prepare_history(
    settings: Settings, configuration: Configuration, clock: Clock, *, first_only: bool = False
) -> History:
    """Journal the configuration if it is new, before it is used, and return all revisions.

    :param first_only: journal only the first one. A flow may be running that does not know a later one; it would go on
        past the hour from which that counts. So later ones are journaled by the start of the flow, under its lock.
    """
    engine = ledger.connect(settings.ledger_url)
    try:
        ledger.check_ready(engine)
        deployment.fix(engine, settings)
        with connect_redis(settings.redis) as client:
            redis_ms = server_time_ms(client, settings.redis)
        return journal(engine, configuration, redis_ms, clock, first_only=first_only)
    finally:
        engine.dispose()


def journal(
    engine: Engine, configuration: Configuration, redis_ms: int, clock: Clock, *, first_only: bool = False
) -> History:
    """Record the configuration if it is new, and return what is recorded, also by other processes meanwhile.

    The highest watermark ever staged stands for what left the readers: the promoted one is an epoch behind, and an
    epoch that reads history is hours long, while the server's clock may have been set back.
    """
    known = revisions.load_history(engine)
    approved = price_corrections.approved(engine)
    revision = next_revision(known, configuration, redis_ms, progress.high_water_ms(engine), approved)
    if revision is None or (first_only and known):
        return History(known)
    revisions.record_revision(engine, revision, clock.now())
    faults.reach("revision.recorded")
    log.info("A configuration revision was recorded.", version=revision.version, known_from_ms=revision.known_from_ms)
    return History(revisions.load_history(engine))


def _record_meters(settings: Settings, history: History) -> None:
    """Tell the dashboards how each meter merges; they are a view of the books, so nothing waits for them."""
    try:
        record_meters(settings.clickhouse, history.latest)
    except RetryableError as error:
        log.warning("The dashboards do not know new meters yet; run `meterbridge migrate` later.", cause=str(error))


def recovery(settings: Settings, process_id: int = 0) -> RecoveryConfig:
    """Return the engine's recovery configuration, made at the first start.

    The directory appears complete, by a rename: with only some of its partitions the engine would never start again.

    :raises StateMismatch: a partition is damaged, or they are not of one time.
    """
    directory = settings.state_dir / "recovery"
    if _is_made(directory):
        recovery_check.check(directory)
    else:
        unfinished = settings.state_dir / f"recovery.new-{process_id}"
        shutil.rmtree(unfinished, ignore_errors=True)  # a process died while making it
        unfinished.mkdir(parents=True)
        init_db_dir(unfinished, settings.flow.recovery_partitions)
        try:
            unfinished.replace(directory)
        except OSError:
            if not _is_made(directory):
                raise
            shutil.rmtree(unfinished)  # another process of the cluster was first
    return RecoveryConfig(str(directory))


def _record_loss(engine: Engine, clock: Clock, stream: str, after: str, detail: str) -> None:
    """Tell people for good what is missing from the books; the same loss seen again is one exception."""
    with ledger.write(engine) as connection:
        raise_exception(connection, "stream_loss", f"{stream}:{after}", detail, clock.now())


def _is_made(directory: Path) -> bool:
    return any(directory.glob("part-*.sqlite3"))


def run(
    settings: Settings,
    configuration: Configuration,
    *,
    drain: bool = False,
    accept_gap: bool = False,
    cluster: Cluster | None = None,
    clock: Clock | None = None,
    on_start: Callable[[threading.Event], None] | None = None,
    config_path: Path | None = None,
) -> Ending:
    """Run the metering flow until it is drained, stopped by SIGTERM or SIGINT, or fails.

    `config_path`: the files `configuration` came from; a metric tells when they change.

    :raises LockHeld: another flow runs on this state directory, or was started on this ledger with another one.
    :raises ClockSetBack: this machine's clock was set back; start it again.
    :raises MeterbridgeError: whatever made it stop, with what to do about it.
    """
    cluster = cluster or Cluster()
    clock = clock or SystemClock()
    faults.arm(settings.fault_point, settings.environment)
    stop = threading.Event()
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    with stop_on_signals(stop), DirectoryLock(settings.state_dir / f"flow-{cluster.process_id}.lock"):
        history = prepare_history(settings, configuration, clock)
        _record_meters(settings, history)
        engine = ledger.connect(settings.ledger_url)
        source = RedisStreamSource(
            settings,
            stop=stop,
            drain=drain,
            grace_s=history.latest.rules.grace_s,
            high_water_ms=outbox.high_water_ms(engine),
            accept_gap=accept_gap,
            on_loss=partial(_record_loss, engine, clock),
            clock=clock,
        )
        table_sink, outbox_sink = metering.production_sinks(settings, stop)
        parts = metering.Parts(source, table_sink, outbox_sink, LedgerCloses(engine, stop).at)
        flow = metering.build(settings, history, parts)
        server = health.serve(settings.metrics, settings.metrics.flow_port)
        log.info(
            "The metering flow runs.",
            streams=list(settings.redis.streams),
            workers=settings.flow.workers,
            metrics=f"http://{settings.metrics.host}:{server.server_port}/metrics",
        )
        watch = Watch(measurements.of_flow(settings, configuration, config_path), clock)
        watch.start()
        try:
            if on_start is not None:
                on_start(stop)
            with parts.resources, ClockWatch(clock):
                replayed = execute(flow, settings, stop, cluster)
            if not replayed and outbox_sink.fence is not None:
                outbox.promote_all(engine, outbox_sink.fence)
        finally:
            watch.stop()
            server.shutdown()
            engine.dispose()
        return Ending(
            drained=drain and not stop.is_set(),
            stopped=stop.is_set(),
            replayed=replayed,
            entries_held=source.entries_held,
        )


def execute(flow: Dataflow, settings: Settings, stop: threading.Event, cluster: Cluster) -> bool:
    """Run the engine to its end and return whether the last epoch will be replayed.

    The engine wraps what a callback raised; the cause that has a meaning for the user is raised instead.
    """
    from bytewax._bytewax import cluster_main  # noqa: PLC0415

    # Batches are few and large, and hold no cycles: the default would walk millions of objects for nothing.
    gc.set_threshold(GC_ALLOCATIONS, 20, 20)
    try:
        cluster_main(
            flow,
            list(cluster.addresses),
            cluster.process_id,
            epoch_interval=timedelta(seconds=settings.flow.epoch_s),
            recovery_config=recovery(settings, cluster.process_id),
            worker_count_per_proc=settings.flow.workers,
        )
    except BaseException as error:  # the engine raises its own, and what a callback raised is behind it
        cause = meaningful(error)
        if isinstance(cause, StopRequested):
            return True
        if cause is None:
            cause = recovery_check.explained(error, settings.state_dir / "recovery")
        if cause is not None and cause is not error:
            raise cause from error
        raise
    return False


def meaningful(error: BaseException) -> MeterbridgeError | None:
    """Return the first of our own errors in an exception's chain of causes."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        if isinstance(current, MeterbridgeError):
            return current
        seen.add(id(current))
        current = current.__cause__ or current.__context__
    return None


class stop_on_signals:  # noqa: N801
    """Context in which SIGTERM and SIGINT set the flag; the sources then end and a last snapshot is taken."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        """Install the handlers where this is the main thread; elsewhere the caller owns the flag."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._handle)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self._stop.set()

    def __exit__(self, *_: object) -> None:
        """Put the earlier handlers back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
