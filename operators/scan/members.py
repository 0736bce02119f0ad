"""Members of objects, and the properties that meters read."""

from typing import Any, Final

import numpy as np

from operators.scan.numbers import quantity
from operators.scan.tokens import (
    CONTAINER,
    INTEGER_DIGITS_MAX,
    NOTHING,
    NUMBER,
    STRING,
    after_spaces,
    is_same,
    string_end,
    value_end,
)
from operators.scan.words import compiled, high, inlined

MEMBERS_MAX: Final = 64
"""Members of `data`, or of an object on a path; one that has more is left to the other paths."""

AS_TEXT, AS_QUANTITY = 1, 2
"""What a property is read for; flags."""

_UNIT: Final = np.uint64(10**12)


@compiled
def members_of(text: Any, at: int, end: int, is_utf8: bool, table: Any, base: int) -> tuple[int, int]:
    """Take an object apart: return the place behind it (-1: not plain) and the number of members.

    A row of `table`, from `base` on: begin and size of the key, begin, end and kind of the value.
    """
    count = 0
    at = after_spaces(text, at + 1)
    if text[at] == 0x7D:
        return at + 1, 0
    while True:
        if text[at] != 0x22 or count == MEMBERS_MAX:
            return -1, 0
        close, _ = string_end(text, at + 1, end, is_utf8)
        if close < 0:
            return -1, 0
        table[base + count, 0] = at + 1
        table[base + count, 1] = close - at - 1
        at = after_spaces(text, close + 1)
        if text[at] != 0x3A:
            return -1, 0
        at = after_spaces(text, at + 1)
        table[base + count, 2] = at
        at, kind = value_end(text, at, end, is_utf8)
        if at < 0:
            return -1, 0
        table[base + count, 3] = at
        table[base + count, 4] = kind
        count += 1
        at = after_spaces(text, at)
        if text[at] == 0x7D:
            return at + 1, count
        if text[at] != 0x2C:
            return -1, 0
        at = after_spaces(text, at + 1)


@compiled
def _member(text: Any, members: Any, base: int, count: int, names: Any, begin: int, size: int) -> int:
    """Return the row of the member with that key, -1 if there is none, -2 if there are several."""
    found = -1
    for number in range(base, base + count):
        if members[number, 1] == size and is_same(text, members[number, 0], names, begin, size):
            if found >= 0:
                return -2
            found = number
    return found


@compiled
def _property(
    text: Any, end: int, is_utf8: bool, members: Any, count: int, names: Any, keys: Any, first: int, behind_last: int
) -> tuple[bool, int, int, int]:
    """Find a property: whether it is plain, its kind, begin and size. Strings are without their quotes.

    The members of `data` are the first of `members`; those of objects on the way go behind them.
    """
    base = number = 0
    for key in range(first, behind_last):
        if key > first:
            if members[number, 4] != CONTAINER or text[members[number, 2]] != 0x7B:
                return True, NOTHING, 0, 0
            base = MEMBERS_MAX
            behind, count = members_of(text, members[number, 2], end, is_utf8, members, base)
            if behind < 0:
                return False, NOTHING, 0, 0
        number = _member(text, members, base, count, names, keys[key, 0], keys[key, 1])
        if number < 0:
            return number == -1, NOTHING, 0, 0
    begin, size, kind = members[number, 2], members[number, 3] - members[number, 2], members[number, 4]
    if kind == STRING:
        return True, kind, begin + 1, size - 2
    return True, kind, begin, size


@inlined
def _is_text_plain(text: Any, kind: int, begin: int, size: int) -> bool:
    """Tell whether the bytes are the text of a dimension or counted value: strings, integers, booleans, nothing."""
    if kind == CONTAINER:
        return False
    if kind != NUMBER:
        return True
    if size > INTEGER_DIGITS_MAX or (size == 2 and text[begin] == 0x2D and text[begin + 1] == 0x30):
        return False
    for index in range(begin, begin + size):
        if text[index] == 0x2E:
            return False
    return True


@inlined
def _scaled(whole: int, fraction: int, is_negative: bool) -> tuple[Any, Any]:
    """Return the lower and the upper word of whole x 10^12 + fraction, as a 128-bit integer with a sign."""
    low = np.uint64(whole) * _UNIT + np.uint64(fraction)
    top = high(np.uint64(whole), _UNIT)
    if low < np.uint64(fraction):
        top += np.uint64(1)
    if is_negative:
        low = ~low + np.uint64(1)
        top = ~top + (np.uint64(1) if low == np.uint64(0) else np.uint64(0))
    return low, top


@compiled
def properties_of(
    text: Any,
    end: int,
    is_utf8: bool,
    members: Any,
    count: int,
    names: Any,
    keys: Any,
    properties: Any,
    first: int,
    behind_last: int,
    kinds: Any,
    begins: Any,
    sizes: Any,
    quantities: Any,
    at: int,
) -> bool:
    """Write the properties `first` to `behind_last` of an event at place `at`; False if one is not plain."""
    for place in range(first, behind_last):
        good, kind, begin, size = _property(
            text, end, is_utf8, members, count, names, keys, properties[place, 0], properties[place, 1]
        )
        if not good:
            return False
        if properties[place, 2] & AS_TEXT and not _is_text_plain(text, kind, begin, size):
            return False
        if properties[place, 2] & AS_QUANTITY:
            quantities[place, at, 0] = quantities[place, at, 1] = 0
            if kind == STRING or kind == NUMBER:
                good, is_negative, whole, fraction = quantity(text, begin, size, kind == NUMBER)
                if not good:
                    return False
                quantities[place, at, 0], quantities[place, at, 1] = _scaled(whole, fraction, is_negative)
        kinds[place, at] = kind
        begins[place, at] = begin
        sizes[place, at] = 0 if kind == NOTHING else size
    return True
