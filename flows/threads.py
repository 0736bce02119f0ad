"""Threads and memory of the flow's libraries. Imports none of them: it has to run before they are loaded."""

import os
from typing import Final

POLARS: Final = "POLARS_MAX_THREADS"
POLARS_MEMORY: Final = "_RJEM_MALLOC_CONF"


def limit(workers: int) -> None:
    """Give polars one thread per worker of the engine, unless the environment says how many.

    An item is thousands of rows, so splitting an operation over threads costs more than it saves: a fifth of the
    flow's processor time on two cores, which the servers beside it need.
    """
    os.environ.setdefault(POLARS, str(workers))


def keep_memory() -> None:
    """Let polars keep freed memory for ten seconds instead of half of one, and large blocks like any other.

    Items come a few times a second and each takes the memory that the last one left; given back in between, a fifth
    of it was asked for again page by page. Costs a twentieth more of resident memory.
    """
    os.environ.setdefault(POLARS_MEMORY, "oversize_threshold:0,dirty_decay_ms:10000")
