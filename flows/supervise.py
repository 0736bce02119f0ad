"""Keeps a command running: a crash restarts it with backoff, a crash loop or an error that needs a person ends it.

The supervised command is a process of its own, so nothing of it can take the supervisor down. SIGTERM and SIGINT go on
to it. What a death means is decided by `RestartPolicy`, which is pure.

Guarantee: at most one child at a time; the supervisor ends only after its child. If the supervisor dies, the child
ends too (it is asked to by the kernel where that exists), and whoever starts the supervisor again starts at the last
snapshot.
"""

import ctypes
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Final

import structlog

from core.clock import Clock
from core.errors import FatalError, RetryableError

log = structlog.get_logger()

BACKOFF_FIRST_S: Final = 1.0
BACKOFF_S_MAX: Final = 60.0
STEADY_S: Final = 300.0
"""A run this long was no crash at start: backoff begins anew."""
CRASHES_MAX: Final = 5
CRASHES_WINDOW_S: Final = 600.0
_PR_SET_PDEATHSIG: Final = 1


@dataclass(frozen=True, slots=True)
class Restart:
    """Start it again after that many seconds."""

    wait_s: float


@dataclass(frozen=True, slots=True)
class End:
    """Do not start it again; `code` is the supervisor's own exit code, `why` what to tell."""

    code: int
    why: str = ""


@dataclass
class RestartPolicy:
    """What to do when the command has ended. Times are seconds of a monotonic clock."""

    crashes_max: int = CRASHES_MAX
    window_s: float = CRASHES_WINDOW_S
    _crashes: deque[float] = field(default_factory=deque)
    _in_a_row: int = 0

    def ended(self, code: int, ran_s: float, now_s: float) -> Restart | End:
        """Decide. `code` is the exit code, negative for a signal."""
        if code == 0:
            return End(0)
        if 0 < code != RetryableError.exit_code and code in (FatalError.exit_code, 1, 2):
            return End(code, "it needs a person; see its last message")
        self._in_a_row = 1 if ran_s >= STEADY_S else self._in_a_row + 1
        if code != RetryableError.exit_code:  # waiting for a server is no crash, however often it ends for that
            self._crashes.append(now_s)
        while self._crashes and now_s - self._crashes[0] > self.window_s:
            self._crashes.popleft()
        if code != RetryableError.exit_code and len(self._crashes) >= self.crashes_max:
            minutes = self.window_s / 60
            return End(
                FatalError.exit_code, f"it crashed {len(self._crashes)} times in {minutes:g} minutes, last {said(code)}"
            )
        return Restart(min(BACKOFF_S_MAX, BACKOFF_FIRST_S * 2 ** (self._in_a_row - 1)))


def said(code: int) -> str:
    """Return what an exit code means, in words."""
    if code >= 0:
        return f"with exit code {code}"
    try:
        return f"by {signal.Signals(-code).name}"
    except ValueError:
        return f"by signal {-code}"


def supervise(command: Sequence[str], clock: Clock, policy: RestartPolicy | None = None) -> int:
    """Run the command until it ends for good and return the exit code to end with."""
    policy = policy or RestartPolicy()
    stopping = threading.Event()
    child: list[subprocess.Popen[bytes]] = []

    def forward(number: int, _frame: FrameType | None) -> None:
        stopping.set()
        if child:
            child[0].send_signal(number)

    before = {number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        while True:
            began_s = clock.monotonic_s()
            child[:] = [subprocess.Popen(list(command), preexec_fn=die_with_parent)]  # noqa: PLW1509, S603
            if stopping.is_set():  # the signal came between two children
                child[0].send_signal(signal.SIGTERM)
            code = child[0].wait()
            now_s = clock.monotonic_s()
            if stopping.is_set():
                return max(0, code)
            verdict = policy.ended(code, now_s - began_s, now_s)
            if isinstance(verdict, End):
                if verdict.why:
                    log.error("The supervised command is not started again.", cause=verdict.why, ended=said(code))
                return verdict.code
            log.warning("The supervised command ended and is started again.", ended=said(code), wait_s=verdict.wait_s)
            if stopping.wait(verdict.wait_s):
                return 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def die_with_parent() -> None:
    """Ask the kernel to end the child when the supervisor is killed; only Linux can."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
