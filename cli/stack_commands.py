"""`meterbridge up`, `down` and `status`: the embedded servers, and how far the books are."""

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType

from cli.context import context
from cli.output import emit, key_values, table
from core.errors import InvalidRequest, MeterbridgeError

if TYPE_CHECKING:
    from config.settings import Settings
    from stack.supervisor import ServerStatus

_MEBIBYTE = 1 << 20


def up() -> None:
    """Start the embedded Valkey and ClickHouse, and wait until they answer; data are kept between starts."""
    from stack.supervisor import Stack  # noqa: PLC0415  # keeps `--help` fast

    servers = Stack(context().settings).start()
    emit({"servers": [asdict(server) for server in servers]}, _servers_table(servers))


def down() -> None:
    """Stop the embedded servers that this state directory started; their data stay."""
    from stack.supervisor import Stack  # noqa: PLC0415

    servers = Stack(context().settings).stop()
    emit({"servers": [asdict(server) for server in servers]}, _servers_table(servers))


def status() -> None:
    """Show the servers, the streams, whether a flow runs, and how far the books are."""
    from flows.reconciling import last_result  # noqa: PLC0415
    from stack.supervisor import Stack  # noqa: PLC0415

    settings = context().settings
    servers = Stack(settings).status()
    data: dict[str, Any] = {
        "servers": [asdict(server) for server in servers],
        "flow_running": flow_running(settings.state_dir),
        "reconciled": last_result(settings.state_dir),
        **_reachable("streams", lambda: _streams(settings)),
        **_reachable("ledger", lambda: _ledger(settings)),
    }
    shown: dict[str, Any] = {"metering flow": "runs" if data["flow_running"] else "does not run"}
    shown["reconciled"] = _reconciled(data["reconciled"])
    for name in ("streams", "ledger"):
        shown |= data[name] if name in data else {name: data[f"{name}_error"]}
    grid: RenderableType = key_values(shown)
    emit(data, _servers_table(servers), grid)


def _reconciled(result: dict[str, Any] | None) -> str:
    """Say what the last scheduled reconciliation found."""
    if result is None:
        return "not yet on schedule (METERBRIDGE_RECONCILE__EVERY_MINUTES)"
    when = f"{datetime.fromisoformat(result['began']):%Y-%m-%d %H:%M} UTC, {result['seconds']} s"
    if result["error"]:
        return f"{when}: no result: {result['error']}"
    if result["holds"]:
        return f"{when}: all {result['checks']} checks hold"
    return f"{when}: {len(result['broken'])} of {result['checks']} checks do not hold: {'; '.join(result['broken'])}"


def _servers_table(servers: "list[ServerStatus]") -> RenderableType:
    rows = []
    for server in servers:
        state = "answers" if server.answers else "starting" if server.running else "down"
        owner = f"process {server.pid}" if server.pid else "not ours" if server.answers else ""
        memory = f"{server.memory_bytes / _MEBIBYTE:.0f} MiB" if server.memory_bytes else ""
        rows.append([server.name, server.address, state, owner, memory, server.log])
    return table("Servers", ("server", "address", "state", "owner", "memory", "log"), rows, right=("memory",))


def _reachable(name: str, read: Any) -> dict[str, Any]:
    """Return what was read, or why it could not be: a status must show the rest all the same."""
    try:
        return {name: read()}
    except MeterbridgeError as error:
        return {f"{name}_error": str(error)}


def _streams(settings: "Settings") -> dict[str, int]:
    from core.redis_client import connect, guarded  # noqa: PLC0415

    with connect(settings.redis) as client, guarded(settings.redis):
        return {name: int(client.xlen(name)) for name in settings.redis.streams}


def _ledger(settings: "Settings") -> dict[str, Any]:
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415

    from sinks import ledger  # noqa: PLC0415
    from sinks.ledger import documents, erp_status, postings, progress  # noqa: PLC0415

    engine = ledger.connect(settings.ledger_url)
    try:
        watermark_ms = progress.watermark_ms(engine)
        reached = datetime.fromtimestamp(watermark_ms / 1000, UTC).isoformat() if watermark_ms else None
        return {
            "watermark": reached,
            "documents": documents.count_by_state(engine),
            "postings": postings.count_by_state(engine),
            "erp_waiting": [
                f"{one.entity} since {one.since.isoformat(timespec='seconds')}: {one.cause}"
                for one in erp_status.waiting(engine)
            ],
        }
    except SQLAlchemyError as error:
        cause = getattr(error, "orig", None) or type(error).__name__
        message = f"the ledger cannot be read: {cause}: run `meterbridge migrate`, or check METERBRIDGE_LEDGER__URL"
        raise InvalidRequest(message) from error
    finally:
        engine.dispose()


def flow_running(state_dir: Path) -> bool:
    """Tell whether a flow holds a lock of this state directory, without taking the lock.

    Taking it, even shared and for a moment, could refuse a flow that starts right then; so the kernel's list of
    locks is read. Where there is none, the process named in the lock file counts.
    """
    return any(_is_locked(path) for path in sorted(state_dir.glob("flow-*.lock")))


def _is_locked(path: Path) -> bool:
    locks = Path("/proc/locks")
    if not locks.exists():
        import psutil  # noqa: PLC0415

        text = path.read_text(encoding="ascii", errors="replace").strip()
        return text.isdigit() and psutil.pid_exists(int(text))
    inode = str(path.stat().st_ino)
    lines = (line.split() for line in locks.read_text(encoding="ascii").splitlines())
    return any("FLOCK" in line and any(part.endswith(f":{inode}") for part in line) for line in lines)
