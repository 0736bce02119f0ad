"""Connections and transactions of the ledger database.

SQLite runs with a write-ahead log, full synchronisation, foreign keys, and writers that take the write lock at
their beginning, so that a compare-and-set never fails half-way on a lock upgrade. PostgreSQL runs at its default
isolation; every state change names the state it expects.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, exc, inspect, make_url, text

from core.errors import FatalError, InvalidRequest, Unreachable
from sinks.ledger.migrations import MIGRATIONS, statements

BUSY_TIMEOUT_MS = 5_000
_KEEPALIVE = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 30_000}
"""PostgreSQL behind a network that swallows packets is away after half a minute, not after hours: seconds, and ms."""
_MIGRATE_LOCK = 4_711_020_231
_WRITER = "meterbridge_writer"
_BROKEN = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)


def connect(url: str) -> Engine:
    """Return an engine for that SQLAlchemy URL; nothing is opened yet.

    `sqlite:///path` or `postgresql://...` (the psycopg driver is filled in). Dispose of it when done.
    """
    parsed = make_url(url)
    if parsed.drivername in {"postgresql", "postgres"}:
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.get_backend_name() == "sqlite":
        if parsed.database and parsed.database != ":memory:":
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(parsed, connect_args={"timeout": BUSY_TIMEOUT_MS / 1000})
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    return create_engine(parsed, pool_pre_ping=True, connect_args={"connect_timeout": 5} | _KEEPALIVE)


def _set_up_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # transactions begin where we say, not where the driver guesses
    for pragma in (f"busy_timeout = {BUSY_TIMEOUT_MS}", "synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")
    until_s = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
        # Once per file. SQLite does not wait for other connections here, whatever its busy timeout.
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > until_s:
                raise
            time.sleep(0.01)


def _begin_sqlite(connection: Connection) -> None:
    writer = connection.get_execution_options().get(_WRITER, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writer else "BEGIN")


@contextmanager
def write(engine: Engine) -> Iterator[Connection]:
    """Run a transaction that writes; commits at its end, rolls back on any exception."""
    with engine.connect().execution_options(**{_WRITER: True}) as connection, connection.begin():
        yield connection


@contextmanager
def read(engine: Engine) -> Iterator[Connection]:
    """Run a transaction that only reads: one consistent picture on SQLite."""
    with engine.connect() as connection, connection.begin():
        yield connection


def unreachable(error: BaseException) -> bool:
    """Tell whether the database did not answer (or is locked or full), so that the same call may work later.

    SQLite gives the same class for a missing table, which no waiting mends: its code tells them apart.
    """
    cause = error.orig if isinstance(error, exc.DBAPIError) else None
    if isinstance(cause, sqlite3.Error) and cause.sqlite_errorcode == sqlite3.SQLITE_ERROR:
        return False
    if isinstance(error, exc.OperationalError | exc.InterfaceError | exc.TimeoutError):
        return True
    return isinstance(error, exc.DBAPIError) and error.connection_invalidated


def _unusable(engine: Engine, error: exc.DBAPIError) -> BaseException:
    """Return what to say of a database that does not answer, or whose file is none; any other error as it is."""
    place = engine.url.render_as_string(hide_password=True)
    if unreachable(error):
        return Unreachable(
            f"the ledger database {place} does not answer: {error.orig}. Start it, or correct METERBRIDGE_LEDGER__URL"
        )
    cause = error.orig
    if isinstance(cause, sqlite3.DatabaseError) and cause.sqlite_errorcode in _BROKEN:
        return FatalError(
            f"the ledger database {place} is damaged: {cause}. Restore the state directory from a backup, "
            "or correct METERBRIDGE_LEDGER__URL"
        )
    return error


def check_ready(engine: Engine) -> None:
    """Make sure the database answers and has the schema of this program.

    :raises Unreachable: it does not answer.
    :raises InvalidRequest: it was not migrated, or by a newer program.
    """
    place = engine.url.render_as_string(hide_password=True)
    try:
        with read(engine) as connection:
            known = set()
            if inspect(connection).has_table("migrations"):
                known = set(connection.execute(text("SELECT name FROM migrations")).scalars())
    except exc.DBAPIError as error:
        raise _unusable(engine, error) from error
    wanted = {name for name, _ in MIGRATIONS}
    if missing := sorted(wanted - known):
        message = f"the ledger database {place} lacks {', '.join(missing)}: run `meterbridge migrate`"
        raise InvalidRequest(message)
    if newer := sorted(known - wanted):
        message = f"the ledger database {place} was migrated by a newer version ({', '.join(newer)}): use that version"
        raise InvalidRequest(message)


def migrate(url: str) -> list[str]:
    """Bring the database to the newest schema and return the names of the migrations applied now.

    Each migration is one transaction with its record: dying here leaves it applied and recorded, or neither.
    Two at once wait for each other.

    :raises Unreachable: it does not answer.
    """
    engine = connect(url)
    applied: list[str] = []
    try:
        for name, texts in MIGRATIONS:
            with write(engine) as connection:
                if engine.dialect.name == "postgresql":
                    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _MIGRATE_LOCK})
                connection.exec_driver_sql(
                    "CREATE TABLE IF NOT EXISTS migrations (name TEXT PRIMARY KEY, applied_at_ms BIGINT NOT NULL)"
                )
                known = connection.execute(text("SELECT 1 FROM migrations WHERE name = :name"), {"name": name})
                if known.first() is not None:
                    continue
                for statement in statements(engine.dialect.name, texts):
                    connection.exec_driver_sql(statement)
                connection.execute(
                    text("INSERT INTO migrations (name, applied_at_ms) VALUES (:name, :at)"),
                    {"name": name, "at": time.time_ns() // 1_000_000},
                )
            applied.append(name)
    except exc.DBAPIError as error:
        raise _unusable(engine, error) from error
    finally:
        engine.dispose()
    return applied
