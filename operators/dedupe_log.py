"""The id log: an exact set of 128-bit digests with a payload, append-only, one per shard, on local disk.

Used by one worker thread. The numbers in the comments are the steps of the protocol; each says what happens if
the process dies there. Records are numbered from 0 for ever.

Guarantee: after a resume the set is exactly what it was at the snapshot; it never starts empty in silence.
Unit of parallelism: one log per shard directory, guarded by a lock.
"""

import os
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from core.directory_lock import DirectoryLock
from operators import dedupe_open, dedupe_tail
from operators.dedupe_answer import Answer
from operators.dedupe_compiled import Probes, probe_for
from operators.dedupe_disk import Disk, SystemDisk
from operators.dedupe_open import FORMAT, Opened
from operators.dedupe_run import U32, U64, Records, RunStack
from operators.dedupe_sealed import DAY_RECORDS_MIN, Sealed
from operators.dedupe_tail import TailFile, TailIndex

SEAL_RECORDS: Final = 1 << 20
"""A tail file of this many records is closed, to be sealed when it is durable."""
MINUTES_PER_DAY: Final = 1440

Found = tuple[npt.NDArray[np.bool_], U64, U32]


class IdLog:
    """The exact set of one shard. Build it with `open`; close it only where a process outlives its flow."""

    def __init__(
        self,
        directory: Path,
        disk: Disk,
        opened: Opened,
        sealed: Sealed,
        seal_records: int,
        probes: Probes | None,
    ) -> None:
        self._directory = directory
        self._disk = disk
        self._sealed = sealed
        self._log_id = bytes.fromhex(opened.manifest.log_id)
        self._tail: list[TailFile] = opened.tail
        self._end = opened.end
        self._chain = opened.chain
        self._expired_before = opened.expired_before
        self._seal_records = seal_records
        self._probes = probes
        self._handed_out: tuple[int, int] | None = None

    @classmethod
    def open(
        cls,
        directory: Path,
        resume: dict[str, Any] | None,
        *,
        disk: Disk | None = None,
        seal_records: int = SEAL_RECORDS,
        background: bool = True,
        probes: Probes | None = None,
    ) -> "IdLog":
        """Open the log of a shard directory, made if absent.

        :param resume: what `snapshot` returned, from the recovery state; None if there is none.
        :param seal_records: records after which a tail file is closed.
        :param background: seal and merge on a thread; else within `committed`.
        :param probes: loads compiled look-ups; None: do without.
        :raises LockHeld: another process has the directory.
        :raises StateMismatch: the state and the log do not belong together, or the log is damaged; the message
            says what to do. Nothing was changed.
        :raises DiskFailed: the disk refused.
        """
        disk = disk or SystemDisk()
        _make_directory(directory, disk)
        lock = DirectoryLock(directory / "lock")  # 1. held for the process's life
        try:
            opened = dedupe_open.open_log(directory, resume, disk, lambda: os.urandom(16).hex(), probes)
        except BaseException:
            lock.release()
            raise
        sealed = Sealed(directory, lock, disk, opened, seal_records, background=background, probes=probes)
        return cls(directory, disk, opened, sealed, seal_records, probes)

    def find(self, hi: U64, lo: U64, horizon_from_minute: int | npt.NDArray[Any]) -> Found:
        """Look digests up: whether each was seen, with which payload and at which arrival minute.

        Of an id with several records the newest counts. `found` is False if it arrived before the horizon,
        whichever files exist; payload and minute are only meaningful where `found` is True.

        :param horizon_from_minute: first arrival minute that counts, one for all or one per digest.
        """
        hi, lo = np.ascontiguousarray(hi, np.uint64), np.ascontiguousarray(lo, np.uint64)
        answer = Answer.blank(len(hi))
        probe = probe_for(len(hi), self._probes)
        query = probe.query(hi)
        for file in reversed(self._tail):
            file.index.find(hi, lo, answer, probe, query)
        keys = self._sealed.cover.candidates(query, probe)
        for segment in reversed(self._sealed.segments):
            keys = answer.open(keys)
            if not len(keys):
                break
            rows, places = segment.locate(hi[keys], lo[keys], probe)
            answer.take(keys[rows], *segment.read(places))
        found = answer.found & (answer.minute >= horizon_from_minute)
        return found, answer.content, answer.minute

    def append(self, hi: U64, lo: U64, content: U64, arrival_minute: U32) -> None:
        """Add records, in order. Arrival minutes are whole minutes since 1970.

        2. A frame goes to the tail file and into the index. Dying here: frames behind the last snapshot are cut
        off at the next start, and the epoch is replayed.
        """
        records = Records(
            np.ascontiguousarray(hi, np.uint64),
            np.ascontiguousarray(lo, np.uint64),
            np.ascontiguousarray(content, np.uint64),
            np.ascontiguousarray(arrival_minute, np.uint32),
        )
        for at in range(0, len(records), dedupe_tail.FRAME_RECORDS_MAX):
            part = records.take(slice(at, at + dedupe_tail.FRAME_RECORDS_MAX))
            file = self._open_tail(int(part.minute[0]) // MINUTES_PER_DAY)
            data, self._chain = dedupe_tail.frame(part, self._end, self._chain)
            self._disk.append(file.path, data)
            file.index.add(part)
            self._end += len(part)
            file.end, file.chain, file.dirty = self._end, self._chain, True

    def expire(self, before_minute: int) -> None:
        """Say that records which arrived before that minute will never be asked for again."""
        self._expired_before = max(self._expired_before, before_minute)

    def snapshot(self) -> dict[str, Any]:
        """Make everything appended durable and return the plain value to resume from.

        3. Sync the tail files, and the directory for new ones. Dying here: the last durable snapshot counts, and
        what was synced behind it is cut off.
        """
        new = False
        for file in self._tail:
            if file.dirty:
                self._disk.sync(file.path)
                new |= file.new
                file.dirty = file.new = False
        if new:
            self._disk.sync_directory(self._directory)
        self._handed_out = (self._end, self._expired_before)
        return {
            "format": FORMAT,
            "log": self._sealed.manifest.log_id,
            "length": self._end,
            "chain": self._chain,
            "expired_before": self._expired_before,
        }

    def committed(self) -> None:
        """Take the last snapshot as durable everywhere; called first thing after it, before any `append`.

        4. Record in the manifest, once, that this log is in use. Dying before: a start without state begins
        anew, which is right, since no epoch was committed. Dying after: a start without state is refused.
        5. Seal closed tail files below the durable length. 6. Delete what the durable snapshot calls expired.
        """
        if self._handed_out is None:
            return
        durable_end, durable_expired_before = self._handed_out
        self._handed_out = None
        self._sealed.mark_committed()
        self._sealed.advance(self._tail, durable_end, durable_expired_before)

    @property
    def ids(self) -> int:
        """Return how many records the index holds."""
        return sum(len(file.index) for file in self._tail) + sum(map(len, self._sealed.segments))

    @property
    def disk_bytes(self) -> int:
        """Return the bytes of segments and tail, without headers of the tail."""
        tail = sum(file.records for file in self._tail) * dedupe_tail.RECORD.itemsize
        return tail + sum(segment.file_bytes for segment in self._sealed.segments)

    @property
    def is_sealing(self) -> bool:
        """Return whether segments are being sealed or merged, or were and `committed` has not been called since."""
        return self._sealed.is_working

    def close(self) -> None:
        """Give the lock up. What was not in a snapshot is cut off at the next start."""
        self._sealed.close()

    # --- inside ------------------------------------------------------------------------------------------

    def _open_tail(self, day: int) -> TailFile:
        """Return the tail file to append to: the last one, or a new one where that is full or its day is over."""
        if self._tail:
            last = self._tail[-1]
            day_is_over = last.records >= min(DAY_RECORDS_MIN, self._seal_records) and day != last.day_first
            if not day_is_over and last.records < self._seal_records:
                if isinstance(last.index, RunStack):  # begun, or read at the start, before compiled code was there
                    last.index = self._index(last.index)
                return last
        path = self._directory / dedupe_tail.file_name(self._end)
        self._disk.remove(path)
        self._disk.append(path, dedupe_tail.header(self._log_id, self._end, self._chain))
        file = TailFile(path, self._end, self._end, self._chain, day, self._index(), dirty=True, new=True)
        self._tail.append(file)
        return file

    def _index(self, before: RunStack | None = None) -> TailIndex:
        """Return an index for a tail file that holds what one of before did."""
        runs = RunStack() if before is None else before
        table = probe_for(0, self._probes).table()
        if table is None:
            return runs
        if len(runs):
            table.add(runs.merged())
        return table


def _make_directory(directory: Path, disk: Disk) -> None:
    """Make the directory and those above it, so that none of their names is lost with the power."""
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    for path in reversed(missing):
        disk.sync_directory(path.parent)
