"""One owner per directory: a lock held for the life of the process, so that two never write the same state."""

import errno
import fcntl
import os
import weakref
from pathlib import Path
from types import TracebackType

from core.errors import FatalError, LockHeld


class DirectoryLock:
    """Exclusive lock on a file that stands for a directory, taken at once or refused.

    The kernel drops it when the process ends, however it ends, so no stale lock is ever left. The file itself
    stays: removing it would let two processes lock two different files of the same name.

    :param path: the lock file, made if absent; its directory must exist.
    :raises LockHeld: another process (or another part of this one) holds it; names its process id.
    :raises FatalError: the file cannot be opened or locked at all.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            message = f"cannot open the lock file {path}: {error.strerror}: check the directory and its owner"
            raise FatalError(message) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = _holder(self._descriptor)
            os.close(self._descriptor)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                message = f"cannot lock {path}: {error.strerror}: the state directory has to be on a local disk"
                raise FatalError(message) from error
            message = (
                f"{path} is locked by {holder}: stop that process first, or give this one another "
                "state directory (METERBRIDGE_STATE_DIR)"
            )
            raise LockHeld(message) from error
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)
        self._close = weakref.finalize(self, os.close, self._descriptor)

    def release(self) -> None:
        """Give the lock up; a second call does nothing."""
        self._close()

    def __enter__(self) -> "DirectoryLock":
        """Return the lock, which is already held."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the lock up."""
        self.release()


def _holder(descriptor: int) -> str:
    text = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
    return f"process {text}" if text.isdigit() else "another process"
