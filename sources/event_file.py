"""Reads NDJSON files of any size, plain or compressed, in batches of lines."""

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from core.errors import InvalidRequest

LINE_BYTES_MAX: Final = 16 << 20
BATCH_LINES: Final = 5_000
BATCH_BYTES: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines that are not empty, without their ends; `numbers` are theirs in the file, from 1."""

    numbers: list[int]
    texts: list[bytes]
    size_bytes: int


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        if path.suffix == ".gz":
            file: Any = gzip.open(path, "rb")  # noqa: SIM115  # closed below
        elif path.suffix == ".zst":
            file = pa.CompressedInputStream(pa.OSFile(str(path), "rb"), "zstd")
        else:
            file = path.open("rb")
    except OSError as error:
        message = f"cannot read {path}: {error.strerror or error}; name an NDJSON file of CloudEvents (.gz, .zst)"
        raise InvalidRequest(message) from error
    with file:
        yield file


def read_lines(path: Path, after: int = 0) -> Iterator[Lines]:
    """Yield the lines behind the first `after` ones, in batches of bounded size.

    :raises InvalidRequest: the file cannot be read, is damaged, or has a line of more than LINE_BYTES_MAX.
    """
    found = Lines([], [], 0)
    try:
        with _opened(path) as file:
            for number, line in enumerate(_split(file, path), 1):
                text = line.strip()
                if number <= after or not text:
                    continue
                if len(found.texts) >= BATCH_LINES or found.size_bytes + len(text) > BATCH_BYTES:
                    yield found
                    found = Lines([], [], 0)
                found.numbers.append(number)
                found.texts.append(text)
                found = Lines(found.numbers, found.texts, found.size_bytes + len(text))
    except (EOFError, gzip.BadGzipFile, pa.ArrowException) as error:
        message = f"{path} is damaged or cut off: {error}"
        raise InvalidRequest(message) from error
    if found.texts:
        yield found


def _split(file: Any, path: Path) -> Iterator[bytes]:
    """Yield lines of a stream that only knows `read`."""
    rest = b""
    while chunk := file.read(1 << 20):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
        if len(rest) > LINE_BYTES_MAX:
            message = f"{path}: a line is longer than {LINE_BYTES_MAX} bytes; is it one event a line?"
            raise InvalidRequest(message)
    if rest:
        yield rest
