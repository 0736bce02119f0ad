"""Detached processes with a file that says which one is ours.

A process id alone is not an identity: ids are used again. The file holds the id and the start time, and a process
is touched only if both fit.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson
import psutil

_POLL_S: Final = 0.05
_START_TOLERANCE_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class Process:
    """A process we started."""

    pid: int
    started_s: float

    def is_running(self) -> bool:
        """Tell whether that very process still runs."""
        return self._found() is not None

    def _found(self) -> psutil.Process | None:
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started_s) < _START_TOLERANCE_S
            alive = process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return None
        return process if same and alive else None

    def memory_bytes(self) -> int:
        """Return the resident memory, 0 if it does not run."""
        process = self._found()
        try:
            return int(process.memory_info().rss) if process else 0
        except psutil.NoSuchProcess:
            return 0

    def terminate(self, wait_s: float) -> bool:
        """Ask it to end, and end it for good after `wait_s`; return whether it ended by itself."""
        process = self._found()
        if process is None:
            return True
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(wait_s)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait(wait_s)
            return False
        return True


def start(
    command: Sequence[str], *, log: Path, pid_file: Path, environment: Mapping[str, str] | None = None
) -> Process:
    """Start a process of its own session that outlives us; its output goes to the log file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        child = subprocess.Popen(  # noqa: S603  # the command is built here, never from input
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            close_fds=True,
            env={**os.environ, **(environment or {})},
        )
    process = Process(child.pid, psutil.Process(child.pid).create_time())
    temporary = pid_file.with_suffix(".tmp")
    temporary.write_bytes(orjson.dumps({"pid": process.pid, "started_s": process.started_s}))
    temporary.replace(pid_file)
    return process


def load(pid_file: Path) -> Process | None:
    """Return the process of the file if it still runs; a stale file counts as none."""
    try:
        plain = orjson.loads(pid_file.read_bytes())
        process = Process(int(plain["pid"]), float(plain["started_s"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return process if process.is_running() else None


def wait_until(reached: Callable[[], bool], process: Process, wait_s: float) -> bool:
    """Wait until `reached()` is true; end early if the process dies. Return whether it was reached."""
    deadline_s = time.monotonic() + wait_s
    while time.monotonic() < deadline_s:
        if reached():
            return True
        if not process.is_running():
            return False
        time.sleep(_POLL_S)
    return False


def last_lines(log: Path, lines: int = 5) -> str:
    """Return the end of a log, for messages."""
    try:
        return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return ""


PYTHON: Final = sys.executable
