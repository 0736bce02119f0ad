"""The sealed side of an id log: its manifest and segments, and the work that turns the tail into them.

Sealing and merging read only what never changes and write files that nothing names yet, so they run on a thread
beside the flow; their results count when the worker's own thread stores the manifest.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from core.directory_lock import DirectoryLock
from core.errors import InvariantViolation
from operators import dedupe_manifest, dedupe_seal
from operators.dedupe_compiled import Probes, probe_for
from operators.dedupe_cover import Cover
from operators.dedupe_disk import Disk
from operators.dedupe_manifest import Manifest, SegmentEntry
from operators.dedupe_open import Opened
from operators.dedupe_segment import Segment, open_segment
from operators.dedupe_tail import TailFile

DAY_RECORDS_MIN: Final = 1 << 16
"""A tail file of at least this many records is closed when its arrival day ends."""
WAITING_MAX: Final = 6
"""Closed tail files that may wait in memory for their turn; beyond, the worker waits for the thread."""

_MERGE_TURN: Final = threading.Semaphore(1)
"""Merges are long and never urgent: one at a time in a process."""


@dataclass(frozen=True, slots=True)
class _Made:
    """What came of work: a segment, if anything is left, and the filter that covers it."""

    segment: Segment | None
    cover: Cover


@dataclass(slots=True)
class _Job:
    """Work in progress: what it replaces, and what came of it."""

    work: Callable[[], _Made]
    file: TailFile | None = None
    segments: tuple[Segment, ...] = ()
    made: _Made | None = None
    error: BaseException | None = None
    thread: threading.Thread | None = None

    def run(self) -> None:
        try:
            self.made = self.work()
        except BaseException as error:
            self.error = error

    def run_in_turn(self) -> None:
        if self.file is not None:
            self.run()
            return
        with _MERGE_TURN:
            self.run()

    def result(self) -> _Made:
        if self.thread is not None:
            self.thread.join()
        if self.error is not None:
            raise self.error
        if self.made is None:
            message = "work on segments ended without a result"
            raise InvariantViolation(message)
        return self.made

    @property
    def is_running(self) -> bool:
        return self.thread is not None and self.thread.is_alive()


class Sealed:
    """Manifest, segments and the filter over them. Keeps the directory's lock as long as a thread may write there."""

    def __init__(
        self,
        directory: Path,
        lock: DirectoryLock,
        disk: Disk,
        opened: Opened,
        seal_records: int,
        *,
        background: bool,
        probes: Probes | None,
    ) -> None:
        self.manifest = opened.manifest
        self.segments = opened.segments
        self.cover = opened.cover
        self._probes = probes
        self._directory = directory
        self._lock = lock
        self._disk = disk
        self._log_id = bytes.fromhex(opened.manifest.log_id)
        self._seal_records = seal_records
        self._background = background
        self._job: _Job | None = None

    def mark_committed(self) -> None:
        """Record, once, that this log is in use."""
        if not self.manifest.committed:
            self._store(self.manifest.with_changes(committed=True))

    def advance(self, tail: list[TailFile], durable_end: int, expired_before: int) -> None:
        """Take up finished work and start what is due.

        :param tail: the tail files, oldest first; sealed ones are removed from the list.
        :param durable_end: only records below are sealed. :param expired_before: likewise durable.
        :raises DiskFailed: the disk refused, now or on the thread.
        """
        while True:
            if self._job is not None:
                waiting = len(self._due(tail, durable_end))
                if self._job.is_running and waiting <= WAITING_MAX:
                    return
                self._take_up(tail)
            self._drop_expired(expired_before)
            self._job = self._next(tail, durable_end, expired_before)
            if self._job is None:
                return
            if self._background:
                self._job.thread = threading.Thread(target=self._job.run_in_turn, name="seal ids", daemon=True)
                self._job.thread.start()
            else:
                self._job.run()

    @property
    def is_working(self) -> bool:
        """Return whether there is work that was not taken up yet."""
        return self._job is not None

    def close(self) -> None:
        """Wait for the thread; what it wrote is left to the next start."""
        if self._job is not None and self._job.thread is not None:
            self._job.thread.join()
        self._lock.release()

    # --- inside ------------------------------------------------------------------------------------------

    def _due(self, tail: list[TailFile], durable_end: int) -> list[TailFile]:
        closed = [file for file in tail if file is not tail[-1] or file.records >= self._seal_records]
        return [file for file in closed if file.end <= durable_end]

    def _next(self, tail: list[TailFile], durable_end: int, expired_before: int) -> _Job | None:
        due = self._due(tail, durable_end)
        if due:
            file = due[0]
            if file is not tail[0] or file.first != self.manifest.sealed_end:
                message = f"{file.path} cannot be sealed: sealed are {self.manifest.sealed_end} records"
                raise InvariantViolation(message)
            return _Job(lambda: self._seal(file), file=file)
        chosen = dedupe_seal.choose_merge(self.segments, min(DAY_RECORDS_MIN, self._seal_records))
        if chosen:
            return _Job(lambda: self._merge(chosen, expired_before), segments=tuple(chosen))
        return None

    # `segments` and `cover` do not change while work is in progress: both only do where work is taken up.

    def _seal(self, file: TailFile) -> _Made:
        entry = dedupe_seal.seal(self._disk, self._directory, self._log_id, file)
        if entry is None:
            return _Made(None, self.cover)
        segment = open_segment(self._directory, self._log_id, entry)
        return _Made(segment, self.cover.with_segment(segment, self.segments, probe_for(len(segment), self._probes)))

    def _merge(self, segments: list[Segment], expired_before: int) -> _Made:
        entry = dedupe_seal.merge(self._disk, self._directory, self._log_id, segments, expired_before)
        return _Made(None if entry is None else open_segment(self._directory, self._log_id, entry), self.cover)

    def _take_up(self, tail: list[TailFile]) -> None:
        """Let finished work count.

        a. The segment is written and durable, but nothing names it. Dying here: it is removed at the next start.
        b. Store the manifest. Dying after: what it replaces is removed at the next start.
        c. Remove the tail file, or the segments that were merged.
        """
        job, self._job = self._job, None
        if job is None:
            return
        made = job.result()
        new = [] if made.segment is None else [made.segment]
        self.cover = made.cover
        if job.file is None:
            self._replace(list(job.segments), new)
            return
        self.segments = [*self.segments, *new]
        self._store(
            self.manifest.with_changes(
                sealed_end=job.file.end, sealed_chain=job.file.chain, segments=self._entries(self.segments)
            )
        )
        tail.remove(job.file)
        self._disk.remove(job.file.path)

    def _drop_expired(self, expired_before: int) -> None:
        expired = [segment for segment in self.segments if segment.minute_max < expired_before]
        if expired:
            self._replace(expired, [])

    def _replace(self, old: list[Segment], new: list[Segment]) -> None:
        at = self.segments.index(old[0])
        kept = [segment for segment in self.segments if segment not in old]
        kept[at:at] = new
        self._store(self.manifest.with_changes(segments=self._entries(kept)))
        self.segments = kept
        for segment in old:
            self._disk.remove(segment.path)

    def _store(self, manifest: Manifest) -> None:
        dedupe_manifest.store(self._disk, self._directory, manifest)
        self.manifest = manifest

    @staticmethod
    def _entries(segments: list[Segment]) -> tuple[SegmentEntry, ...]:
        return tuple(segment.entry for segment in segments)
