"""The limit is set before polars is loaded, else it would do nothing."""

import os
import subprocess
import sys

START = """
import sys
from cli.context import context
from flows import threads
threads.limit(context().settings.flow.workers)
assert "polars" not in sys.modules
import polars
print(polars.thread_pool_size())
"""


def pool_size(**environment: str) -> str:
    known = {name: value for name, value in os.environ.items() if name != "POLARS_MAX_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", START], env=known | environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_one_thread_per_worker() -> None:
    assert pool_size() == "1"
    assert pool_size(METERBRIDGE_FLOW__WORKERS="3") == "3"


def test_the_environment_has_the_last_word() -> None:
    assert pool_size(POLARS_MAX_THREADS="2") == "2"
