"""When the compiled path of decode is used, and what if it cannot be.

It is an addition (`pip install meterbridge[compiled]`): without numba everything is decoded all the same, with the
same results. Loading it costs about a second of processor time, the first time on a machine ten, so a process does it
once it has decoded enough for that to pay.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from core.collector import loading
from core.compiled_code import keep_in
from operators.decode_plan import RevisionPlan

if TYPE_CHECKING:
    from operators.scan.scanner import Scanner

log = structlog.get_logger()

LINES_MIN: Final = 256
"""Smaller batches gain nothing."""

_PACKAGE: Final = Path(__file__).parent / "scan"


class Compiled:
    """Loads the compiled path when it pays, or says once why not.

    :param directory: where compiled code is kept for the next start; made if absent. It is as trusted as the code.
    :param lines_before: so many lines are decoded before it is loaded.
    """

    def __init__(self, directory: Path, lines_before: int = 50_000) -> None:
        self._directory = directory
        self._lines_before = lines_before
        self._lines = 0
        self._failed = False

    def scanner(self, plan: RevisionPlan, lines: int, *, at_once: bool = False) -> "Scanner | None":
        """Return the scanner of a revision, or None if the present batch is better off without.

        :param at_once: whatever it costs, for tests.
        """
        self._lines += lines
        if self._failed or not (at_once or (lines >= LINES_MIN and self._lines >= self._lines_before)):
            return None
        try:
            with loading():
                keep_in(self._directory, _PACKAGE, "operators.scan.words")
                from operators.scan import scanner  # noqa: PLC0415

                made = scanner.Scanner(plan)
                scanner.prove(made, plan)
        except ImportError as error:  # the addition is not installed
            self._failed = True
            log.info("Events are decoded without compiled code, with the same results.", cause=str(error))
            return None
        except Exception as error:  # it does not run here, or its directory cannot be used: nothing depends on it
            self._failed = True
            log.warning("Compiled code cannot be used: events are decoded more slowly.", cause=str(error))
            return None
        return made
