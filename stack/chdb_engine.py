"""The ClickHouse engine inside this process (chDB): one data directory, one process, bounded memory.

Each request gets a connection of its own, so that settings and the database of one never reach another;
connections cost under a millisecond and run beside each other.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from core.directory_lock import DirectoryLock

_ERROR_CODE: Final = re.compile(r"Code: (\d+)\.")
_NAME: Final = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")

CODE_UNKNOWN: Final = 1002
CODE_BAD_ARGUMENTS: Final = 36

_CONFIG: Final = """<clickhouse>
    <max_server_memory_usage>{memory_bytes_max}</max_server_memory_usage>
    <max_thread_pool_size>256</max_thread_pool_size>
    <mark_cache_size>67108864</mark_cache_size>
    <index_mark_cache_size>16777216</index_mark_cache_size>
    <uncompressed_cache_size>0</uncompressed_cache_size>
    <mmap_cache_size>64</mmap_cache_size>
    <compiled_expression_cache_size>16777216</compiled_expression_cache_size>
    <background_pool_size>2</background_pool_size>
</clickhouse>
"""


class EngineError(Exception):
    """The engine refused a statement; `code` is ClickHouse's error code."""

    def __init__(self, code: int, message: str) -> None:
        self.code = code
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one server may use."""

    memory_bytes_max: int = 4 << 30
    query_memory_bytes_max: int = 2 << 30
    result_bytes_max: int = 512 << 20
    threads_per_query: int = 2


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement with what belongs to it."""

    sql: str
    format: str = "TabSeparated"
    database: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Result:
    """A whole result in the statement's format."""

    body: bytes
    rows_read: int
    rows_written: int
    bytes_read: int
    elapsed_s: float


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def error_of(error: Exception) -> EngineError:
    """Return the engine's error with its code."""
    text = str(error)
    match = _ERROR_CODE.search(text)
    return EngineError(int(match[1]) if match else CODE_UNKNOWN, text)


def spool_directory(directory: Path) -> Path:
    """Return where inserts of the server on that directory are held: in shared memory where there is some."""
    memory = Path("/dev/shm")  # noqa: S108  # the name below is ours alone: made with mode 700, never shared
    name = hashlib.sha256(str(directory.resolve()).encode()).hexdigest()[:16]
    return (memory if os.access(memory, os.W_OK) else directory) / f"meterbridge-inserts-{name}"


class Engine:
    """The open engine. `execute` and `stream` may be called from many threads.

    :raises LockHeld: another process has this directory open.
    """

    def __init__(self, directory: Path, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        directory.mkdir(parents=True, exist_ok=True)
        self._lock = DirectoryLock(directory / "lock")
        config = directory / "config.xml"
        config.write_text(_CONFIG.format(memory_bytes_max=self.limits.memory_bytes_max))
        self._address = f"{(directory / 'data').resolve()}?config-file={config.resolve()}"
        self.spool_dir = spool_directory(directory)
        shutil.rmtree(self.spool_dir, ignore_errors=True)  # what a killed process left; the lock is ours
        self.spool_dir.mkdir(mode=0o700)
        from chdb import _chdb  # noqa: PLC0415

        self._module: Any = _chdb
        self._keeper = self._connect()
        """Held open for life: the engine ends with its last connection."""
        self.version: str = self._keeper.query("SELECT version()", "TSVRaw").bytes().decode().strip()
        self.timezone: str = self._keeper.query("SELECT timezone()", "TSVRaw").bytes().decode().strip()

    def _connect(self) -> Any:
        return self._module.connect(self._address)

    def _prepared(self, statement: Statement) -> Any:
        settings = {
            "async_insert": "0",
            "max_threads": str(self.limits.threads_per_query),
            "max_memory_usage": str(self.limits.query_memory_bytes_max),
            "max_result_bytes": str(self.limits.result_bytes_max),
        } | dict(statement.settings)
        for name in settings:
            if not _NAME.match(name):
                message = f"Code: {CODE_BAD_ARGUMENTS}. DB::Exception: {name!r} is not a setting's name"
                raise EngineError(CODE_BAD_ARGUMENTS, message)
        connection = self._connect()
        try:
            pairs = ", ".join(f"{name} = {_quoted(value)}" for name, value in settings.items())
            connection.query(f"SET {pairs}", "TSV")
            if statement.database:
                connection.query(f"USE `{statement.database.replace('`', '``')}`", "TSV")
        except BaseException:
            connection.close()
            raise
        return connection

    def execute(self, statement: Statement) -> Result:
        """Run a statement to its end.

        :raises EngineError: the engine refused it.
        """
        try:
            connection = self._prepared(statement)
            try:
                result = connection.query(statement.sql, statement.format, params=dict(statement.parameters))
                return Result(
                    body=result.bytes(),
                    rows_read=result.storage_rows_read(),
                    rows_written=result.rows_written(),
                    bytes_read=result.storage_bytes_read(),
                    elapsed_s=result.elapsed(),
                )
            finally:
                connection.close()
        except RuntimeError as error:
            raise error_of(error) from error

    def stream(self, statement: Statement) -> Iterator[bytes]:
        """Yield the result in pieces; for formats without header and footer only.

        :raises EngineError: the engine refused it, possibly after some pieces.
        """
        try:
            statement_unlimited = Statement(
                statement.sql,
                statement.format,
                statement.database,
                {"max_result_bytes": "0", **statement.settings},
                statement.parameters,
            )
            connection = self._prepared(statement_unlimited)
            try:
                result = connection.send_query(statement.sql, statement.format, params=dict(statement.parameters))
                ended = False
                try:
                    while True:
                        piece = connection.streaming_fetch_result(result)
                        if piece is None or piece.size() == 0:
                            ended = True
                            return
                        yield piece.bytes()
                finally:
                    if not ended:
                        connection.streaming_cancel_query(result)
            finally:
                connection.close()
        except RuntimeError as error:
            raise error_of(error) from error

    def close(self) -> None:
        """Close the engine, remove spooled inserts and release the directory."""
        self._keeper.close()
        shutil.rmtree(self.spool_dir, ignore_errors=True)
        self._lock.release()
