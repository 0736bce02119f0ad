"""Who takes part: the name, the environment, the program and what it needs besides."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.peers.answer import CORES

ROOT: Final = Path(__file__).parents[2]
HERE: Final = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Contestant:
    """One side of the comparison. `environment` is the name of its virtual environment; None is the project's own."""

    name: str
    job: str
    environment: str | None = None
    variables: dict[str, str] = field(default_factory=dict)
    closing: bool = False
    """Whether its input ends with an event that closes all windows."""

    def requirements(self) -> Path:
        """Return the hash-checked list of packages."""
        return HERE / f"requirements-{self.environment}.txt"

    def venv(self) -> Path:
        """Return the directory of its virtual environment."""
        return ROOT / f".venv-peers-{self.environment}"


OWN: Final = Contestant("Meterbridge", "bench.peers.own_job")
PEERS: Final = (
    Contestant("Flink SQL", "bench.peers.flink_job", "flink"),
    Contestant("Spark Structured Streaming", "bench.peers.spark_job", "spark", closing=True),
    Contestant("Pathway", "bench.peers.pathway_job", "pathway", {"PATHWAY_THREADS": str(CORES)}),
)


def pinned(requirements: str) -> dict[str, str]:
    """Return package and version of each line that pins one."""
    return dict(re.findall(r"^([a-z0-9-]+)==([^\s;\\]+)", requirements, re.MULTILINE))
