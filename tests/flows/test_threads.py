"""Threads and memory are set before polars is loaded, else it would do nothing."""

import os
import subprocess
import sys

from flows.threads import POLARS_MEMORY

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


KEEP = """
import os, sys
from flows import threads
threads.keep_memory()
assert "polars" not in sys.modules
import polars
print(polars.Series(range(1_000_000)).sum(), os.environ[threads.POLARS_MEMORY])
"""


def test_the_allocator_of_polars_knows_what_it_is_told() -> None:
    known = {name: value for name, value in os.environ.items() if name != POLARS_MEMORY}
    done = subprocess.run([sys.executable, "-c", KEEP], env=known, capture_output=True, text=True, check=True)
    total, told = done.stdout.split()
    assert (total, told.endswith("oversize_threshold:0,dirty_decay_ms:10000")) == ("499999500000", True)
    assert not done.stderr  # the allocator names there what it does not know
    own = known | {POLARS_MEMORY: "dirty_decay_ms:1"}
    done = subprocess.run([sys.executable, "-c", KEEP], env=own, capture_output=True, text=True, check=True)
    assert done.stdout.split()[1].endswith("dirty_decay_ms:1")
    wrong = known | {POLARS_MEMORY: "no_such_option:1"}
    done = subprocess.run([sys.executable, "-c", KEEP], env=wrong, capture_output=True, text=True, check=True)
    assert "no_such_option" in done.stderr
