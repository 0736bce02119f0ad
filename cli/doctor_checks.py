"""What `meterbridge doctor` looks at. Each check gives findings and never changes stored data."""

import importlib.metadata
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from config.settings import ClickHouseSettings, RedisSettings, Settings
from core.errors import LockHeld, MeterbridgeError
from core.logging import without_password

State = Literal["ok", "warn", "fail"]

REDIS_MAJOR_MIN: Final = 7
CLICKHOUSE_MIN: Final = (24, 8)
CLOCK_DIFFERENCE_S_MAX: Final = 1.0
DISK_FREE_BYTES_FAIL: Final = 1 << 30
DISK_FREE_BYTES_WARN: Final = 10 << 30
_PACKAGES: Final = (
    "bytewax",
    "clickhouse-connect",
    "numpy",
    "orjson",
    "polars",
    "pydantic",
    "pydantic-settings",
    "redis",
    "sqlalchemy",
    "typer",
    "xxhash",
)
_PROBE: Final = "meterbridge:doctor"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report: what was looked at, how it is, and what to do if it is not well."""

    area: str
    check: str
    state: State
    detail: str
    fix: str = ""


def all_checks(settings: Settings) -> Iterator[Finding]:
    """Yield the findings of every area; an error in one does not end the others."""
    areas: tuple[tuple[str, Callable[[], Iterator[Finding]]], ...] = (
        ("python", python),
        ("redis", lambda: redis(settings.redis)),
        ("clickhouse", lambda: clickhouse(settings.clickhouse)),
        ("ledger", lambda: ledger(settings)),
        ("erp", lambda: _erp(settings)),
        ("state", lambda: state(settings)),
    )
    for area, check in areas:
        try:
            yield from check()
        except MeterbridgeError as error:
            yield Finding(area, "reachable", "fail", without_password(str(error)))


def _erp(settings: Settings) -> Iterator[Finding]:
    from cli.doctor_erp import erp  # noqa: PLC0415  # it uses this module's types

    return erp(settings)


def python() -> Iterator[Finding]:
    """Check the interpreter and the packages against what this version was made for."""
    version = ".".join(map(str, sys.version_info[:3]))
    is_good = (3, 11) <= sys.version_info[:2] < (3, 13)
    fix = "" if is_good else "use Python 3.11 or 3.12"
    yield Finding("python", "version", "ok" if is_good else "fail", version, fix)
    for name in _PACKAGES:
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding("python", name, "fail", "not installed", f"pip install {name}")
            continue
        if name == "bytewax" and found != "0.21.1":
            yield Finding("python", name, "fail", found, "install bytewax 0.21.1: recovery state depends on it")
            continue
        yield Finding("python", name, "ok", found)


def redis(settings: RedisSettings) -> Iterator[Finding]:
    """Check the event streams' server: version, rights, clock, durability, eviction, the streams.

    Raises Unreachable if it does not answer.
    """
    from core.redis_client import address, connect, guarded  # noqa: PLC0415

    with connect(settings) as client, guarded(settings):
        began_s = time.time()
        server_s, microseconds = client.time()
        middle_s = (began_s + time.time()) / 2
        yield Finding("redis", "reachable", "ok", address(settings))
        yield _redis_version(client)
        difference_s = abs(server_s + microseconds / 1e6 - middle_s)
        is_near = difference_s <= CLOCK_DIFFERENCE_S_MAX
        yield Finding(
            "redis",
            "clock",
            "ok" if is_near else "warn",
            f"{difference_s:.3f} s from this machine's",
            "" if is_near else "synchronise both clocks (NTP): arrival is the server's time",
        )
        yield from _redis_rights(client, settings)
        yield from _redis_durability(client)
        yield from _redis_streams(client, settings)


def _redis_version(client: Any) -> Finding:
    from redis.exceptions import ResponseError  # noqa: PLC0415

    try:
        info = client.info("server")
    except ResponseError as error:
        return Finding("redis", "version", "warn", f"cannot be read: {error}", "check that it is Redis 7 or Valkey")
    name = "Valkey" if "valkey_version" in info else "Redis"
    version = str(info.get("valkey_version") or info.get("redis_version", "0"))
    is_good = int(version.split(".", maxsplit=1)[0]) >= REDIS_MAJOR_MIN
    fix = "" if is_good else "use Redis 7 or Valkey: older ones do not count entries, so a loss could not be seen"
    return Finding("redis", "version", "ok" if is_good else "fail", f"{name} {version}", fix)


def _redis_rights(client: Any, settings: RedisSettings) -> Iterator[Finding]:
    """Run the commands the flow needs on a key of our own, which is deleted again."""
    from redis.exceptions import ResponseError  # noqa: PLC0415

    key = f"{_PROBE}:{os.getpid()}"
    commands: tuple[tuple[str, tuple[Any, ...]], ...] = (
        ("XADD", ("XADD", key, "*", "probe", "1")),
        ("XRANGE", ("XRANGE", key, "-", "+", "COUNT", "1")),
        ("XINFO", ("XINFO", "STREAM", key)),
        ("XGROUP", ("XGROUP", "CREATE", key, "probe", "$")),
        ("XSETID", ("XSETID", key, f"{int(time.time() * 1000) + 1000}-0")),
        ("EVAL", ("EVAL", "return redis.call('EXISTS', KEYS[1])", "1", key)),
    )
    denied: list[str] = []
    for name, command in commands:
        try:
            client.execute_command(*command)
        except ResponseError as error:
            denied.append(f"{name} ({error})")
    try:
        client.delete(key)
    except ResponseError as error:
        yield Finding("redis", "probe", "warn", f"the key {key} stays: {error}", "delete it; the flow never deletes")
    no_fence = next((text for text in denied if text.startswith("XSETID")), None)
    others = [text for text in denied if text != no_fence]
    if others:
        yield Finding("redis", "rights", "fail", "; ".join(others), "allow these commands to the user (ACL SETUSER)")
    else:
        yield Finding("redis", "rights", "ok", ", ".join(name for name, _ in commands if name != "XSETID"))
    yield _redis_fence(no_fence, settings)


def _redis_fence(denied: str | None, settings: RedisSettings) -> Finding:
    """Tell how the watermark of an idle stream is advanced, and whether that is permitted."""
    if settings.fence == "tick":
        reason = "XSETID is not permitted" if denied else "XSETID is permitted, and not used"
        return Finding("redis", "fence", "ok", f"tick mode: an idle stream gets `tick` entries ({reason})")
    if denied is None:
        return Finding("redis", "fence", "ok", "XSETID: an idle stream's last id is moved to the server's clock")
    return Finding(
        "redis",
        "fence",
        "fail",
        f"not permitted: {denied}; the flow would stop at the first idle stream",
        "set METERBRIDGE_REDIS__FENCE=tick (idle streams then get `tick` entries), or allow XSETID (ACL SETUSER)",
    )


def _redis_durability(client: Any) -> Iterator[Finding]:
    from redis.exceptions import ResponseError  # noqa: PLC0415

    try:
        values = {
            name: str(client.config_get(name).get(name, "?"))
            for name in ("appendonly", "appendfsync", "maxmemory-policy")
        }
    except ResponseError as error:
        yield Finding("redis", "durability", "warn", f"cannot be read: {error}", "check that appendonly is on")
        return
    is_kept = values["appendonly"] == "yes"
    yield Finding(
        "redis",
        "appendonly",
        "ok" if is_kept else "warn",
        f"appendonly {values['appendonly']}, appendfsync {values['appendfsync']}",
        "" if is_kept else "set appendonly yes: without it a crash of the server loses events",
    )
    if is_kept and values["appendfsync"] == "no":
        yield Finding("redis", "appendfsync", "warn", "no", "set everysec, or always: events may be lost otherwise")
    policy = values["maxmemory-policy"]
    is_safe = policy == "noeviction"
    fix = "" if is_safe else "set maxmemory-policy noeviction: the server may delete streams otherwise"
    yield Finding("redis", "eviction", "ok" if is_safe else "fail", policy, fix)


def _redis_streams(client: Any, settings: RedisSettings) -> Iterator[Finding]:
    from redis.exceptions import ResponseError  # noqa: PLC0415

    missing, other, lengths = [], [], []
    for stream in settings.streams:
        try:
            kind = client.type(stream)
            length = client.xlen(stream) if kind == b"stream" else 0
        except ResponseError as error:
            yield Finding("redis", "streams", "warn", f"cannot be read: {error}", "the flow does without TYPE and XLEN")
            return
        if kind == b"none":
            missing.append(stream)
        elif kind != b"stream":
            other.append(f"{stream} is a {kind.decode()}")
        else:
            lengths.append(f"{stream}: {length:,}")
    if other:
        yield Finding("redis", "streams", "fail", ", ".join(other), "name other streams in settings.redis.streams")
    elif missing:
        yield Finding(
            "redis", "streams", "warn", f"missing: {', '.join(missing)}", "the flow makes them when it starts"
        )
    else:
        yield Finding("redis", "streams", "ok", ", ".join(lengths))


def clickhouse(settings: ClickHouseSettings) -> Iterator[Finding]:
    """Check ClickHouse: version, rights, schema. Raises Unreachable or FatalError if it cannot be used."""
    from sinks.clickhouse.client import connect, quoted  # noqa: PLC0415
    from sinks.clickhouse.schema import schema_version  # noqa: PLC0415

    with connect(settings) as client:
        yield Finding("clickhouse", "reachable", "ok", without_password(settings.url))
        parts = tuple(int(part) for part in client.version.split(".")[:2])
        is_good = parts >= CLICKHOUSE_MIN
        fix = "" if is_good else f"use {'.'.join(map(str, CLICKHOUSE_MIN))} or newer"
        yield Finding("clickhouse", "version", "ok" if is_good else "warn", client.version, fix)
        database = client.query(
            "SELECT count() FROM system.databases WHERE name = {name:String}", {"name": settings.database}
        ).result_rows[0][0]
        if not database:
            yield Finding(
                "clickhouse", "database", "warn", f"{settings.database} is missing", "run `meterbridge migrate`"
            )
            return
        table = f"{quoted(settings.database)}.{quoted(f'doctor_{os.getpid()}')}"
        try:
            client.command(f"CREATE TABLE {table} (probe UInt8) ENGINE = Memory")
            client.command(f"INSERT INTO {table} VALUES (1)")  # noqa: S608  # quoted above
        finally:
            client.command(f"DROP TABLE IF EXISTS {table}")
        yield Finding("clickhouse", "rights", "ok", "create, insert, drop")
    applied, newest = schema_version(settings)
    state: State = "ok" if applied == newest else "warn" if applied < newest else "fail"
    fix = {"ok": "", "warn": "run `meterbridge migrate`", "fail": "install the newer version it was made by"}[state]
    yield Finding("clickhouse", "schema", state, f"{applied} of {newest}", fix)


def ledger(settings: Settings) -> Iterator[Finding]:
    """Check the ledger database: reachable and migrated."""
    from sqlalchemy import exc, make_url, text  # noqa: PLC0415

    from sinks.ledger import connect, read  # noqa: PLC0415
    from sinks.ledger.migrations import MIGRATIONS  # noqa: PLC0415

    try:
        url = make_url(settings.ledger_url)
    except exc.ArgumentError:
        fix = "write sqlite:///path or postgresql://user@host/database in METERBRIDGE_LEDGER__URL"
        yield Finding("ledger", "reachable", "fail", "the URL cannot be read", fix)
        return
    shown = url.render_as_string(hide_password=True)
    is_file = url.get_backend_name() == "sqlite"
    if is_file and url.database and not Path(url.database).exists():
        yield Finding("ledger", "reachable", "warn", f"{shown} does not exist yet", "run `meterbridge migrate`")
        return
    try:
        engine = connect(settings.ledger_url)
    except (ModuleNotFoundError, exc.NoSuchModuleError) as error:
        yield Finding("ledger", "driver", "fail", f"{shown}: {error}", "pip install meterbridge[postgres]")
        return
    try:
        with read(engine) as connection:
            yield Finding("ledger", "reachable", "ok", shown)
            names = {row[0] for row in connection.execute(text("SELECT name FROM migrations"))}
    except exc.OperationalError as error:
        if "no such table" in str(error.orig):
            yield Finding("ledger", "schema", "warn", "empty", "run `meterbridge migrate`")
            return
        fix = "start the database, or correct METERBRIDGE_LEDGER__URL"
        yield Finding("ledger", "reachable", "fail", f"{shown}: {error.orig}".strip(), fix)
        return
    except exc.ProgrammingError:
        yield Finding("ledger", "schema", "warn", "empty", "run `meterbridge migrate`")
        return
    finally:
        engine.dispose()
    pending = [name for name, _ in MIGRATIONS if name not in names]
    detail = f"pending: {', '.join(pending)}" if pending else f"{len(names)} migrations applied"
    yield Finding(
        "ledger", "schema", "warn" if pending else "ok", detail, "run `meterbridge migrate`" if pending else ""
    )


def state(settings: Settings) -> Iterator[Finding]:
    """Check the state directory: writable, room on its disk, and whether a flow runs on it."""
    directory = settings.state_dir
    existing = next(path for path in (directory.absolute(), *directory.absolute().parents) if path.exists())
    if not os.access(existing, os.W_OK):
        yield Finding(
            "state", "directory", "fail", f"{existing} is not writable", "change its owner, or METERBRIDGE_STATE_DIR"
        )
    else:
        detail = str(directory) if directory.exists() else f"{directory} will be created"
        yield Finding("state", "directory", "ok", detail)
    free = shutil.disk_usage(existing).free
    level: State = "ok" if free >= DISK_FREE_BYTES_WARN else "warn" if free >= DISK_FREE_BYTES_FAIL else "fail"
    fix = "" if level == "ok" else "make room: dedupe log and recovery need it, and a full disk stops the flow"
    yield Finding("state", "disk", level, f"{free / (1 << 30):.1f} GiB free", fix)
    yield _lock(directory)


def _lock(directory: Path) -> Finding:
    from core.directory_lock import DirectoryLock  # noqa: PLC0415

    held = []
    for path in sorted(directory.glob("flow-*.lock")):
        try:
            DirectoryLock(path).release()
        except LockHeld as error:
            held.append(str(error).split(":")[0])
    return Finding("state", "lock", "ok", "; ".join(held) or "no flow runs on this directory")
