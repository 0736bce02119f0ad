"""A quick look at events that were only just posted: the subject of those that plainly will be accepted.

It makes no columns, so it costs microseconds an event and nothing a batch. What it leaves undecided is nothing bad:
an escape in a string, a letter beyond ASCII or a time with an offset is enough, and the whole decoding decides.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

import msgspec

from core.reasons import CONTROL_TYPE, VOID_TYPE
from operators.decode_plan import (
    ATTRIBUTE_CHARS_MAX,
    NESTING_MAX,
    SUBJECT_CHARS_MAX,
    WHITESPACE,
    MeterPlan,
    RevisionPlan,
)


class _Event(msgspec.Struct, gc=False):
    specversion: Literal["1.0"]
    id: str
    source: str
    type: str
    subject: str
    data: dict[str, Any]
    time: str | None = None
    dataschema: str | None = None


_DECODER: Final = msgspec.json.Decoder(_Event)
_FAILURES: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_ESCAPE, _DELETE = b"\\", b"\x7f"
_SHALLOW_BYTES: Final = 2 * (NESTING_MAX + 1)
"""Shorter texts cannot be nested too deep: every level takes two brackets."""
_PLAIN_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?Z", re.ASCII)
_PLAIN_QUANTITY: Final = re.compile(r"\d{1,15}(?:\.\d{1,12})?", re.ASCII)
_QUANTITY_MAX: Final = 10**15
_SPECIAL: Final = frozenset((VOID_TYPE, CONTROL_TYPE))


class QuickLook:
    """Looks at events by one revision's rules and meters.

    Guarantee: pure; an event that gets a subject here is one that `decode_event` accepts, with that subject.
    Unit of parallelism: the event; no state.
    """

    def __init__(self, plan: RevisionPlan) -> None:
        self._rules = plan.rules
        self._meters = {
            event_type: tuple(meter for meter in meters if not meter.filters)
            for event_type, meters in plan.meters_by_type.items()
        }

    def subjects(self, events: list[bytes], entry_ms: int) -> list[str | None]:
        """Return the subject of each event that plainly is accepted when it arrives at `entry_ms`; None for others."""
        arrival = datetime.fromtimestamp(entry_ms // 1000, UTC) + timedelta(milliseconds=entry_ms % 1000)
        first = arrival - timedelta(days=self._rules.too_old_days)
        last = arrival + timedelta(seconds=self._rules.future_s)
        return [self._subject(event.strip(WHITESPACE), first, last) for event in events]

    def _subject(self, raw: bytes, first: datetime, last: datetime) -> str | None:
        if not self._is_plain_text(raw):
            return None
        try:
            event = _DECODER.decode(raw)
        except _FAILURES:
            return None
        if not (
            0 < len(event.id) <= ATTRIBUTE_CHARS_MAX
            and 0 < len(event.source) <= ATTRIBUTE_CHARS_MAX
            and 0 < len(event.type) <= ATTRIBUTE_CHARS_MAX
            and 0 < len(event.subject) <= SUBJECT_CHARS_MAX
        ):
            return None
        if event.type in _SPECIAL or not (event.time is None or _is_within(event.time, first, last)):
            return None
        meters = self._meters.get(event.type)
        if meters is not None and not any(_reads(meter, event.data) for meter in meters):
            return None
        return event.subject

    def _is_plain_text(self, raw: bytes) -> bool:
        """Tell whether it is ASCII without escapes (so without control characters), and neither large nor deep."""
        return (
            len(raw) <= self._rules.event_bytes_max
            and raw.isascii()
            and _ESCAPE not in raw
            and _DELETE not in raw
            and (len(raw) < _SHALLOW_BYTES or raw.count(b"{") + raw.count(b"[") <= NESTING_MAX)
        )


def _is_within(text: str, first: datetime, last: datetime) -> bool:
    if _PLAIN_TIME.fullmatch(text) is None:
        return False
    try:
        return first <= datetime.fromisoformat(text) <= last
    except ValueError:
        return False


def _reads(meter: MeterPlan, data: dict[str, Any]) -> bool:
    """Tell whether this meter without filters plainly can read the event."""
    if meter.value is None:
        return True
    found: Any = data
    for key in meter.value:
        if type(found) is not dict:
            return False
        found = found.get(key)
    kind = type(found)
    if meter.counts_unique:
        return kind is str or kind is int
    if kind is int or kind is float:
        return bool(0 <= found < _QUANTITY_MAX)
    return kind is str and _PLAIN_QUANTITY.fullmatch(found) is not None
