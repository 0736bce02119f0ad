"""`meterbridge serve` as a process for one bench: where it listens, and how much processor time it takes."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

ROOT: Final = Path(__file__).parents[1]
END_S_MAX: Final = 30


@dataclass(frozen=True, slots=True)
class Service:
    """A running service. `process` is the one that was started; with several workers it has children."""

    address: str
    process: psutil.Process

    def cpu_s(self) -> float:
        """Return the processor time of all its processes so far."""
        return cpu_s_of(self.process)


def cpu_s_of(process: psutil.Process) -> float:
    """Return the processor time of a process and its children so far."""
    return sum(sum(one.cpu_times()[:2]) for one in (process, *process.children(recursive=True)))


@contextmanager
def serving(environment: dict[str, str], *options: str) -> Iterator[Service]:
    """Start the service, and end it behind the block.

    :raises SystemExit: it ended by itself.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "cli", "serve", *options, "--json"],
        env=environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Service(_address_of(process), psutil.Process(process.pid))
    finally:
        process.terminate()
        process.wait(END_S_MAX)


def _address_of(service: "subprocess.Popen[str]") -> str:
    told = ""
    while not told.endswith("}\n"):
        line = service.stdout.readline() if service.stdout else ""
        if not line:
            message = f"the service ended with {service.wait()}"
            raise SystemExit(message)
        told += line
    return str(json.loads(told)["address"])
