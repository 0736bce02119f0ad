import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.faults.world import World


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Callable[[int], World]]:
    """Return a function that makes a world from a seed; all of them are closed behind the test."""
    with ExitStack() as stack:

        def make(seed: int) -> World:
            made = World(tmp_path / f"world{seed}", seed, (free_port(), free_port()))
            stack.callback(made.close)
            return made

        yield make
