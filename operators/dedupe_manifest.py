"""The manifest of one id log: what it is, and which sealed segments stand for its beginning.

It is replaced as a whole (temporary file, sync, rename, sync directory); that rename is the moment at which a
seal, a merge or an expiry counts. Files that it does not name are left-overs of a crash and are removed.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import orjson
from xxhash import xxh3_64_hexdigest

from core.errors import StateMismatch
from operators.dedupe_disk import Disk

FORMAT: Final = 2
"""As 1, but segments may have their format 2, which releases before do not read."""
_READABLE: Final = (1, FORMAT)
NAME: Final = "manifest.json"
_TEMPORARY: Final = "manifest.tmp"


@dataclass(frozen=True, slots=True)
class SegmentEntry:
    """One sealed segment: records `first` to `end` (exclusive), and the checksum of its file's header."""

    name: str
    first: int
    end: int
    checksum: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is durable about a log beside its tail."""

    log_id: str
    committed: bool = False
    """A snapshot of this log was durable once: from then on it is never started empty."""
    sealed_end: int = 0
    sealed_chain: int = 0
    segments: tuple[SegmentEntry, ...] = ()

    def with_changes(self, **changes: Any) -> "Manifest":
        """Return a copy with other values."""
        return replace(self, **changes)


def store(disk: Disk, directory: Path, manifest: Manifest) -> None:
    """Replace the manifest. If the process dies before the rename, the old one counts; after it, the new one."""
    body = orjson.dumps(asdict(manifest), option=orjson.OPT_SORT_KEYS)
    text = orjson.dumps({"format": FORMAT, "checksum": xxh3_64_hexdigest(body), "manifest": body.decode()})
    temporary = directory / _TEMPORARY
    disk.remove(temporary)
    disk.append(temporary, text)
    disk.sync(temporary)
    disk.rename(temporary, directory / NAME)
    disk.sync_directory(directory)


def load(directory: Path) -> Manifest | None:
    """Return the manifest, or None if there is none.

    :raises StateMismatch: it is damaged, or of another format.
    """
    path = directory / NAME
    if not path.exists():
        return None
    try:
        wrapper = orjson.loads(path.read_bytes())
        version, checksum, body = wrapper["format"], wrapper["checksum"], wrapper["manifest"]
        intact = xxh3_64_hexdigest(body.encode()) == checksum
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise _unreadable(path, "it is not a manifest") from error
    if version not in _READABLE:
        raise _unreadable(path, f"its format is {version}, this release reads up to {FORMAT}")
    if not intact:
        raise _unreadable(path, "its checksum differs")
    fields = orjson.loads(body)
    fields["segments"] = tuple(SegmentEntry(**entry) for entry in fields["segments"])
    return Manifest(**fields)


def _unreadable(path: Path, what: str) -> StateMismatch:
    message = (
        f"{path}: {what}: restore the whole state directory (recovery, dedupe and unique together) from one "
        "backup, or make them again from the events with `meterbridge rebuild`"
    )
    return StateMismatch(message)
