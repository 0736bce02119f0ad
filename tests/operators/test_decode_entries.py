"""Entries become lines as if each were taken apart by itself."""

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from operators.decode_entries import lines_of
from operators.decode_lines import PADDING_BYTES, Lines
from operators.decode_plan import WHITESPACE
from operators.items import EVENT, EVENTS, MALFORMED, REFUSED, RawBatch

BYTES_MAX, EVENTS_MAX = 24, 4
Line = tuple[int, int, bytes]
"""Place of the entry, place in the entry, bytes."""

pieces = st.sampled_from(
    [b"{}", b"x", b"\n", b"\n", b" ", b"\r\n", b"\t", b"\xff", b"\xc3\xa9", b'{"id":"a long one"}']
)
entries = st.lists(
    st.tuples(st.sampled_from([EVENT, EVENTS, EVENTS, MALFORMED, REFUSED]), st.lists(pieces, max_size=9).map(b"".join)),
    max_size=8,
)


def batch_of(drawn: list[tuple[int, bytes]], *, is_stored: bool) -> RawBatch:
    count = len(drawn)
    return RawBatch(
        stream=np.arange(count, dtype=np.uint16),
        entry_ms=np.arange(count, dtype=np.int64) + 1000,
        entry_seq=np.arange(count, dtype=np.int64),
        kinds=np.array([kind for kind, _ in drawn], dtype=np.uint8),
        payloads=[payload for _, payload in drawn],
        details={place: "invalid_field why" for place, (kind, _) in enumerate(drawn) if kind == REFUSED},
        entry_index=np.arange(count, dtype=np.int32) + 7 if is_stored else None,
    )


def one_by_one(batch: RawBatch, first: int) -> tuple[list[Line], list[tuple[int, str, str, bytes]]]:
    """Return the lines and (stream, reason, detail, bytes) of what is refused, entry by entry."""
    lines: list[Line] = []
    refused: list[tuple[int, str, str, bytes]] = []
    for entry in range(first, len(batch.payloads)):
        kind, payload = int(batch.kinds[entry]), batch.payloads[entry]
        if kind == EVENT:
            lines.append((entry, 0 if batch.entry_index is None else entry + 7, payload.strip(WHITESPACE)))
            continue
        stripped = enumerate(line.strip(WHITESPACE) for line in payload.split(b"\n"))
        found = [(entry, index, line) for index, line in stripped if line]
        if kind == MALFORMED:
            detail = "the entry has neither `event` nor `events`"
        elif kind == REFUSED:
            detail = "why"
        elif len(payload) > BYTES_MAX:
            detail = f"events: {len(payload)} bytes; at most {BYTES_MAX} are allowed"
        elif len(found) > EVENTS_MAX:
            detail = f"events: {len(found)} events; at most {EVENTS_MAX} are allowed"
        elif not found:
            detail = "events: no event in the entry"
        else:
            lines.extend(found)
            continue
        refused.append((entry, "invalid_field" if kind == REFUSED else "malformed_entry", detail, payload))
    return lines, refused


@given(entries, st.booleans(), st.integers(0, 2))
def test_lines_are_those_of_each_entry_by_itself(drawn: list[tuple[int, bytes]], is_stored: bool, first: int) -> None:
    batch = batch_of(drawn, is_stored=is_stored)
    first = min(first, len(drawn))
    found = lines_of(batch, first, len(drawn), BYTES_MAX, EVENTS_MAX)
    lines, refused = one_by_one(batch, first)
    places = zip(found.entry_seq.tolist(), found.entry_index.tolist(), strict=True)
    assert [(*place, line) for place, line in zip(places, found.raw(np.arange(len(found))), strict=True)] == lines
    assert found.stream.tolist() == found.entry_seq.tolist() == [entry for entry, _, _ in lines]
    assert found.entry_ms.tolist() == [entry + 1000 for entry, _, _ in lines]
    assert [(row[1], row[4], row[5], row[6]) for row in found.rejects] == refused
    assert [found.line(row) for row in range(len(found))] == [line for _, _, line in lines]


@given(st.lists(st.binary(max_size=40)))
def test_a_column_has_the_bytes_of_all_lines_that_may_be_events(drawn: list[bytes]) -> None:
    ends = np.cumsum([len(line) + 1 for line in drawn], dtype=np.int64) - 1
    begins = ends - np.array([len(line) for line in drawn], dtype=np.int64)
    zeros = np.zeros(len(drawn), dtype=np.int64)
    text = b"\n".join([*drawn, bytes(PADDING_BYTES)])
    lines = Lines(zeros.astype(np.uint16), zeros, zeros, zeros.astype(np.int32), text, begins, ends)
    column = lines.column()
    assert lines.is_utf8 == (column.dtype == pl.String)
    found = [line if isinstance(line, bytes) else line.encode() for line in column.to_list()]
    assert found == [line if len(line) > 12 else b"" for line in drawn]
    order = np.arange(len(drawn))[::-1]
    assert column.gather(order).cast(pl.Binary).to_list() == found[::-1]
