"""Several workers: one that ends is started again, a signal ends all, one that needs a person ends all."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable

from core.clock import SystemClock
from core.errors import RetryableError
from flows.supervise_many import Workers

LASTING = "import time; time.sleep(600)"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, lambda *_: exit(0)); time.sleep(600)"


class Scene:
    """Workers that run programs of the test's; `act` is called between looks, with what was started so far."""

    def __init__(self, programs: Callable[[int, int], str], act: Callable[["Scene"], None]) -> None:
        self.started: list[tuple[int, subprocess.Popen[bytes]]] = []
        self.told: list[tuple[int, bool]] = []
        self._programs, self._act = programs, act

    def run(self) -> int:
        """Run two workers and return the exit code."""
        workers = Workers(2, self._start, SystemClock(), lambda running, again: self.told.append((running, again)))
        return workers.run(lambda: self._act(self))

    def _start(self, number: int) -> "subprocess.Popen[bytes]":
        before = sum(1 for one, _ in self.started if one == number)
        process = subprocess.Popen([sys.executable, "-c", self._programs(number, before)])
        self.started.append((number, process))
        return process


def stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_worker_that_is_killed_is_started_again_and_a_signal_ends_all() -> None:
    def act(scene: Scene) -> None:
        if len(scene.started) == 2 and scene.started[0][1].poll() is None:
            scene.started[0][1].kill()
        if len(scene.started) == 3:
            stop()

    handler = signal.getsignal(signal.SIGTERM)
    scene = Scene(lambda _number, _before: LASTING, act)
    assert scene.run() == 0
    assert [number for number, _ in scene.started] == [0, 1, 0]
    assert scene.told == [(1, False), (2, False), (1, False), (2, True)]
    assert all(process.returncode is not None for _, process in scene.started)
    assert signal.getsignal(signal.SIGTERM) is handler


def test_a_worker_that_ends_well_without_being_asked_is_started_again() -> None:
    scene = Scene(
        lambda number, before: "" if number == 1 and before == 0 else LASTING,
        lambda scene: stop() if len(scene.started) == 3 else None,
    )
    assert scene.run() == 0
    assert [number for number, _ in scene.started] == [0, 1, 1]


def test_one_that_needs_a_person_ends_all() -> None:
    scene = Scene(lambda number, _before: "raise SystemExit(2)" if number else LASTING, lambda _scene: None)
    assert scene.run() == 2
    assert len(scene.started) == 2
    assert scene.started[0][1].returncode == -signal.SIGTERM


def test_workers_end_in_order() -> None:
    scene = Scene(lambda _number, _before: DEAF, lambda scene: stop() if len(scene.started) == 2 else None)
    assert scene.run() == 0


def test_a_signal_while_none_runs_ends_it() -> None:
    def act(scene: Scene) -> None:
        if scene.told[-1][0] == 0:
            stop()

    scene = Scene(lambda _number, _before: f"raise SystemExit({RetryableError.exit_code})", act)
    assert scene.run() == 0
    assert not any(again for _, again in scene.told)
