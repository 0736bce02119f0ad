"""Whether the recovery partitions are whole and of one time, and what the engine's own words about them mean.

The engine checks that no partition is missing. It does not see that one of them was put back from an older copy, or
comes from another installation: shards would go on from different moments, and events between them would be lost.
"""

import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from core.errors import FatalError, StateMismatch

COMMITS_APART_MAX: Final = 3
"""Epochs by which partitions may differ: each is committed on its own, and a kill may come between two."""
MADE_APART_MAX: Final = timedelta(minutes=10)
"""All partitions are made in one step; this much is allowed for a very slow disk."""

_WAY_OUT: Final = (
    "restore the whole state directory (recovery, dedupe and unique together) from one backup, or make them again "
    "from the events with `meterbridge rebuild`"
)
_DAMAGED: Final = ("DatabaseCorrupt", "NotADatabase")
_NOT_WHOLE: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
"""Primary codes of a file that is no partition (or has no tables); others are the disk's."""


def check(directory: Path) -> None:
    """Compare the partitions with each other, before the engine opens them.

    Never call it while the engine has them open in this process: closing a file here would drop the engine's locks.

    :raises StateMismatch: one is damaged, or they are not of one time.
    :raises FatalError: the disk refused.
    """
    made: dict[str, datetime] = {}
    commits: dict[str, int] = {}
    for path in sorted(directory.glob("part-*.sqlite3")):
        try:
            made[path.name], commits[path.name] = _read(path)
        except (sqlite3.Error, TypeError, ValueError) as error:
            if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF not in _NOT_WHOLE:
                raise _disk_refused(directory, str(error)) from error
            message = f"{path} cannot be read ({error}): {_WAY_OUT}"
            raise StateMismatch(message) from error
    if made and max(made.values()) - min(made.values()) > MADE_APART_MAX:
        oldest, newest = min(made, key=made.__getitem__), max(made, key=made.__getitem__)
        message = (
            f"{directory}: {oldest} was made at {made[oldest]:%Y-%m-%d %H:%M} UTC and {newest} at "
            f"{made[newest]:%Y-%m-%d %H:%M}: they are of different installations: {_WAY_OUT}"
        )
        raise StateMismatch(message)
    if commits and max(commits.values()) - min(commits.values()) > COMMITS_APART_MAX:
        oldest, newest = min(commits, key=commits.__getitem__), max(commits, key=commits.__getitem__)
        message = (
            f"{directory}: {oldest} ends with epoch {commits[oldest]} and {newest} with {commits[newest]}: they are of "
            f"different times: {_WAY_OUT}"
        )
        raise StateMismatch(message)


def _read(path: Path) -> tuple[datetime, int]:
    """Return when a partition was made and its last committed epoch (0: none)."""
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
    try:
        (made,) = connection.execute("SELECT created_at FROM parts").fetchone()
        (epoch,) = connection.execute("SELECT max(commit_epoch) FROM commits").fetchone()
    finally:
        connection.close()
    return datetime.strptime(made, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC), int(epoch or 0)


def explained(error: BaseException, directory: Path) -> FatalError | None:
    """Return what an error of the engine says about its recovery partitions; None if it speaks of something else."""
    from bytewax import recovery  # noqa: PLC0415

    text = " ".join(str(error).split())
    of_partitions = (
        recovery.InconsistentPartitionsError,
        recovery.MissingPartitionsError,
        recovery.NoPartitionsError,
    )
    if isinstance(error, of_partitions) or any(name in text for name in _DAMAGED):
        return StateMismatch(f"{directory}: the recovery partitions are not whole ({text}): {_WAY_OUT}")
    if "SqliteFailure" in text:
        return _disk_refused(directory, text)
    return None


def _disk_refused(directory: Path, text: str) -> FatalError:
    return FatalError(
        f"{directory}: the recovery partitions cannot be read or written ({text}): free space or repair the disk, "
        "check that this user may write there, and start again; the flow resumes from its last snapshot"
    )
