"""How many threads the flow's libraries may use. Imports none of them: it has to run before they are loaded."""

import os
from typing import Final

POLARS: Final = "POLARS_MAX_THREADS"


def limit(workers: int) -> None:
    """Give polars one thread per worker of the engine, unless the environment says how many.

    An item is thousands of rows, so splitting an operation over threads costs more than it saves: a fifth of the
    flow's processor time on two cores, which the servers beside it need.
    """
    os.environ.setdefault(POLARS, str(workers))
