"""Holds the data of an insert in a file in shared memory, from where the engine reads it without a copy."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from stack.sql_text import Insert


class Spooled:
    """Context that removes the file of one insert at its end."""

    def __init__(self) -> None:
        self._path: Path | None = None

    def __enter__(self) -> "Spooled":
        """Begin without a file."""
        return self

    def create(self, directory: Path) -> tuple[int, Path]:
        """Make the file and return its descriptor and path."""
        descriptor, name = tempfile.mkstemp(prefix="insert-", dir=directory)
        self._path = Path(name)
        return descriptor, self._path

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the file, whatever happened."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def spool_insert(insert: Insert, data: Iterator[bytes], spooled: Spooled, directory: Path) -> str:
    """Write the rows to a file and return the statement that inserts them from there."""
    descriptor, path = spooled.create(directory)
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        for piece in data:
            view = memoryview(piece)
            while view:
                view = view[file.write(view) :]
    return insert.from_file(str(path))
