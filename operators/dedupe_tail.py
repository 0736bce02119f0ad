"""The open end of the id log: append-only files of frames whose checksums chain from the log's first record.

A file's name says the number of its first record. Header (48 bytes): magic, format, log id, first record, chain
value before it, checksum of the header. Frame: magic, number of records, first record, chain value, then the
records of 28 bytes. The chain value of a frame is the XXH3 of its header fields and payload, seeded with the
chain value before it: one torn or flipped bit anywhere breaks everything behind it.
"""

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from xxhash import xxh3_64_intdigest

from core.errors import StateMismatch
from operators.dedupe_answer import Answer
from operators.dedupe_probe import Probe
from operators.dedupe_run import EMPTY, U64, Records, RunStack, concatenate

FORMAT: Final = 1
RECORD: Final = np.dtype([("hi", "<u8"), ("lo", "<u8"), ("content", "<u8"), ("minute", "<u4")])
FRAME_RECORDS_MAX: Final = 1 << 20

_HEADER: Final = struct.Struct("<8sII16sQQ")
_HEADER_BYTES: Final = _HEADER.size + 8
_HEADER_MAGIC: Final = b"MBIDTAIL"
_FRAME: Final = struct.Struct("<IIQ")
_FRAME_BYTES: Final = _FRAME.size + 8
_FRAME_MAGIC: Final = 0x4D464454
_CHECKSUM: Final = struct.Struct("<Q")


def file_name(first: int) -> str:
    """Return the name of the tail file that begins with that record."""
    return f"tail-{first:020d}.log"


def header(log_id: bytes, first: int, chain: int) -> bytes:
    """Return the first bytes of a tail file."""
    fields = _HEADER.pack(_HEADER_MAGIC, FORMAT, _HEADER_BYTES, log_id, first, chain)
    return fields + _CHECKSUM.pack(xxh3_64_intdigest(fields))


def frame(records: Records, first: int, chain: int) -> tuple[bytes, int]:
    """Return one frame and the chain value behind it."""
    rows = np.empty(len(records), dtype=RECORD)
    rows["hi"], rows["lo"] = records.hi, records.lo
    rows["content"], rows["minute"] = records.content, records.minute
    payload = rows.tobytes()
    fields = _FRAME.pack(_FRAME_MAGIC, len(records), first)
    chain = xxh3_64_intdigest(fields + payload, chain)
    return b"".join((fields, _CHECKSUM.pack(chain), payload)), chain


class TailIndex(Protocol):
    """The records of a tail file for look-ups: `RunStack`, or `TailTable` where there is compiled code."""

    def __len__(self) -> int:
        """Return how many records it holds; older ones of an id may be among them."""
        ...

    def add(self, records: Records) -> None:
        """Put newer records on top."""
        ...

    def find(self, hi: U64, lo: U64, answer: Answer, probe: Probe, query: Any) -> None:
        """Answer the keys that are here and were not found yet; `query` is what `probe` made of `hi`."""
        ...

    def merged(self) -> Records:
        """Return all records, sorted, each id once."""
        ...


@dataclass(slots=True)
class TailFile:
    """One file of the tail, with the index over its records."""

    path: Path
    first: int
    end: int
    chain: int
    """Chain value behind the last record."""
    day_first: int
    """Arrival day of the first record; -1 if there is none."""
    index: TailIndex = field(default_factory=RunStack)
    dirty: bool = False
    new: bool = False

    @property
    def records(self) -> int:
        """Return how many records the file holds."""
        return self.end - self.first


def read_file(path: Path, log_id: bytes, first: int, chain: int, length: int) -> tuple[TailFile, int]:
    """Read a tail file up to record `length` and return it with the byte at which that record would begin.

    :param first: the record that the file must begin with, and `chain` the chain value before it.
    :raises StateMismatch: the file is not that one, or its bytes before record `length` are not what was
        written; names the byte.
    """
    data = path.read_bytes()
    if data[:_HEADER_BYTES] != header(log_id, first, chain):
        raise damaged(path, 0, "the header is not the one of this log and place")
    at, record = _HEADER_BYTES, first
    parts: list[Records] = []
    while record < length and at < len(data):
        if at + _FRAME_BYTES > len(data):
            raise damaged(path, at, "a frame is cut off")
        magic, count, frame_first = _FRAME.unpack_from(data, at)
        end = at + _FRAME_BYTES + count * RECORD.itemsize
        if magic != _FRAME_MAGIC or frame_first != record or not 0 < count <= FRAME_RECORDS_MAX:
            raise damaged(path, at, "no frame begins here")
        if end > len(data):
            raise damaged(path, at, "a frame is cut off")
        payload = data[at + _FRAME_BYTES : end]
        (stored,) = _CHECKSUM.unpack_from(data, at + _FRAME.size)
        chain = xxh3_64_intdigest(data[at : at + _FRAME.size] + payload, chain)
        if chain != stored:
            raise damaged(path, at, "the checksum differs")
        parts.append(_columns(payload))
        at, record = end, record + count
    index = RunStack()
    records = concatenate(parts) if parts else EMPTY
    if parts:
        index.add(records)
    day_first = int(records.minute[0]) // 1440 if len(records) else -1
    return TailFile(path, first, record, chain, day_first, index), at


def _columns(payload: bytes) -> Records:
    rows = np.frombuffer(payload, dtype=RECORD)
    return Records(
        rows["hi"].astype(np.uint64),
        rows["lo"].astype(np.uint64),
        rows["content"].astype(np.uint64),
        rows["minute"].astype(np.uint32),
    )


def damaged(path: Path, offset: int, what: str) -> StateMismatch:
    """Return the error for bytes that are not what was written."""
    message = (
        f"{path} is damaged at byte {offset}: {what}: restore the whole state directory (recovery, "
        "dedupe and unique together) from one backup, or make them again from the events with "
        "`meterbridge rebuild`; nothing was changed"
    )
    return StateMismatch(message)
