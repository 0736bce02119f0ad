"""What the id log asks of the disk: few calls, so that tests can stand between and stop at each of them."""

import os
from pathlib import Path
from typing import Protocol

from core import faults
from core.errors import FatalError

Buffer = bytes | memoryview


class DiskFailed(FatalError):
    """The disk refused (full, read-only, gone); nothing that was promised durable is lost."""


class Disk(Protocol):
    """Called by the id log on its worker's thread; calls may block for as long as the disk does.

    Every method raises DiskFailed if the disk refuses.
    """

    def append(self, path: Path, data: Buffer) -> None:
        """Write behind the end of a file, made if absent. Not durable yet."""
        ...

    def cut(self, path: Path, length: int) -> None:
        """Shorten a file to that many bytes. Not durable yet."""
        ...

    def sync(self, path: Path) -> None:
        """Return when the file's content and length are on the disk."""
        ...

    def rename(self, source: Path, target: Path) -> None:
        """Give a file a name, replacing what had it. Not durable before `sync_directory`."""
        ...

    def remove(self, path: Path) -> None:
        """Delete a file; absent is well."""
        ...

    def sync_directory(self, path: Path) -> None:
        """Return when the directory's names are on the disk."""
        ...


class SystemDisk:
    """The machine's file system."""

    def append(self, path: Path, data: Buffer) -> None:
        """Write behind the end of a file, made if absent."""
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            try:
                rest = memoryview(data).cast("B")
                faults.reach("log.append")
                while rest:
                    rest = rest[os.write(descriptor, rest) :]
            finally:
                os.close(descriptor)
        except OSError as error:
            raise _failed(error, "write", path) from error

    def cut(self, path: Path, length: int) -> None:
        """Shorten a file to that many bytes."""
        try:
            os.truncate(path, length)
        except OSError as error:
            raise _failed(error, "shorten", path) from error

    def sync(self, path: Path) -> None:
        """Return when the file's content and length are on the disk."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                faults.reach("log.sync")
                os.fdatasync(descriptor)
                faults.reach("log.synced")
            finally:
                os.close(descriptor)
        except OSError as error:
            raise _failed(error, "sync", path) from error

    def rename(self, source: Path, target: Path) -> None:
        """Give a file a name, replacing what had it."""
        try:
            faults.reach("segment.rename")
            os.replace(source, target)
            faults.reach("segment.renamed")
        except OSError as error:
            raise _failed(error, "rename", source) from error

    def remove(self, path: Path) -> None:
        """Delete a file; absent is well."""
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise _failed(error, "remove", path) from error

    def sync_directory(self, path: Path) -> None:
        """Return when the directory's names are on the disk."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise _failed(error, "sync", path) from error


def _failed(error: OSError, verb: str, path: Path) -> DiskFailed:
    message = (
        f"cannot {verb} {path}: {error.strerror}: free space or repair the disk and start again; "
        "the flow resumes from its last snapshot"
    )
    return DiskFailed(message)
