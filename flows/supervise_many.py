"""Keeps several workers of one service running: each that ends by itself is started again with backoff.

Guarantee: at most one process for each number at a time; the supervisor ends only after all of them. SIGTERM and SIGINT
end all in order. If the supervisor dies, the workers end too, where the kernel can be asked for that.
"""

import signal
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Final

import structlog

from core.clock import Clock
from flows.supervise import End, RestartPolicy, said

log = structlog.get_logger()

POLL_S: Final = 0.1
"""How soon a death is seen."""
END_S_MAX: Final = 30.0
"""A worker that has not ended so long after it was asked to is killed."""

Start = Callable[[int], "subprocess.Popen[bytes]"]


@dataclass
class _Worker:
    number: int
    policy: RestartPolicy = field(default_factory=RestartPolicy)
    process: "subprocess.Popen[bytes] | None" = None
    began_s: float = 0.0
    due_s: float = 0.0


class Workers:
    """The workers of one service.

    :param start: starts the worker of a number, from 0.
    :param changed: is told how many run, and whether one was started again.
    """

    def __init__(self, count: int, start: Start, clock: Clock, changed: Callable[[int, bool], None]) -> None:
        self._workers = [_Worker(number) for number in range(count)]
        self._start, self._clock, self._changed = start, clock, changed
        self._stopping = threading.Event()

    def run(self, between: Callable[[], None]) -> int:
        """Run the workers until a signal comes or one needs a person; return the exit code to end with.

        :param between: called between looks at the workers, several times a second.
        """

        def stop(_number: int, _frame: FrameType | None) -> None:
            self._stopping.set()

        before: dict[int, Any] = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
        code = 0
        try:
            while code == 0 and not self._stopping.is_set():
                code = self._look()
                between()
                self._stopping.wait(POLL_S)
        finally:
            codes = self._end()
            for number, handler in before.items():
                signal.signal(number, handler)
        return code or max([0, *codes])

    def _look(self) -> int:
        """Start whoever is due; return the exit code if one needs a person, else 0."""
        now_s = self._clock.monotonic_s()
        for worker in self._workers:
            if worker.process is not None and (code := worker.process.poll()) is not None:
                worker.process = None
                # One that was ended in order by somebody else is wanted all the same.
                verdict = worker.policy.ended(code or -signal.SIGTERM, now_s - worker.began_s, now_s)
                if isinstance(verdict, End):
                    log.error(
                        "A worker is not started again.", worker=worker.number, cause=verdict.why, ended=said(code)
                    )
                    return verdict.code
                log.warning(
                    "A worker ended and is started again.",
                    worker=worker.number,
                    ended=said(code),
                    wait_s=verdict.wait_s,
                )
                worker.due_s = now_s + verdict.wait_s
                self._tell(again=False)
            if worker.process is None and now_s >= worker.due_s and not self._stopping.is_set():
                again = worker.began_s > 0
                worker.process, worker.began_s = self._start(worker.number), now_s
                self._tell(again=again)
        return 0

    def _tell(self, *, again: bool) -> None:
        self._changed(sum(worker.process is not None for worker in self._workers), again)

    def _end(self) -> list[int]:
        """End all and return their exit codes."""
        processes = [worker.process for worker in self._workers if worker.process is not None]
        for process in processes:
            process.send_signal(signal.SIGTERM)
        ends_s = self._clock.monotonic_s() + END_S_MAX
        codes = []
        for process in processes:
            try:
                codes.append(process.wait(max(0.1, ends_s - self._clock.monotonic_s())))
            except subprocess.TimeoutExpired:
                log.error("A worker did not end in time and was killed.", pid=process.pid)
                process.kill()
                codes.append(process.wait())
        return codes
