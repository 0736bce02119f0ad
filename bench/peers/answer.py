"""What every job of the comparison prints, and what it must agree with. Standard library only: all environments use it.

A job is a program with `--warm-up DIRECTORY --input DIRECTORY`. It runs over the small input first, so that a virtual
machine has compiled what it needs, then over the whole one, and prints one line that begins with `MARK`.
"""

import argparse
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

MARK: Final = "BENCH-ANSWER "
CORES: Final = 2
"""Cores each job may use."""


@dataclass(frozen=True, slots=True)
class Sums:
    """What the job computes. `facts` is the number of sums per tenant, model and minute; None where not counted."""

    facts: int | None
    events: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished job: its sums, and the time of the second run, from handing in the job to its last result."""

    sums: Sums
    seconds: float
    cpu_s: float
    version: str

    def line(self) -> str:
        """Return the line to print."""
        return MARK + json.dumps(asdict(self))


def from_output(text: str) -> Answer:
    """Return the answer in the output of a job.

    :raises ValueError: it has none, or more than one.
    """
    found = [line[len(MARK) :] for line in text.splitlines() if line.startswith(MARK)]
    if len(found) != 1:
        message = f"{len(found)} answers in the output of the job, expected one"
        raise ValueError(message)
    plain = json.loads(found[0])
    return Answer(Sums(**plain["sums"]), plain["seconds"], plain["cpu_s"], plain["version"])


def differences(expected: Sums, got: Sums) -> list[str]:
    """Return in words where a job's sums are not those of the input; empty where all are."""
    found = []
    if got.facts is not None and got.facts != expected.facts:
        found.append(f"{got.facts} facts instead of {expected.facts}")
    if got.events != expected.events:
        found.append(f"{got.events} events instead of {expected.events}")
    if got.tokens != expected.tokens:
        found.append(f"{got.tokens} tokens instead of {expected.tokens}")
    return found


def directories() -> tuple[Path, Path]:
    """Return the two directories of the command line: warm-up and input."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--warm-up", type=Path, required=True)
    parser.add_argument("--input", type=Path, required=True)
    options = parser.parse_args()
    return options.warm_up, options.input


def session_cpu_s() -> float:
    """Return the processor time of all processes of this session, which the runner started for this job alone.

    Counts what ended as well, once its parent has waited for it.
    """
    session, ticks = os.getsid(0), 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            ticks += _ticks(entry / "stat", session)
    return ticks / os.sysconf("SC_CLK_TCK")


def _ticks(stat: Path, session: int) -> int:
    try:
        # The command, in parentheses, may hold spaces; what follows are fields 3 and on.
        fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:  # it ended meanwhile
        return 0
    return sum(int(value) for value in fields[11:15]) if int(fields[3]) == session else 0
