"""Many events at once: envelopes to columns. What cannot be decided here goes to the slow path, line by line.

Why joined lines cannot be misread: every line handed to the parser begins with `{` and ends with `}`, and they are
joined by line feeds. Inside valid JSON `}` LF `{` occurs nowhere (a raw line feed in a string is refused), so every
joint is the end of a document; as many documents as lines means one per line.
"""

from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from core import digests
from core.reasons import CONTROL_TYPE, VOID_TYPE
from operators.decode_lines import Lines
from operators.decode_plan import ATTRIBUTE_CHARS_MAX, BLOCK_LINES, NESTING_MAX, SUBJECT_CHARS_MAX, RevisionPlan
from operators.decode_times import NO_TIME, times_us

Mask = npt.NDArray[np.bool_]


class _Envelope(msgspec.Struct, gc=False):
    """The attributes; `data` stays text. Null counts as absent."""

    specversion: Literal["1.0"]
    id: str
    source: str
    type: str
    subject: str
    data: msgspec.Raw
    time: str | None = None
    dataschema: str | None = None


_DECODER: Final = msgspec.json.Decoder(_Envelope)
_FAILURES: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_SHALLOW_BYTES: Final = 2 * (NESTING_MAX + 1)
"""Shorter texts cannot be nested too deep: every level takes two brackets."""
_CONTROL: Final = r"[\x{00}-\x{1f}\x{7f}-\x{9f}]"
_CONTROL_SIGNS: Final = (b"\\", b"\x7f", b"\xc2")
"""Without one of these bytes no text can hold a control character."""


@dataclass(slots=True)
class Envelopes:
    """Events in columns. `row` is the place of each in the lines; attributes are in order where it is `good`."""

    row: npt.NDArray[np.int64]
    good: Mask
    frame: pl.DataFrame  # source, id, type, tenant, event_time_us, identity_hi, identity_lo, content
    data: list[bytes]  # compact JSON text


def decode_envelopes(lines: Lines, rows: npt.NDArray[np.int64], plan: RevisionPlan) -> Envelopes:
    """Decode what can be of those rows; those that are not in the answer, or not good there, belong to the slow path.

    Guarantee: pure; every good event in the answer is one that the slow path accepts with the same columns, as far
    as its attributes go.
    """
    raw = lines.raw(rows)
    joined = b"\n".join(raw)
    plausible = np.flatnonzero(_plausible(raw, joined, plan.rules.event_bytes_max))
    if len(plausible) < len(raw):
        raw = [raw[index] for index in plausible.tolist()]
    events, row = _parse(raw, rows[plausible])
    if not events:
        return Envelopes(row, np.zeros(0, dtype=np.bool_), pl.DataFrame(), [])
    times = [event.time for event in events]
    frame = pl.DataFrame(
        {
            "source": [event.source for event in events],
            "id": [event.id for event in events],
            "type": [event.type for event in events],
            "subject": [event.subject for event in events],
            "time": times,
        },
        schema=dict.fromkeys(("source", "id", "type", "subject", "time"), pl.String),
    )
    event_us = _event_times_us(times, lines.entry_ms[row])
    good = _good_attributes(frame, may_hold_controls=any(sign in joined for sign in _CONTROL_SIGNS))
    good &= _in_time(event_us, lines.entry_ms[row], plan)
    data = [bytes(event.data) for event in events]
    column = pl.Series(data, dtype=pl.Binary)
    good &= column.bin.starts_with(b"{").to_numpy()
    compact = _compact(data)
    if compact is not data:
        column = pl.Series(compact, dtype=pl.Binary)
    high, low = digests.identities(frame)
    content = digests.contents(frame.with_columns(data=column.cast(pl.String)))
    frame = frame.select("source", "id", "type", pl.col("subject").alias("tenant")).with_columns(
        event_time_us=pl.Series(event_us, dtype=pl.Int64),
        identity_hi=pl.Series(high, dtype=pl.UInt64),
        identity_lo=pl.Series(low, dtype=pl.UInt64),
        content=pl.Series(content, dtype=pl.UInt64),
    )
    return Envelopes(row, good, frame, compact)


def _plausible(raw: list[bytes], joined: bytes, event_bytes_max: int) -> Mask:
    """Tell which lines may be given to the parser together; `joined` is all of them with line feeds between."""
    lengths = np.fromiter(map(len, raw), dtype=np.int64, count=len(raw))
    plausible: Mask = (lengths >= 2) & (lengths <= event_bytes_max)
    characters = np.frombuffer(joined, dtype=np.uint8)
    if not len(characters):
        return plausible
    starts = np.cumsum(lengths + 1) - lengths - 1
    # An empty line at the very end begins behind the last character; it is implausible whatever stands there.
    plausible &= characters[np.minimum(starts, len(characters) - 1)] == ord("{")
    plausible &= characters[starts + lengths - 1] == ord("}")
    for index in np.flatnonzero(plausible & (lengths >= _SHALLOW_BYTES)).tolist():
        line = raw[index]
        if line.count(b"{") + line.count(b"[") > NESTING_MAX and _nesting(line) > NESTING_MAX:
            plausible[index] = False
    if not (joined.isascii() or _is_utf8(joined)):
        for index in np.flatnonzero(plausible).tolist():
            plausible[index] = _is_utf8(raw[index])
    return plausible


_ALL_BUT_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_STEPS: Final = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")


def _nesting(line: bytes) -> int:
    """Return how deep a valid text is nested; for any other text the parser's word counts."""
    # Valid JSON has backslashes only in strings; without the escapes every second piece is outside of strings.
    pieces = line.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
    brackets = b"".join(pieces[::2]).translate(_STEPS, _ALL_BUT_BRACKETS)
    return int(np.cumsum(np.frombuffer(brackets, dtype=np.int8), dtype=np.int64).max(initial=0))


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _parse(raw: list[bytes], row: npt.NDArray[np.int64]) -> tuple[list[_Envelope], npt.NDArray[np.int64]]:
    """Return the envelopes and the rows of those lines; lines that are not good are left out."""
    events: list[_Envelope] = []
    bad: list[int] = []
    for start in range(0, len(raw), BLOCK_LINES):
        block = raw[start : start + BLOCK_LINES]
        try:
            found = _DECODER.decode_lines(b"\n".join(block))
            if len(found) == len(block):
                events += found
                continue
        except _FAILURES:
            pass  # at least one line is bad: find out which, looking at each once
        for index, line in enumerate(block, start=start):
            try:
                events.append(_DECODER.decode(line))
            except _FAILURES:
                bad.append(index)  # the slow path says why
    return events, np.delete(row, bad)


def _event_times_us(times: list[str | None], entry_ms: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    if None not in times:
        return times_us([time for time in times if time is not None])
    present = np.flatnonzero([time is not None for time in times])
    event_us = entry_ms * 1000
    event_us[present] = times_us([time for time in times if time is not None])
    return event_us


def _good_attributes(frame: pl.DataFrame, *, may_hold_controls: bool) -> Mask:
    """Tell which events have attributes of a length that is right in any encoding, without control characters."""
    checks: list[pl.Expr] = [pl.col("type") != VOID_TYPE, pl.col("type") != CONTROL_TYPE]
    for name in ("source", "id", "type", "subject"):
        longest = SUBJECT_CHARS_MAX if name == "subject" else ATTRIBUTE_CHARS_MAX
        checks.append(pl.col(name).str.len_bytes().is_between(1, longest))
        if may_hold_controls:
            checks.append(~pl.col(name).str.contains(_CONTROL))
    good: Mask = frame.select(pl.all_horizontal(checks)).to_series().to_numpy().copy()
    return good


def _in_time(event_us: npt.NDArray[np.int64], entry_ms: npt.NDArray[np.int64], plan: RevisionPlan) -> Mask:
    arrival_us = entry_ms * 1000
    good: Mask = event_us != NO_TIME
    good &= event_us <= arrival_us + plan.rules.future_s * 1_000_000
    good &= event_us >= arrival_us - plan.rules.too_old_days * 86_400_000_000
    return good


def _compact(data: list[bytes]) -> list[bytes]:
    """Return the texts without insignificant whitespace; only those that hold whitespace are looked at."""
    joined = b"".join(data)
    spaces = [space for space in (b" ", b"\t", b"\r", b"\n") if space in joined]
    if not spaces:
        return data
    if len(spaces) == 1:
        space = spaces[0]
        return [_format(text) if space in text else text for text in data]
    return [_format(text) if any(space in text for space in spaces) else text for text in data]


def _format(text: bytes) -> Any:
    return msgspec.json.format(text, indent=-1)
