"""A Tryton server process as in production (gunicorn), for demos and tests: start, freeze, kill, start again."""

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Final

from core.errors import FatalError
from stack import processes
from stack.tryton_environment import python

START_S_MAX: Final = 60.0
STOP_S_MAX: Final = 20.0
_APPLICATION: Final = "trytond.application:app"


def free_port() -> int:
    """Return a port nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class TrytonServer:
    """One server on loopback with its own process group; the port stays the same over restarts."""

    def __init__(self, home: Path, configuration: Path, databases: str, *, workers: int = 1, threads: int = 4) -> None:
        self.port = free_port()
        self.log = configuration.with_suffix(".log")
        self._configuration = configuration
        self._databases = databases
        bind = f"127.0.0.1:{self.port}"
        sizes = ["-w", str(workers), "--threads", str(threads), "--limit-request-line", "8190", "--timeout", "0"]
        sizes += ["--graceful-timeout", "5"]  # open connections of clients would hold up the end
        self._command = [str(python(home)), "-m", "gunicorn", *sizes, "-b", bind, "--no-control-socket", _APPLICATION]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Return the server's address, without a database."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it answers.

        :raises FatalError: it ended or did not answer in time.
        """
        environment = {
            "TRYTOND_CONFIG": str(self._configuration),
            "TRYTOND_DATABASE_NAMES": self._databases,
            "TRYTOND_LOGGING_LEVEL": "40",
        }
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603  # the command is built here
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, **environment},
            )
        until_s = time.monotonic() + START_S_MAX
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > until_s:
                message = f"the Tryton server did not start: {processes.last_lines(self.log, 15)}"
                raise FatalError(message)
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/nothing", timeout=5):  # noqa: S310  # our own loopback address
                return True
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            try:
                os.killpg(self._process.pid, number)
            except ProcessLookupError:
                return

    def freeze(self) -> None:
        """Stop its processes in the middle of what they do."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let them go on."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End all of its processes at once, as a crash would."""
        if self._process is None:
            return
        self._signal(signal.SIGKILL)
        self._process.wait()
        self._process = None

    def stop(self) -> None:
        """Ask it to end, and end it for good if it does not."""
        if self._process is None:
            return
        self._signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_S_MAX)
            self._process = None
        except subprocess.TimeoutExpired:
            self.kill()
