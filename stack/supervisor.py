"""Starts, watches and stops the embedded servers: Valkey and ClickHouse, each a detached process.

Their data, logs and process files are under `<state_dir>/stack`. Stopping ends only processes that this state
directory started; data stay. A server whose address is not on this machine is left alone.

Guarantee: a restart of the flow never restarts a server, and a server's death is seen by `status`.
Unit of parallelism: one supervisor at a time per state directory (a lock), one process per server.
"""

import contextlib
import ipaddress
import socket
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import psutil

from config.settings import Settings
from core.directory_lock import DirectoryLock
from core.errors import FatalError, InvalidRequest
from stack import processes, valkey

START_S_MAX: Final = 120.0
"""Loading a large append-only file takes long; a process that dies is noticed at once."""
STOP_S_MAX: Final = 30.0
_PROBE_S_MAX: Final = 1.0
_PORTS: Final = {"redis": 6379, "rediss": 6379, "http": 8123, "https": 8443}


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """One server: whether it is ours, whether it runs and answers, and where."""

    name: str
    address: str
    embedded: bool
    running: bool
    answers: bool
    pid: int | None
    memory_bytes: int
    log: str


@dataclass(frozen=True, slots=True)
class Server:
    """How one embedded server is started and asked whether it answers."""

    name: str
    setting: str
    host: str
    port: int
    directory: Path
    build: Callable[["Server"], list[str]]
    answers: Callable[[str, int], bool]

    @property
    def address(self) -> str:
        """Return host and port."""
        return f"{self.host}:{self.port}"

    @property
    def embedded(self) -> bool:
        """Tell whether the address is on this machine, so that the supervisor may serve it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def log(self) -> Path:
        """Return the file with the server's output."""
        return self.directory.with_suffix(".log")

    @property
    def pid_file(self) -> Path:
        """Return the file that says which process is ours."""
        return self.directory.with_suffix(".pid")


def _valkey_command(server: Server) -> list[str]:
    return valkey.command(server.directory, _numeric(server.host), server.port)


def _clickhouse_command(server: Server) -> list[str]:
    options = ["--path", str(server.directory.resolve()), "--host", _numeric(server.host)]
    return [processes.PYTHON, "-P", "-m", "stack.chdb_server", *options, "--port", str(server.port)]


def _numeric(host: str) -> str:
    return "127.0.0.1" if host == "localhost" else host


def valkey_answers(host: str, port: int) -> bool:
    """Tell whether a Redis or Valkey answers there and has loaded its data."""
    try:
        with socket.create_connection((host, port), timeout=_PROBE_S_MAX) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))
    except OSError:
        return False


def clickhouse_answers(host: str, port: int) -> bool:
    """Tell whether a ClickHouse answers there."""
    connection = HTTPConnection(host, port, timeout=_PROBE_S_MAX)
    try:
        connection.request("GET", "/ping")
        return connection.getresponse().read(16) == b"Ok.\n"
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _in_use(host: str, port: int) -> bool:
    with contextlib.closing(socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
        return False


class Stack:
    """The embedded servers of one state directory."""

    def __init__(self, settings: Settings) -> None:
        self._root = settings.state_dir / "stack"
        redis, clickhouse = urlsplit(settings.redis.url), urlsplit(settings.clickhouse.url)
        self.servers: tuple[Server, ...] = (
            Server(
                "valkey",
                "METERBRIDGE_REDIS__URL",
                redis.hostname or "",
                redis.port or _PORTS["redis"],
                self._root / "valkey",
                _valkey_command,
                valkey_answers,
            ),
            Server(
                "clickhouse",
                "METERBRIDGE_CLICKHOUSE__URL",
                clickhouse.hostname or "",
                clickhouse.port or _PORTS.get(clickhouse.scheme, 8123),
                self._root / "clickhouse",
                _clickhouse_command,
                clickhouse_answers,
            ),
        )

    def start(self) -> list[ServerStatus]:
        """Start what does not run and wait until all answer. Repeating it does nothing.

        :raises InvalidRequest: a port is in use by somebody else; the message names the setting.
        :raises FatalError: a server did not come up; the message holds the end of its log.
        """
        self._root.mkdir(parents=True, exist_ok=True)
        with DirectoryLock(self._root / "supervisor.lock"):
            started: list[Server] = []
            try:
                for server in self.servers:
                    if server.embedded and processes.load(server.pid_file) is None:
                        self._launch(server)
                        started.append(server)
                for server in self.servers:
                    self._wait(server)
            except BaseException:
                for server in reversed(started):
                    self._end(server)
                raise
        return self.status()

    def _launch(self, server: Server) -> None:
        if _in_use(_numeric(server.host), server.port):
            holder = _holder(server.port)
            message = (
                f"port {server.port} for {server.name} is in use{holder}: end that process, "
                f"or set {server.setting} to another port"
            )
            raise InvalidRequest(message)
        server.directory.mkdir(parents=True, exist_ok=True)
        root = str(Path(__file__).resolve().parents[1])
        processes.start(
            server.build(server),
            log=server.log,
            pid_file=server.pid_file,
            environment={"PYTHONPATH": root, "PYTHONUNBUFFERED": "1"},
        )

    def _wait(self, server: Server) -> None:
        if not server.embedded:
            return
        process = processes.load(server.pid_file)
        answered = process is not None and processes.wait_until(
            lambda: server.answers(_numeric(server.host), server.port), process, START_S_MAX
        )
        if not answered:
            message = (
                f"{server.name} at {server.address} did not come up; the end of its log {server.log}:\n"
                f"{processes.last_lines(server.log)}"
            )
            raise FatalError(message)

    def stop(self) -> list[ServerStatus]:
        """Stop the servers that this state directory started, the last one first; their data stay."""
        if self._root.exists():
            with DirectoryLock(self._root / "supervisor.lock"):
                self._end_others()
                for server in reversed(self.servers):
                    self._end(server)
        return self.status()

    def _end_others(self) -> None:
        """End what else was started beside the servers and needs them: a demo's console."""
        own = {server.pid_file for server in self.servers}
        for pid_file in sorted(self._root.glob("*.pid")):
            if pid_file not in own:
                process = processes.load(pid_file)
                if process is not None:
                    process.terminate(STOP_S_MAX)
                pid_file.unlink(missing_ok=True)

    @staticmethod
    def _end(server: Server) -> None:
        process = processes.load(server.pid_file)
        if process is not None:
            process.terminate(STOP_S_MAX)
        server.pid_file.unlink(missing_ok=True)

    def status(self) -> list[ServerStatus]:
        """Return the state of all servers."""
        return [self._status(server) for server in self.servers]

    @staticmethod
    def _status(server: Server) -> ServerStatus:
        process = processes.load(server.pid_file)
        return ServerStatus(
            name=server.name,
            address=server.address,
            embedded=server.embedded,
            running=process is not None,
            answers=server.answers(_numeric(server.host), server.port),
            pid=process.pid if process else None,
            memory_bytes=process.memory_bytes() if process else 0,
            log=str(server.log),
        )


def _holder(port: int) -> str:
    """Name the process that listens on a port, if we may know."""
    try:
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and getattr(connection.laddr, "port", 0) == port
            if listens and connection.pid:
                return f" by process {connection.pid} ({psutil.Process(connection.pid).name()})"
    except (psutil.AccessDenied, psutil.NoSuchProcess):
        return ""
    return ""
