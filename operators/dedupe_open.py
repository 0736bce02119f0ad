"""Opening an id log: check that the recovery state and the files belong together, then cut off what came later."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from core.errors import StateMismatch
from operators import dedupe_manifest, dedupe_tail
from operators.dedupe_compiled import Probes, probe_for
from operators.dedupe_cover import Cover
from operators.dedupe_disk import Disk
from operators.dedupe_manifest import Manifest
from operators.dedupe_probe import NUMPY
from operators.dedupe_segment import Segment, open_segment
from operators.dedupe_tail import TailFile

FORMAT: Final = 1

_REBUILD: Final = (
    "restore the whole state directory (recovery, dedupe and unique together) from one backup, or make them "
    "again from the events with `meterbridge rebuild`"
)


@dataclass(frozen=True, slots=True)
class Opened:
    """A log as found on disk, cut to the length of the state."""

    manifest: Manifest
    segments: list[Segment]
    cover: Cover
    tail: list[TailFile]
    end: int
    chain: int
    expired_before: int


def open_log(
    directory: Path,
    resume: dict[str, Any] | None,
    disk: Disk,
    new_log_id: Callable[[], str],
    probes: Probes | None,
) -> Opened:
    """Open the log for the state, or start it if there is neither.

    All checks come before the first change.

    :param probes: loads compiled look-ups; None: do without.
    :raises StateMismatch: they do not belong together, or the log is damaged.
    """
    manifest = dedupe_manifest.load(directory)
    if resume is None:
        return _start(directory, manifest, disk, new_log_id)
    _check_state(directory, manifest, resume)
    assert manifest is not None  # noqa: S101 - _check_state refused otherwise
    return _resume(directory, manifest, resume, disk, probes)


def _start(directory: Path, manifest: Manifest | None, disk: Disk, new_log_id: Callable[[], str]) -> Opened:
    """Start at record 0; what an uncommitted run left behind is removed."""
    if manifest is not None and manifest.committed:
        message = (
            f"{directory} holds a log in use, but the recovery directory has no state for it: starting empty would "
            f"count events twice: {_REBUILD}"
        )
        raise StateMismatch(message)
    left = _tail_paths(directory) + _segment_paths(directory)
    if manifest is None:
        if left:
            message = f"{directory} has log files, such as {left[0].name}, but no manifest: {_REBUILD}"
            raise StateMismatch(message)
        # The id only tells this log from another one; nothing that is stored or posted derives from it.
        manifest = Manifest(new_log_id())
        dedupe_manifest.store(disk, directory, manifest)
    for path in left:
        disk.remove(path)
    disk.sync_directory(directory)
    return Opened(manifest, [], Cover((), NUMPY), [], 0, 0, 0)


def _check_state(directory: Path, manifest: Manifest | None, resume: dict[str, Any]) -> None:
    """Refuse a state that is not this log's. Steps 7 and 10 of the protocol."""
    if resume.get("format") != FORMAT:
        message = (
            f"{directory}: the recovery state has log format {resume.get('format')}, this release reads {FORMAT}: "
            "run the release that wrote it"
        )
        raise StateMismatch(message)
    if manifest is None:
        message = (
            f"{directory} has no log, but the recovery state names log {resume['log']} with {resume['length']} "
            "records: if the shard moved to this host, stop the flow, copy the directory here and start again; "
            f"else {_REBUILD}"
        )
        raise StateMismatch(message)
    if manifest.log_id != resume["log"]:
        message = (
            f"{directory} holds log {manifest.log_id}, but the recovery state names {resume['log']}: one of the two "
            f"is from another installation or backup: {_REBUILD}"
        )
        raise StateMismatch(message)
    if resume["length"] < manifest.sealed_end:
        message = (
            f"{directory}: the recovery directory is older than the log: it ends at record {resume['length']}, but "
            f"records up to {manifest.sealed_end} are sealed: {_REBUILD}"
        )
        raise StateMismatch(message)


def _resume(directory: Path, manifest: Manifest, resume: dict[str, Any], disk: Disk, probes: Probes | None) -> Opened:
    log_id = bytes.fromhex(manifest.log_id)
    segments = [open_segment(directory, log_id, entry) for entry in manifest.segments]
    cover = Cover(segments, probe_for(sum(map(len, segments)), probes))
    tail, left, cut_at = _read_tail(directory, manifest, resume)

    # From here on files change. Dying anywhere below leaves what the next start does again.
    named = {entry.name for entry in manifest.segments}
    left += [path for path in _segment_paths(directory) if path.name not in named]
    for path in left:
        disk.remove(path)
    if tail and cut_at < tail[-1].path.stat().st_size:
        disk.cut(tail[-1].path, cut_at)
        disk.sync(tail[-1].path)
    disk.sync_directory(directory)
    if not manifest.committed:  # the state came back, so it was durable
        manifest = manifest.with_changes(committed=True)
        dedupe_manifest.store(disk, directory, manifest)
    return Opened(manifest, segments, cover, tail, resume["length"], resume["chain"], resume["expired_before"])


def _read_tail(directory: Path, manifest: Manifest, resume: dict[str, Any]) -> tuple[list[TailFile], list[Path], int]:
    """Read the tail from the sealed end to the state's length.

    :return: the files, the paths of files that hold nothing below that length, and the length in bytes to
        which the last file has to be cut.
    """
    length = resume["length"]
    end, chain, cut_at = manifest.sealed_end, manifest.sealed_chain, 0
    tail: list[TailFile] = []
    left: list[Path] = []
    for path in _tail_paths(directory):
        first = int(path.stem.removeprefix("tail-"))
        if first < manifest.sealed_end or first >= length:
            left.append(path)
            continue
        if first != end:
            raise dedupe_tail.damaged(path, 0, f"it begins at record {first}, but {end} is next")
        file, cut_at = dedupe_tail.read_file(
            path, log_id=bytes.fromhex(manifest.log_id), first=first, chain=chain, length=length
        )
        end, chain = file.end, file.chain
        tail.append(file)
    if end != length or chain != resume["chain"]:
        message = (
            f"{directory}: the log ends at record {end} with chain value {chain:016x}, but the recovery state says "
            f"{length} and {resume['chain']:016x}: records that were durable are gone: {_REBUILD}"
        )
        raise StateMismatch(message)
    return tail, left, cut_at


def _tail_paths(directory: Path) -> list[Path]:
    return sorted(directory.glob("tail-*.log"))


def _segment_paths(directory: Path) -> list[Path]:
    return sorted(directory.glob("segment-*.ids*"))
