"""A wall clock that tests can set for the processes they start; the monotonic clock stays, as on a real machine.

It is a small library that is preloaded, built from `settable_clock.c` with the machine's C compiler.
"""

import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("settable_clock.c")
COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")

needs_compiler = pytest.mark.skipif(
    COMPILER is None or os.uname().sysname != "Linux", reason="the settable clock needs Linux and a C compiler"
)


class SettableClock:
    """The clock of processes that are started inside `applied()`."""

    def __init__(self, directory: Path, seconds: int = 0) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._library, self._file = directory / "settable_clock.so", directory / "offset"
        assert COMPILER is not None
        subprocess.run([COMPILER, "-shared", "-fPIC", "-O2", "-o", str(self._library), str(SOURCE)], check=True)
        self._file.write_bytes(struct.pack("q", 0))
        self.set(seconds)

    def set(self, seconds: int) -> None:
        """Let the processes' clock differ from this machine's by that much, at once."""
        with self._file.open("r+b") as file:
            file.write(struct.pack("q", seconds))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let processes that are started in this block have the clock."""
        ours = {"LD_PRELOAD": str(self._library), "SETTABLE_CLOCK_FILE": str(self._file)}
        with pytest.MonkeyPatch.context() as patch:
            for name, value in ours.items():
                patch.setenv(name, value)
            yield
