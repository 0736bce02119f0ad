"""`replay --to-dir`: rebuilds facts, rated rows and documents into files, and compares them with what is stored.

The replay is that of `verify`; what it made is written to a directory of its own before the scratch stores go. The rows
stand in the order of their keys, so two replays of the same books give the same files.

What happens if the process dies: files under way end in `.part`, and `summary.json`, which comes last, is not there.
Run it again: it begins anew and replaces what it finds of itself.
"""

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from config.settings import Settings
from core.clock import Clock, SystemClock
from core.errors import InvalidRequest
from flows.verify import TABLES, Replay, Report, Run, bounds_of, proven, scratch_settings
from sinks import ledger
from sinks.clickhouse.client import Client, connect, quoted
from sinks.ledger import revisions

SUMMARY: Final = "summary.json"
SCRATCH: Final = "replay"
_ROWS_PER_GROUP: Final = 100_000
_ARROW: Final = {"output_format_arrow_string_as_string": 1, "output_format_arrow_low_cardinality_as_dictionary": 0}

Format = Literal["parquet", "ndjson"]


@dataclass(frozen=True, slots=True)
class _File:
    name: str
    view: str
    hour: str
    """The time by which the table is read, an hour at a time."""
    order: str
    total: str
    """The column that is added up in the summary."""


FILES: Final = (
    _File(
        "facts",
        "usage_facts_current",
        "booked_minute",
        "tenant, meter, booked_minute, usage_minute, dimensions",
        "value",
    ),
    _File(
        "rated",
        "rated_usage_current",
        "booked_hour",
        "customer, contract, plan, plan_version, charge, price_row, period_start, usage_hour, accounting_period,"
        " line_kind, meter, status, quantity",
        "amount",
    ),
    _File("documents", "financial_documents_current", "booked_hour", "entity, customer, key, digest", "total"),
)


@dataclass(frozen=True, slots=True)
class Written:
    """One file: rows, the exact sum of one of its columns, and the SHA-256 of its bytes."""

    file: str
    rows: int
    total_of: str
    total: Decimal
    sha256: str


@dataclass(frozen=True, slots=True)
class Result:
    """What was proven and written."""

    report: Report
    files: list[Written]

    def to_plain(self) -> dict[str, Any]:
        """Return the result as plain values; totals as exact text."""
        files = [
            {
                "file": one.file,
                "rows": one.rows,
                "total_of": one.total_of,
                "total": f"{one.total:f}",
                "sha256": one.sha256,
            }
            for one in self.files
        ]
        return {"equal": self.report.equal, "files": files, "comparison": self.report.to_plain()}


def replay(
    settings: Settings,
    directory: Path,
    *,
    from_stored: bool = True,
    file_format: Format = "parquet",
    workers: Replay | None = None,
    stop: threading.Event | None = None,
    clock: Clock | None = None,
    progress_callback: Callable[[str], None] = lambda _: None,
) -> Result:
    """Replay into scratch stores, write what was made into the directory, and compare with what is stored.

    With `from_stored` the raw events in ClickHouse are all it reads; no stream has to be there.

    :raises InvalidRequest: the directory holds other files, or nothing was booked yet.
    :raises LockHeld: another replay is under way. :raises Unreachable: a server does not answer.
    """
    _claim(directory)
    scratch = scratch_settings(settings, workers or Replay(), SCRATCH)
    used_stop, used_clock = stop or threading.Event(), clock or SystemClock()

    def run_of(watermark_ms: int) -> Run:
        return Run(settings, scratch, watermark_ms, used_stop, used_clock, from_stored)

    with proven(settings, scratch, run_of, progress_callback) as report:
        progress_callback("writing the files")
        grace_ms = _grace_ms(settings)
        bounds = bounds_of(report.watermark_ms, grace_ms, report.stored_until_ms)
        with connect(scratch.clickhouse) as client:
            files = [_write(client, one, directory, file_format, bounds) for one in FILES]
        result = Result(report, files)
        with _replacing(directory / SUMMARY) as path:
            path.write_bytes(orjson.dumps(result.to_plain(), option=orjson.OPT_INDENT_2))
    return result


def _claim(directory: Path) -> None:
    """Make the directory, or take one that holds nothing but an earlier replay, whose summary goes first."""
    directory.mkdir(parents=True, exist_ok=True)
    ours = {SUMMARY, *(f"{one.name}.{suffix}" for one in FILES for suffix in ("parquet", "ndjson"))}
    foreign = [path.name for path in directory.iterdir() if path.name.removesuffix(".part") not in ours]
    if foreign:
        message = (
            f"{directory} holds {sorted(foreign)[0]} and maybe more: name a directory that is empty or does not exist"
        )
        raise InvalidRequest(message)
    for path in [directory / SUMMARY, *directory.iterdir()]:
        path.unlink(missing_ok=True)


def _grace_ms(settings: Settings) -> int:
    engine = ledger.connect(settings.ledger_url)
    try:
        return revisions.load_history(engine)[-1].rules.grace_s * 1000
    finally:
        engine.dispose()


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Give a path to write to, which takes the file's place once it is whole."""
    unfinished = path.with_name(f"{path.name}.part")
    yield unfinished
    unfinished.replace(path)


def _write(client: Client, what: _File, directory: Path, file_format: Format, bounds: dict[str, int]) -> Written:
    path = directory / f"{what.name}.{file_format}"
    rows, total = 0, Decimal(0)
    with _replacing(path) as unfinished, _opened(unfinished, file_format) as writer:
        for part in _parts(client, what, bounds):
            writer.write_table(part)
            rows += part.num_rows
            total += sum((value for value in part.column(what.total).to_pylist() if value is not None), Decimal(0))
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Written(path.name, rows, what.total, total, digest)


def _parts(client: Client, what: _File, bounds: dict[str, int]) -> Iterator[pa.Table]:
    """Yield the table's rows in order, joined to groups of about _ROWS_PER_GROUP; an hour is read at a time."""
    table = next(one for one in TABLES if one.name == what.view)
    columns = table.columns.replace("dimensions", "toJSONString(mapSort(dimensions)) AS dimensions")
    source = f"{quoted(client.settings.database)}.{what.view}"
    hours = client.query(
        f"SELECT DISTINCT toUnixTimestamp(toStartOfHour({what.hour})) AS hour FROM {source} WHERE {table.sealed}"  # noqa: S608
        " ORDER BY hour",
        bounds,
    ).result_rows
    text = (
        f"SELECT {columns} FROM {source} WHERE {table.sealed}"  # noqa: S608
        f" AND {what.hour} >= toDateTime({{from:UInt32}}, 'UTC') AND {what.hour} < toDateTime({{to:UInt32}}, 'UTC')"
        f" ORDER BY {what.order}"
    )
    waiting: list[pa.Table] = []
    for (hour,) in hours:
        waiting.append(client.query_arrow(text, {**bounds, "from": int(hour), "to": int(hour) + 3600}, _ARROW))
        if sum(part.num_rows for part in waiting) >= _ROWS_PER_GROUP:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


class _Writer(Protocol):
    def write_table(self, table: pa.Table) -> None: ...


@contextmanager
def _opened(path: Path, file_format: Format) -> Iterator[_Writer]:
    writer = _Parquet(path) if file_format == "parquet" else _Ndjson(path)
    try:
        yield writer
    finally:
        writer.close()


class _Parquet:
    """A Parquet file whose schema is that of the first rows; without rows it is an empty table."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: Any = None

    def write_table(self, table: pa.Table) -> None:
        """Append rows as a row group."""
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, table.schema, compression="zstd")
        self._writer.write_table(table)

    def close(self) -> None:
        """Write the end of the file."""
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, pa.schema([]))
        self._writer.close()


class _Ndjson:
    """A JSON object a line; decimals as exact text, times as RFC 3339."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")

    def write_table(self, table: pa.Table) -> None:
        """Append rows."""
        for batch in table.to_batches(max_chunksize=10_000):
            self._file.writelines(
                orjson.dumps(row, default=lambda value: f"{value:f}", option=orjson.OPT_APPEND_NEWLINE)
                for row in batch.to_pylist()
            )

    def close(self) -> None:
        """Close the file."""
        self._file.close()
