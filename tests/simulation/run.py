"""One seed, one run: which world it is of, and what came of it."""

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from structlog.testing import capture_logs

from tests.operators.dedupe_cases import SCRATCH
from tests.simulation.fate import Fate
from tests.simulation.flow_world import FlowWorld
from tests.simulation.log_world import LogWorld
from tests.simulation.mutations import MUTATIONS
from tests.simulation.posting_world import PostingWorld
from tests.simulation.reader_world import ReaderWorld


class World(Protocol):
    """Something that runs, checks itself, and is closed."""

    def run(self) -> None:
        """Run to the end; raises what is wrong."""
        ...

    def close(self) -> None:
        """Release what is open."""
        ...


WORLDS: Final[dict[str, Callable[[Fate, Path], World]]] = {
    "flow": FlowWorld,
    "posting": PostingWorld,
    "log": LogWorld,
    "reader": ReaderWorld,
}
MIX: Final = ("flow", *["posting"] * 3, *["log", "reader"] * 8)
"""World of a seed by seed % 20: a run of the whole flow takes as long as fifty of a part."""


def world_of(seed: int) -> str:
    """Return the world that a seed runs in unless one is asked for."""
    return MIX[seed % len(MIX)]


@dataclass
class Outcome:
    """What happened in one run."""

    seed: int
    world: str
    mutation: str = ""
    wrong: str = ""
    steps: int = 0
    deaths: Counter[str] = field(default_factory=Counter)
    trace: list[str] = field(default_factory=list)

    @property
    def replay(self) -> str:
        """Return the command that runs exactly this again."""
        mutation = f" --mutation {self.mutation}" if self.mutation else ""
        return f"python -m tests.simulation --world {self.world} --seed {self.seed}{mutation}"


def run_seed(seed: int, world: str = "", mutation: str = "") -> Outcome:
    """Run one seed; whatever is raised in it is what is wrong."""
    outcome = Outcome(seed, world or world_of(seed), mutation)
    fate = Fate(seed, outcome.world)
    directory = Path(tempfile.mkdtemp(prefix="simulation-", dir=SCRATCH))
    try:
        with capture_logs(), fate.at_fault_points(), MUTATIONS[mutation]():
            made = WORLDS[outcome.world](fate, directory)
            try:
                made.run()
            finally:
                made.close()
    except Exception as error:
        outcome.wrong = f"{type(error).__name__}: {error}"
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    outcome.steps, outcome.deaths, outcome.trace = fate.steps, fate.deaths, fate.trace
    return outcome
