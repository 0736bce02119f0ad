"""Entries to lines: which bytes are one event, and which entries are malformed as a whole."""

from typing import Final, cast

import numpy as np
import numpy.typing as npt

from core.reasons import Reason
from operators.decode_lines import PADDING_BYTES, Lines, Places, RejectRow, reject_row
from operators.decode_plan import WHITESPACE
from operators.items import EVENT, EVENTS, REFUSED, RawBatch

_LINE_FEED: Final = 0x0A
_BLOCK_BYTES: Final = 1 << 18
"""So much is searched at a time: what it takes stays in the cache."""
_NO_EVENT: Final = "events: no event in the entry"
_IS_SPACE: Final = np.isin(np.arange(256), np.frombuffer(WHITESPACE, dtype=np.uint8))


def lines_of(batch: RawBatch, first: int, end: int, entry_bytes_max: int, events_max: int) -> Lines:
    """Return the lines of the entries `first` to `end` (exclusive) of the batch.

    `event` is one event. `events` is split at line feeds, blank lines are ignored; more than `events_max` events,
    more than `entry_bytes_max` bytes or no event at all refuse the whole entry, as does anything else.
    """
    payloads, kinds = batch.payloads[first:end], batch.kinds[first:end]
    sizes = np.fromiter(map(len, payloads), dtype=np.int64, count=len(payloads))
    taken = (kinds == EVENT) | ((kinds == EVENTS) & (sizes <= entry_bytes_max))
    entries = np.flatnonzero(taken)
    if len(entries) < len(payloads):
        payloads = [payloads[entry] for entry in entries.tolist()]
    text = b"\n".join([*payloads, bytes(PADDING_BYTES)])
    entry, index, begins, ends = _split(text, sizes[entries], kinds[entries] == EVENTS)
    begins, ends = _stripped(text, begins, ends)

    is_batched = (kinds[entries] == EVENTS)[entry]
    filled = ~is_batched | (begins < ends)
    counts = np.bincount(entry[filled], minlength=len(entries))
    is_good = (kinds[entries] == EVENT) | ((counts > 0) & (counts <= events_max))
    kept = filled & is_good[entry]
    if not kept.all():
        entry, index, begins, ends = entry[kept], index[kept], begins[kept], ends[kept]
    taken[entries[~is_good]] = False
    rows = first + entries[entry]
    found = dict(zip(entries[~is_good].tolist(), counts[~is_good].tolist(), strict=True))
    rejects = [
        _refused(batch, first + place, int(sizes[place]), found.get(place), entry_bytes_max, events_max)
        for place in np.flatnonzero(~taken).tolist()
    ]
    if batch.entry_index is not None:
        index = np.where(batch.kinds[rows] == EVENT, batch.entry_index[rows], index)
    return Lines(
        stream=batch.stream[rows],
        entry_ms=batch.entry_ms[rows],
        entry_seq=batch.entry_seq[rows],
        entry_index=index.astype(np.int32),
        text=text,
        begins=begins,
        ends=ends,
        rejects=rejects,
    )


def _split(text: bytes, sizes: Places, is_batched: npt.NDArray[np.bool_]) -> tuple[Places, Places, Places, Places]:
    """Return each line's entry, its place in it, its begin and its end. Entries stand with a line feed between."""
    ends = np.cumsum(sizes + 1) - 1
    begins = ends - sizes
    if not is_batched.any():
        return np.arange(len(sizes)), np.zeros(len(sizes), dtype=np.int64), begins, ends
    characters = np.frombuffer(text, dtype=np.uint8)
    blocks = range(0, len(characters), _BLOCK_BYTES)
    feeds = np.concatenate([np.flatnonzero(characters[at : at + _BLOCK_BYTES] == _LINE_FEED) + at for at in blocks])
    entry_of_feed = np.searchsorted(ends, feeds)
    # A line feed inside of a single event is a part of it; the one behind each entry ends its last line.
    ends_line = is_batched[entry_of_feed] | (feeds == ends[entry_of_feed])
    line_ends, entry = feeds[ends_line], entry_of_feed[ends_line]
    first_of_entry = np.searchsorted(entry, np.arange(len(sizes)))
    index = np.arange(len(entry)) - first_of_entry[entry]
    line_begins = np.empty(len(entry), dtype=np.int64)
    line_begins[1:] = line_ends[:-1] + 1
    line_begins[0] = 0
    return entry, index, line_begins, line_ends


def _stripped(text: bytes, begins: Places, ends: Places) -> tuple[Places, Places]:
    """Return the lines without the whitespace around them; most have none."""
    characters = np.frombuffer(text, dtype=np.uint8)
    around = _IS_SPACE[characters[begins]] | _IS_SPACE[characters[ends - 1]]
    rows = np.flatnonzero(around & (begins < ends))
    if len(rows):
        begins, ends = begins.copy(), ends.copy()
        for row in rows.tolist():
            line = text[begins[row] : ends[row]]
            begins[row] += len(line) - len(line.lstrip(WHITESPACE))
            ends[row] = begins[row] + len(line.strip(WHITESPACE))
    return begins, ends


def _refused(
    batch: RawBatch, entry: int, size_bytes: int, events: int | None, entry_bytes_max: int, events_max: int
) -> RejectRow:
    """Return the reject of an entry that is refused as a whole. `events`: how many it holds, if it was split."""
    kind = int(batch.kinds[entry])
    problem = batch.details.get(entry, "the entry has neither `event` nor `events`")
    reason: Reason = "malformed_entry"
    if kind == REFUSED:
        code, _, problem = problem.partition(" ")
        reason = cast("Reason", code)
    elif kind == EVENTS and events is None:
        problem = f"events: {size_bytes} bytes; at most {entry_bytes_max} are allowed"
    elif kind == EVENTS:
        problem = f"events: {events} events; at most {events_max} are allowed" if events else _NO_EVENT
    index = 0 if batch.entry_index is None else int(batch.entry_index[entry])
    position = (int(batch.entry_ms[entry]), int(batch.stream[entry]), int(batch.entry_seq[entry]), index)
    return reject_row(position, reason, problem, batch.payloads[entry], counted=True)
