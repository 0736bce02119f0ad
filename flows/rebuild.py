"""`rebuild`: makes lost or damaged working state (recovery partitions and id logs) again from the events.

The events are replayed from the beginning into scratch stores, exactly as `verify` does it, up to the time to which
books are durable. Only if all counts, facts, rated rows and documents are the same as the stored ones, the state of
that replay takes the place of the lost one; the flow then goes on from there. Tables and books are only read, but for
documents that the lost state had staged and never called durable: they are taken back, for the flow to make them again.

What happens if the process dies:
 1. before the exchange: nothing was touched but the scratch stores, which the next `rebuild` empties; or staged
    documents are gone as well, and `run` refuses a state that had them.
 2. inside the exchange: old directories are beside the others under `replaced-<time>`, and the new recovery directory,
    which comes last, is not there yet. `run` refuses such a state, and `rebuild` begins again.
 3. behind it: done; scratch stores are left and are removed by the next `rebuild` or `verify`.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from sqlalchemy import Engine

from config.settings import Settings
from core.clock import Clock, SystemClock
from core.directory_lock import DirectoryLock
from core.errors import Disagreement, InvalidRequest
from flows import verify as verification
from flows.verify import Replay, Report, Run
from operators.dedupe_disk import SystemDisk
from sinks import ledger, outbox
from sinks.clickhouse.client import Client, connect, quoted
from sinks.ledger import progress
from sources.trimmed import trimmed_per_stream

DIRECTORIES: Final = ("recovery", "dedupe", "unique")
"""What is exchanged, in the order in which it leaves; it comes in the reverse order."""
SCRATCH: Final = "rebuild"


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be done: up to when books are durable, from where events come, which directories are replaced."""

    watermark_ms: int
    entries_trimmed: int
    stored_until_ms: int
    """Events that arrived before it come from ClickHouse, later ones from the streams; 0: all from the streams."""
    directories: tuple[str, ...]
    """Those that exist and would be moved aside."""


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What was done: the comparison with the stored rows, and where the old directories are now."""

    plan: Plan
    report: Report
    aside: str
    """Empty if there was nothing to move."""


def plan(settings: Settings, *, from_stored: bool = False) -> Plan:
    """Check what can be checked without a replay, and return what would be done. Changes nothing.

    :raises InvalidRequest: nothing was booked yet, or a part of the events is neither in the streams nor stored.
    :raises LockHeld: a flow runs.
    """
    with _locked(settings), _ledger(settings) as engine:
        return _plan(settings, engine, from_stored)


def rebuild(
    settings: Settings,
    *,
    from_stored: bool = False,
    replay: Replay | None = None,
    stop: threading.Event | None = None,
    clock: Clock | None = None,
    progress_callback: Callable[[str], None] = lambda _: None,
) -> Rebuilt:
    """Replay, compare, and put the replay's state in the place of the lost one.

    :raises InvalidRequest: as `plan`. :raises LockHeld: a flow runs.
    :raises Disagreement: the replay differs from what is stored; nothing was changed.
    """
    clock = clock or SystemClock()
    with _locked(settings), _ledger(settings) as engine:
        planned = _plan(settings, engine, from_stored)
        scratch = verification.scratch_settings(settings, replay or Replay(), SCRATCH)
        run = Run(
            settings,
            scratch,
            planned.watermark_ms,
            stop or threading.Event(),
            clock,
            from_stored=from_stored,
            resumable=True,
        )
        try:
            report = verification.prove(run, engine, progress_callback)
            if not report.equal:
                raise _differs(report)
            progress_callback("exchanging the directories")
            outbox.take_back(engine)
            aside = _exchange(settings.state_dir, scratch.state_dir, f"replaced-{clock.now():%Y%m%dT%H%M%S.%fZ}")
        finally:
            verification.drop_scratch(settings, scratch)
        return Rebuilt(planned, report, str(aside) if aside else "")


@contextmanager
def _locked(settings: Settings) -> Iterator[None]:
    """Keep every process of the flow out for as long as this takes."""
    settings.state_dir.mkdir(parents=True, exist_ok=True)  # it may be what was lost
    names = {"flow-0.lock", f"{SCRATCH}.lock", *(path.name for path in settings.state_dir.glob("flow-*.lock"))}
    with ExitStack() as locks:
        for name in sorted(names):
            locks.enter_context(DirectoryLock(settings.state_dir / name))
        yield


@contextmanager
def _ledger(settings: Settings) -> Iterator[Engine]:
    engine = ledger.connect(settings.ledger_url)
    try:
        ledger.check_ready(engine)
        yield engine
    finally:
        engine.dispose()


def _plan(settings: Settings, engine: Engine, from_stored: bool) -> Plan:
    watermark_ms = progress.watermark_ms(engine)
    if not watermark_ms:
        message = (
            f"no document was made yet, so nothing depends on what is in {settings.state_dir}: move its directories "
            f"{', '.join(DIRECTORIES)} away and start `meterbridge run`, which begins with the first entry"
        )
        raise InvalidRequest(message)
    gone = trimmed_per_stream(settings.redis)
    trimmed = sum(count for count, _ in gone.values())
    gone_until_ms = max((until_ms for _, until_ms in gone.values()), default=0)
    until_ms = verification.stored_until_ms(gone_until_ms, watermark_ms, from_stored=from_stored)
    with connect(settings.clickhouse) as client:
        for stream, (_, stream_until_ms) in gone.items():
            _check_not_read_and_gone(client, stream, watermark_ms, stream_until_ms)
        if until_ms:
            _check_stored(client, until_ms)
    present = tuple(name for name in DIRECTORIES if (settings.state_dir / name).exists())
    return Plan(watermark_ms, trimmed, until_ms, present)


def _check_not_read_and_gone(client: Client, stream: str, watermark_ms: int, until_ms: int) -> None:
    """Refuse if entries that were read behind the watermark are trimmed: the flow would read them again, and cannot."""
    database = quoted(client.settings.database)
    counts = " UNION ALL ".join(
        f"SELECT count() AS rows FROM {database}.{table}_current WHERE stream = {{stream:String}}"  # noqa: S608
        " AND ingest_time >= fromUnixTimestamp64Milli({from:Int64}, 'UTC')"
        " AND ingest_time < fromUnixTimestamp64Milli({until:Int64}, 'UTC')"
        for table in ("usage_events", "usage_rejects")
    )
    parameters = {"stream": stream, "from": watermark_ms, "until": until_ms - 1}
    rows = int(client.query(f"SELECT sum(rows) FROM ({counts})", parameters=parameters).result_rows[0][0] or 0)  # noqa: S608
    if rows:
        message = (
            f"books are durable up to {_time(watermark_ms)}, but {stream} was trimmed up to {_time(until_ms)}: "
            f"{rows:,} events read from between cannot be read again. Restore the state directory from a backup"
        )
        raise InvalidRequest(message)


def _check_stored(client: Client, until_ms: int) -> None:
    """Refuse if ClickHouse holds fewer events of that time than were counted: the comparison could only fail."""
    database = quoted(client.settings.database)
    before = "toDateTime({minute:Int64} * 60, 'UTC')"
    counted = (
        f"SELECT sum(events) FROM {database}.intake_counts_current"  # noqa: S608
        f" WHERE outcome = 'accepted' AND ingest_minute < {before}"
    )
    stored = f"SELECT count() FROM {database}.usage_events_current WHERE ingest_time < {before}"  # noqa: S608
    parameters = {"minute": until_ms // verification.MS_PER_MINUTE}
    accepted, kept = (
        int(client.query(query, parameters=parameters).result_rows[0][0] or 0) for query in (counted, stored)
    )
    if kept < accepted:
        message = (
            f"{accepted:,} events that arrived before {_time(until_ms)} were accepted, but ClickHouse holds only "
            f"{kept:,} of them and the streams hold them no longer (METERBRIDGE_CLICKHOUSE__RETENTION_DAYS): the state "
            "cannot be made again. Restore the state directory from a backup"
        )
        raise InvalidRequest(message)


def _time(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _differs(report: Report) -> Disagreement:
    differing = [row for row in report.comparisons if not row.equal]
    samples = "\n".join(sample for row in differing for sample in row.samples)
    return Disagreement(
        f"nothing was changed, since a replay of the events differs from what is stored in "
        f"{', '.join(row.table for row in differing)}. If the streams were restored from a backup, try --from-stored; "
        f"if the program or the configuration is another one, use those that made the books.\n{samples}"
    )


def _exchange(state_dir: Path, scratch: Path, name: str) -> Path | None:
    """Move the old directories aside and the new ones in, the recovery directory last. Nothing is deleted."""
    disk = SystemDisk()
    old = [directory for directory in DIRECTORIES if (state_dir / directory).exists()]
    aside = state_dir / name
    if old:
        aside.mkdir()
    for directory in old:
        (state_dir / directory).replace(aside / directory)
        disk.sync_directory(state_dir)
    for directory in reversed(DIRECTORIES):
        if (scratch / directory).exists():  # `unique` only if a meter needs it
            (scratch / directory).replace(state_dir / directory)
            disk.sync_directory(state_dir)
    return aside if old else None
