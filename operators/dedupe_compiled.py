"""When the id log's look-ups are compiled, and what if they cannot be: as for decode (docs/adr/0033)."""

import threading
from pathlib import Path
from typing import Any, Final

import numpy as np
import structlog

from core.collector import loading
from core.compiled_code import keep_in
from core.errors import InvariantViolation
from operators import dedupe_filter
from operators.dedupe_answer import Answer
from operators.dedupe_probe import NUMPY, U32, U64, Places, Probe
from operators.dedupe_run import Records, RunStack
from operators.dedupe_table import TailTable

log = structlog.get_logger()

IDS_BEFORE: Final = 50_000
"""So many ids a process looks up or opens before it loads compiled code: it costs some tenths of a second."""

_PACKAGE: Final = Path(__file__).parent / "probe"


class CompiledProbe:
    """The look-ups in compiled code.

    :raises ImportError: numba is not installed.
    """

    def __init__(self) -> None:
        from operators.probe import kernels  # noqa: PLC0415

        self._kernels = kernels

    def query(self, hi: U64) -> U64:
        """Return the keys."""
        return np.ascontiguousarray(hi)

    def candidates(self, words: U64, query: U64) -> Places:
        """Return the places of the keys that a filter lets pass."""
        read, places = np.empty(len(query), dtype=np.uint64), np.empty(len(query), dtype=np.int64)
        return places[: self._kernels.candidates(words, query, read, places)]

    def add(self, words: U64, hi: U64) -> None:
        """Add keys to a filter."""
        self._kernels.add(words, np.ascontiguousarray(hi))

    def table(self) -> TailTable:
        """Return an empty index for a tail file."""
        return TailTable(self._kernels)

    def search(self, hi: U64, prefixes: U32, offsets: U32, bits: int) -> tuple[Places, Places]:
        """Find keys by their upper bits."""
        rows, places = np.empty(len(hi), dtype=np.int64), np.empty(len(hi), dtype=np.int64)
        count = self._kernels.search(np.ascontiguousarray(hi), prefixes, offsets, bits, rows, places)
        return rows[:count], places[:count]


class Probes:
    """Loads compiled look-ups when they pay, or says once why not. One for all logs of a process.

    :param directory: where compiled code is kept for the next start; made if absent.
    """

    def __init__(self, directory: Path, ids_before: int = IDS_BEFORE) -> None:
        self._directory = directory
        self._ids_before = ids_before
        self._ids = 0
        self._probe: Probe | None = None
        self._lock = threading.Lock()

    def take(self, ids: int) -> Probe:
        """Return how to look up, given that so many ids are next."""
        if self._probe is not None:
            return self._probe
        with self._lock:
            self._ids += ids
            if self._probe is None and self._ids >= self._ids_before:
                self._probe = self._load()
            return self._probe or NUMPY

    def _load(self) -> Probe:
        try:
            with loading():
                keep_in(self._directory, _PACKAGE, "operators.probe.kernels")
                probe = CompiledProbe()
                prove(probe)
        except ImportError as error:  # the addition is not installed
            log.info("Ids are looked up without compiled code, with the same results.", cause=str(error))
            return NUMPY
        except Exception as error:  # it does not run here, or its directory cannot be used: nothing depends on it
            log.warning("Compiled code cannot be used: ids are looked up more slowly.", cause=str(error))
            return NUMPY
        return probe


def probe_for(ids: int, probes: Probes | None) -> Probe:
    """Return how to look up, given that so many ids are next; None: without compiled code."""
    return NUMPY if probes is None else probes.take(ids)


def prove(probe: Probe) -> None:
    """Look up a few keys with it and in numpy, and compare; this also makes what is compiled on first use.

    :raises InvariantViolation: they differ.
    """
    hi = np.array([7, 1 << 40, 5 << 61], dtype=np.uint64)
    prefixes, offsets = (hi >> np.uint64(32)).astype(np.uint32), np.array([0, 3], dtype=np.uint32)
    prefixes.flags.writeable = offsets.flags.writeable = False  # as those of a mapped file: another compiled form
    words: list[Any] = []
    answers: list[list[Any]] = []
    for one in (probe, NUMPY):
        filled = dedupe_filter.blank(16)
        one.add(filled, hi[1:])
        words.append(filled.tolist())
        rows, places = one.search(hi, prefixes, offsets, 0)
        answers.append([one.candidates(filled, one.query(hi)).tolist(), rows.tolist(), places.tolist()])
        table = one.table()
        index = RunStack() if table is None else table
        for records in (
            Records(hi[1:], hi[1:], hi[1:], offsets.copy()),
            Records(hi[1:2], hi[1:2], hi[:1], offsets[:1]),
        ):
            index.add(records)
        answer = Answer.blank(len(hi))
        index.find(hi, hi, answer, one, one.query(hi))
        answers[-1] += [answer.found.tolist(), answer.content.tolist(), index.merged().content.tolist()]
    if words[0] != words[1] or answers[0] != answers[1]:
        message = "compiled code looks ids up in another way than the reference"
        raise InvariantViolation(message)
