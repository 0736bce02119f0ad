"""The attributes of an event: where they stand, and whether they are plain."""

from typing import Any, Final

import numpy as np

from operators.scan.members import members_of
from operators.scan.tokens import NOTHING, after_spaces, string_end, value_end
from operators.scan.words import compiled, inlined, load, word

SPECVERSION, ID, SOURCE, TYPE, SUBJECT, DATA, TIME, DATASCHEMA = range(8)
ATTRIBUTES: Final = 8
_REQUIRED: Final = 0b0011_1111
UNKNOWN: Final = -1

_ID: Final = word(b"id")
_TYPE: Final = word(b"type")
_TIME: Final = word(b"time")
_DATA: Final = word(b"data")
_SOURCE: Final = word(b"source")
_SUBJECT: Final = word(b"subject")
_DATASCHEMA: Final = word(b"dataschema")
_SPECVERSION: Final = word(b"specversion")
_VERSION_1_0: Final = word(b"1.0")
_ONES: Final = np.uint64(0xFFFF_FFFF_FFFF_FFFF)


@inlined
def _attribute(text: Any, at: int, size: int) -> int:
    """Return which attribute that key is."""
    first = load(text, at)
    if size < 8:
        first &= _ONES >> np.uint64(64 - 8 * size) if size > 0 else np.uint64(0)
        if size == 2 and first == _ID:
            return ID
        if size == 4:
            if first == _TYPE:
                return TYPE
            if first == _TIME:
                return TIME
            if first == _DATA:
                return DATA
        if size == 6 and first == _SOURCE:
            return SOURCE
        if size == 7 and first == _SUBJECT:
            return SUBJECT
        return UNKNOWN
    if size == 10 and first == _DATASCHEMA and text[at + 8] == 0x6D and text[at + 9] == 0x61:
        return DATASCHEMA
    if size == 11 and first == _SPECVERSION and text[at + 8] == 0x69 and text[at + 9] == 0x6F and text[at + 10] == 0x6E:
        return SPECVERSION
    return UNKNOWN


@compiled
def envelope_of(text: Any, at: int, end: int, is_utf8: bool, spans: Any, members: Any) -> tuple[bool, int, int]:
    """Find the attributes: whether the event is plain, the number of `data`'s members, which attributes there are.

    A row of `spans`: begin, size in bytes, size in characters. Strings are without their quotes.
    """
    seen = data_members = 0
    if text[at] != 0x7B:
        return False, 0, 0
    at = after_spaces(text, at + 1)
    while True:
        if text[at] != 0x22:
            return False, 0, 0
        close, _ = string_end(text, at + 1, end, is_utf8)
        if close < 0:
            return False, 0, 0
        name = _attribute(text, at + 1, close - at - 1)
        at = after_spaces(text, close + 1)
        if text[at] != 0x3A:
            return False, 0, 0
        at = after_spaces(text, at + 1)
        if name == UNKNOWN:
            at, _ = value_end(text, at, end, is_utf8)
            if at < 0:
                return False, 0, 0
        else:
            if seen >> name & 1:
                return False, 0, 0
            seen |= 1 << name
            begin = at
            if name == DATA:
                if text[at] != 0x7B:
                    return False, 0, 0
                at, data_members = members_of(text, at, end, is_utf8, members, 0)
                if at < 0:
                    return False, 0, 0
                spans[name, 0], spans[name, 1] = begin, at - begin
            elif text[at] == 0x22:
                close, characters = string_end(text, at + 1, end, is_utf8)
                if close < 0:
                    return False, 0, 0
                spans[name, 0], spans[name, 1], spans[name, 2] = begin + 1, close - begin - 1, characters
                at = close + 1
            else:  # null is absent, where that is allowed; the mark above still refuses a second one
                at, kind = value_end(text, at, end, is_utf8)
                if at < 0 or kind != NOTHING or name < TIME:
                    return False, 0, 0
                spans[name, 1] = -1
        at = after_spaces(text, at)
        if text[at] == 0x7D:
            return at + 1 == end and seen & _REQUIRED == _REQUIRED, data_members, seen
        if text[at] != 0x2C:
            return False, 0, 0
        at = after_spaces(text, at + 1)


@inlined
def are_good(text: Any, spans: Any, attribute_bytes: int, subject_bytes: int) -> bool:
    """Tell whether the attributes have lengths that are right in any encoding, and the version is 1.0."""
    for name in (ID, SOURCE, TYPE):
        if spans[name, 1] < 1 or spans[name, 1] > attribute_bytes:
            return False
    if spans[SUBJECT, 1] < 1 or spans[SUBJECT, 1] > subject_bytes:
        return False
    version = load(text, spans[SPECVERSION, 0]) & np.uint64(0xFF_FFFF)
    return spans[SPECVERSION, 1] == 3 and version == _VERSION_1_0  # type: ignore[no-any-return]
