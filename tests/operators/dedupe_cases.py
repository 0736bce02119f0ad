"""Helpers for the id log's tests: columns from ids, and a disk that remembers what a crash would leave."""

import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import xxhash

from operators.dedupe_compiled import Probes
from operators.dedupe_disk import Buffer, SystemDisk
from operators.dedupe_log import IdLog

SCRATCH = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108
"""Memory, where there is some: thousands of small files are rewritten and synced."""

COMPILED_DIR = Path(tempfile.gettempdir()) / "meterbridge-tests" / "compiled"
COMPILED = Probes(COMPILED_DIR, ids_before=0)

Key = tuple[int, int]
Record = tuple[int, int]


def key(number: int) -> Key:
    """Return a uniform digest for a small number; numbers 1000 to 1003 share their upper half.

    So do numbers 1004 to 1015 in part: the upper 48, 32 and 16 bits, four each.
    """
    digest = xxhash.xxh3_128_intdigest(number.to_bytes(8, "big"))
    if 1000 <= number < 1004:
        return 0x7777_0000_1111_2222, digest & (2**64 - 1)
    hi, lo = digest >> 64, digest & (2**64 - 1)
    if 1004 <= number < 1016:
        own_bits = 16 * (1 + (number - 1004) // 4)
        hi = 0x7777_0000_1111_2222 >> own_bits << own_bits | hi & ((1 << own_bits) - 1)
    return hi, lo


def columns(keys: Iterable[Key]) -> tuple[np.ndarray, np.ndarray]:
    pairs = list(keys)
    return np.array([pair[0] for pair in pairs], np.uint64), np.array([pair[1] for pair in pairs], np.uint64)


def append(log: IdLog, records: list[tuple[Key, int, int]]) -> None:
    hi, lo = columns(record[0] for record in records)
    content = np.array([record[1] for record in records], np.uint64)
    minute = np.array([record[2] for record in records], np.uint32)
    log.append(hi, lo, content, minute)


def find(log: IdLog, keys: list[Key], horizon_from: int = 0) -> dict[Key, Record]:
    hi, lo = columns(keys)
    found, content, minute = log.find(hi, lo, horizon_from)
    rows = zip(keys, found.tolist(), content.tolist(), minute.tolist(), strict=True)
    return {name: (payload, at) for name, seen, payload, at in rows if seen}


class HastyDisk(SystemDisk):
    """Does not wait for the disk, for tests that do not ask about lost power."""

    def sync(self, path: Path) -> None:
        assert path.exists()

    def sync_directory(self, path: Path) -> None:
        assert path.is_dir()


class _File:
    def __init__(self) -> None:
        self.data = bytearray()
        self.durable = b""


class RememberingDisk(HastyDisk):
    """The real disk, which also knows what is durable. `on_operation` is called before every operation.

    The model is the pessimistic one: bytes are durable after `sync`, names after `sync_directory`.
    """

    def __init__(self, on_operation: Callable[["RememberingDisk", str], None]) -> None:
        self._on_operation = on_operation
        self.names: dict[Path, _File] = {}
        self.durable_names: dict[Path, _File] = {}

    def adopt(self, path: Path) -> None:
        """Take a file that is there, and durable, into the model."""
        file = _File()
        file.data += path.read_bytes()
        file.durable = bytes(file.data)
        self.names[path] = self.durable_names[path] = file

    def append(self, path: Path, data: Buffer) -> None:
        self._on_operation(self, f"append {path.name}")
        super().append(path, data)
        self.names.setdefault(path, _File()).data += bytes(data)

    def cut(self, path: Path, length: int) -> None:
        self._on_operation(self, f"cut {path.name}")
        super().cut(path, length)
        del self.names[path].data[length:]

    def sync(self, path: Path) -> None:
        self._on_operation(self, f"sync {path.name}")
        super().sync(path)
        self.names[path].durable = bytes(self.names[path].data)

    def rename(self, source: Path, target: Path) -> None:
        self._on_operation(self, f"rename {source.name}")
        super().rename(source, target)
        self.names[target] = self.names.pop(source)

    def remove(self, path: Path) -> None:
        self._on_operation(self, f"remove {path.name}")
        super().remove(path)
        self.names.pop(path, None)

    def sync_directory(self, path: Path) -> None:
        self._on_operation(self, f"sync_directory {path.name}")
        super().sync_directory(path)
        kept = {name: file for name, file in self.durable_names.items() if name.parent != path}
        self.durable_names = kept | {name: file for name, file in self.names.items() if name.parent == path}

    def images(self) -> list[dict[str, bytes]]:
        """Return directory contents that a crash now may leave: a killed process, and lost power in variants."""
        killed = {path.name: bytes(file.data) for path, file in self.names.items()}
        out = [killed]
        for number, names in enumerate(self._names_after_lost_power()):
            for kept_of_eight in (0, 3, 8) if number < 2 else (8,):
                out.append({path.name: _survivors(file, kept_of_eight) for path, file in names.items()})
        return out

    def _names_after_lost_power(self) -> list[dict[Path, _File]]:
        """Return name tables: none, one, all but one or all of the changes since `sync_directory` survived."""
        tables = [self.durable_names, self.names]
        for path in self.names.keys() | self.durable_names.keys():
            if self.names.get(path) is not self.durable_names.get(path):
                tables.append(_with(self.durable_names, path, self.names.get(path)))
                tables.append(_with(self.names, path, self.durable_names.get(path)))
        return tables


def _with(names: dict[Path, _File], path: Path, file: _File | None) -> dict[Path, _File]:
    rest = {name: other for name, other in names.items() if name != path}
    return rest if file is None else rest | {path: file}


def _survivors(file: _File, kept_of_eight: int) -> bytes:
    """Return a file's bytes: of what was appended unsynced some survive, what was cut unsynced may come back."""
    unsynced = len(file.data) - len(file.durable)
    if unsynced < 0:
        return bytes(file.data) if kept_of_eight == 8 else file.durable
    return bytes(file.data[: len(file.durable) + unsynced * kept_of_eight // 8])


def lay_out(image: dict[str, bytes], directory: Path) -> None:
    directory.mkdir(parents=True)
    for name, data in image.items():
        (directory / name).write_bytes(data)
