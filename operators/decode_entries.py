"""Entries to lines: which bytes are one event, and which entries are malformed as a whole."""

from dataclasses import dataclass, field
from typing import cast

import numpy as np
import numpy.typing as npt
import polars as pl

from core.reasons import RAW_BYTES_MAX, Reason
from operators.decode_plan import WHITESPACE
from operators.items import EVENT, EVENTS, REFUSED, RawBatch

RejectRow = tuple[int, int, int, int, str, str, bytes, bool]
"""A row of REJECT_SCHEMA."""

DETAIL_CHARS_MAX = 512


@dataclass(slots=True)
class Lines:
    """Events as bytes without surrounding whitespace, in position order, with their positions.

    `entry_index` is the place of the line in its entry, blank lines counted.
    """

    stream: npt.NDArray[np.uint16]
    entry_ms: npt.NDArray[np.int64]
    entry_seq: npt.NDArray[np.int64]
    entry_index: npt.NDArray[np.int32]
    raw: list[bytes]
    rejects: list[RejectRow] = field(default_factory=list)
    column: pl.Series | None = None
    """All of `raw` as a column, String or Binary, if somebody made one on the way."""

    def reject(self, row: int, reason: Reason, detail: str, *, counted: bool = True) -> None:
        """Add a reject for the event of that row."""
        position = (
            int(self.entry_ms[row]),
            int(self.stream[row]),
            int(self.entry_seq[row]),
            int(self.entry_index[row]),
        )
        self.rejects.append(reject_row(position, reason, detail, self.raw[row], counted=counted))


def reject_row(
    position: tuple[int, int, int, int], reason: Reason, detail: str, raw: bytes, *, counted: bool
) -> RejectRow:
    """Return a row of REJECT_SCHEMA; long details and raw bytes are cut, the latter is said."""
    detail = detail[:DETAIL_CHARS_MAX]
    if len(raw) > RAW_BYTES_MAX:
        detail = f"{detail} (raw cut at {RAW_BYTES_MAX} of {len(raw)} bytes)"
    return (*position, reason, detail, raw[:RAW_BYTES_MAX], counted)


def lines_of(batch: RawBatch, first: int, end: int, entry_bytes_max: int, events_max: int) -> Lines:
    """Return the lines of the entries `first` to `end` (exclusive) of the batch.

    `event` is one event. `events` is split at line feeds, blank lines are ignored; more than `events_max` events,
    more than `entry_bytes_max` bytes or no event at all refuse the whole entry, as does anything else.
    """
    payloads = batch.payloads[first:end]
    if (batch.kinds[first:end] == EVENT).all():
        return Lines(
            stream=batch.stream[first:end],
            entry_ms=batch.entry_ms[first:end],
            entry_seq=batch.entry_seq[first:end],
            entry_index=_indexes(batch, first, end),
            raw=[payload.strip(WHITESPACE) for payload in payloads],
        )
    entries: list[int] = []
    indexes: list[int] = []
    raw: list[bytes] = []
    rejects: list[RejectRow] = []
    for entry, payload in enumerate(payloads, start=first):
        kind = int(batch.kinds[entry])
        if kind == EVENT:
            entries.append(entry)
            indexes.append(0 if batch.entry_index is None else int(batch.entry_index[entry]))
            raw.append(payload.strip(WHITESPACE))
            continue
        problem = batch.details.get(entry, "the entry has neither `event` nor `events`")
        if kind == EVENTS:
            found, problem = _split(payload, entry_bytes_max, events_max)
            if not problem:
                entries.extend([entry] * len(found))
                indexes.extend(index for index, _ in found)
                raw.extend(line for _, line in found)
                continue
        index = 0 if batch.entry_index is None else int(batch.entry_index[entry])
        position = (int(batch.entry_ms[entry]), int(batch.stream[entry]), int(batch.entry_seq[entry]), index)
        reason: Reason = "malformed_entry"
        if kind == REFUSED:
            code, _, problem = problem.partition(" ")
            reason = cast("Reason", code)
        rejects.append(reject_row(position, reason, problem, payload, counted=True))
    rows = np.array(entries, dtype=np.int64)
    return Lines(
        stream=batch.stream[rows],
        entry_ms=batch.entry_ms[rows],
        entry_seq=batch.entry_seq[rows],
        entry_index=np.array(indexes, dtype=np.int32),
        raw=raw,
        rejects=rejects,
    )


def _indexes(batch: RawBatch, first: int, end: int) -> npt.NDArray[np.int32]:
    """Return the events' places in their entries, where each is an entry of its own or comes from storage."""
    return np.zeros(end - first, dtype=np.int32) if batch.entry_index is None else batch.entry_index[first:end]


def _split(payload: bytes, entry_bytes_max: int, events_max: int) -> tuple[list[tuple[int, bytes]], str]:
    """Return the events with their line numbers from 0, or what is wrong with the entry."""
    if len(payload) > entry_bytes_max:
        return [], f"events: {len(payload)} bytes; at most {entry_bytes_max} are allowed"
    stripped = (line.strip(WHITESPACE) for line in payload.split(b"\n"))
    found = [(index, line) for index, line in enumerate(stripped) if line]
    if len(found) > events_max:
        return [], f"events: {len(found)} events; at most {events_max} are allowed"
    return found, "" if found else "events: no event in the entry"
