"""Notices when this machine's clock is set back, which the dataflow engine does not survive by itself.

The engine compares wall-clock times to end its epochs and to wake its sources. Set back by an hour, it would read
nothing and commit nothing for an hour, and say nothing either. So the run ends with an error that starting again mends:
state is in the last snapshot, and nothing of ours depends on the clock. A clock set forward only ends an epoch early.

Guarantee: the run ends within some seconds of a step back of more than `STEP_S_MAX`. Where `run` is not called in the
main thread, as in tests, nothing is watched.
"""

import signal
import threading
from types import FrameType
from typing import Any, Final

import structlog

from core.clock import Clock
from core.errors import ClockSetBack

log = structlog.get_logger()

STEP_S_MAX: Final = 2.0
"""A shorter step holds the engine up for as long, which is no more than an epoch; slewing is far below it."""
LOOK_S: Final = 0.5
SIGNAL: Final = signal.SIGUSR1


class StepDetector:
    """Compares the wall clock with the monotonic one. Pure but for the clock that it is given."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._offset_s = self._offset()

    def _offset(self) -> float:
        return self._clock.now().timestamp() - self._clock.monotonic_s()

    def set_back_s(self) -> float:
        """Return by how many seconds the clock was set back since the last look; 0 or less if it was not."""
        before, self._offset_s = self._offset_s, self._offset()
        return before - self._offset_s


class ClockWatch:
    """Context in which a clock that is set back ends the main thread's work with `ClockSetBack`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ended = threading.Event()
        self._back_s = 0.0
        self._before: Any = None
        self._is_main = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> None:
        """Begin to watch."""
        if self._is_main:
            self._before = signal.signal(SIGNAL, self._end_run)
            threading.Thread(target=self._watch, name="clock", daemon=True).start()

    def __exit__(self, *_: object) -> None:
        """End watching."""
        self._ended.set()
        if self._is_main:
            signal.signal(SIGNAL, self._before)

    def _watch(self) -> None:
        detector = StepDetector(self._clock)
        while not self._ended.wait(LOOK_S):
            back_s = detector.set_back_s()
            if back_s > STEP_S_MAX:
                self._back_s = back_s
                log.error("This machine's clock was set back; the flow ends, to start again.", seconds=round(back_s))
                signal.raise_signal(SIGNAL)
                return

    def _end_run(self, _number: int, _frame: FrameType | None) -> None:
        if self._ended.is_set():
            return
        message = (
            f"this machine's clock was set back by {self._back_s:.0f} s; the dataflow engine would stand still for as "
            "long. Nothing is lost: start it again (`--supervise` does), and it goes on from its last snapshot."
        )
        raise ClockSetBack(message)
