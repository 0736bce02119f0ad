"""The tokens of JSON as plain producers write it. What is not plain is not wrong: it is left to the other paths.

Plain: strings without escapes and control characters; numbers without exponents and of moderate length; no white
space but single-byte spaces; nesting below DEPTH_MAX. Everything that passes here is valid JSON.

Functions return the place behind the token, or -1 for what is not plain. They may look beyond the end of an event,
never beyond the padding: the caller refuses an event that does not end where it should.
"""

from typing import Any, Final

import numpy as np

from operators.scan.words import compiled, inlined, load, trailing_zeros, word

NOTHING, STRING, NUMBER, BOOLEAN, CONTAINER = 0, 1, 2, 3, 4
"""Kinds of values; NOTHING is null, or a property that is not there."""

DEPTH_MAX: Final = 60
INTEGER_DIGITS_MAX: Final = 18
FRACTION_DIGITS_MAX: Final = 32

_ONES: Final = np.uint64(0x0101_0101_0101_0101)
_HIGH: Final = np.uint64(0x8080_8080_8080_8080)
_QUOTES: Final = np.uint64(0x2222_2222_2222_2222)
_BACKSLASHES: Final = np.uint64(0x5C5C_5C5C_5C5C_5C5C)
_SPACES: Final = np.uint64(0x2020_2020_2020_2020)
_DELETES: Final = np.uint64(0x7F7F_7F7F_7F7F_7F7F)
_NULL: Final = word(b"null")
_TRUE: Final = word(b"true")
_ALSE: Final = word(b"alse")
_FOUR: Final = np.uint64(0xFFFF_FFFF)
_ZERO: Final = np.uint64(0)
_ONE: Final = np.uint64(1)


@compiled
def string_end(text: Any, at: int, end: int, is_utf8: bool) -> tuple[int, int]:
    """Return the place of the closing quote of the string whose characters begin at `at`, and its characters.

    :param is_utf8: the whole text is valid UTF-8; if not, only ASCII is plain.
    """
    begin, continued = at, 0
    while at < end:
        found = load(text, at)
        quote, backslash, delete = found ^ _QUOTES, found ^ _BACKSLASHES, found ^ _DELETES
        special = (quote - _ONES) & ~quote
        special |= (backslash - _ONES) & ~backslash
        special |= (delete - _ONES) & ~delete
        special |= (found - _SPACES) & ~found
        special = (special | found) & _HIGH
        if special == _ZERO:
            at += 8
            continue
        at += trailing_zeros(special) >> 3
        byte = text[at]
        if byte == 0x22:
            return at, at - begin - continued
        # 0xC2 begins the C1 controls, among others.
        if byte < 0x80 or byte == 0xC2 or not is_utf8:
            return -1, 0
        if byte < 0xC0:
            continued += 1
        at += 1
    return -1, 0


@inlined
def after_spaces(text: Any, at: int) -> int:
    """Return the place of the next byte that is no space."""
    while text[at] == 0x20:
        at += 1
    return at


@compiled
def number_end(text: Any, at: int) -> int:
    """Return the place behind a number."""
    if text[at] == 0x2D:
        at += 1
    begin = at
    while 0x30 <= text[at] <= 0x39:
        at += 1
    digits = at - begin
    if digits == 0 or digits > INTEGER_DIGITS_MAX or (digits > 1 and text[begin] == 0x30):
        return -1
    if text[at] == 0x2E:
        at += 1
        begin = at
        while 0x30 <= text[at] <= 0x39:
            at += 1
        if at == begin or at - begin > FRACTION_DIGITS_MAX:
            return -1
    if text[at] == 0x65 or text[at] == 0x45:
        return -1
    return at


@compiled
def scalar_end(text: Any, at: int, end: int, is_utf8: bool) -> tuple[int, int]:
    """Return the place behind a value that is no object or array, and its kind."""
    byte = text[at]
    if byte == 0x22:
        close, _ = string_end(text, at + 1, end, is_utf8)
        return (close + 1, STRING) if close >= 0 else (-1, STRING)
    if byte == 0x2D or 0x30 <= byte <= 0x39:
        return number_end(text, at), NUMBER
    found = load(text, at)
    if found & _FOUR == _NULL:
        return at + 4, NOTHING
    if found & _FOUR == _TRUE:
        return at + 4, BOOLEAN
    if byte == 0x66 and load(text, at + 1) & _FOUR == _ALSE:
        return at + 5, BOOLEAN
    return -1, NOTHING


@compiled
def key_end(text: Any, at: int, end: int, is_utf8: bool) -> int:
    """Return the place of the value behind the key and its colon."""
    if text[at] != 0x22:
        return -1
    close, _ = string_end(text, at + 1, end, is_utf8)
    if close < 0:
        return -1
    at = after_spaces(text, close + 1)
    if text[at] != 0x3A:
        return -1
    return after_spaces(text, at + 1)


@compiled
def container_end(text: Any, at: int, end: int, is_utf8: bool) -> int:
    """Return the place behind an object or array."""
    depth, objects = 0, _ZERO  # one bit a level: whether it is an object
    while True:
        byte = text[at]
        if byte == 0x7B or byte == 0x5B:
            if depth == DEPTH_MAX:
                return -1
            depth += 1
            is_object = byte == 0x7B
            objects = (objects << _ONE) | (_ONE if is_object else _ZERO)
            at = after_spaces(text, at + 1)
            if text[at] != (0x7D if is_object else 0x5D):
                if is_object:
                    at = key_end(text, at, end, is_utf8)
                    if at < 0:
                        return -1
                continue
        else:
            at, _ = scalar_end(text, at, end, is_utf8)
            if at < 0:
                return -1
        # Behind a value, or at the bracket that ends an empty container.
        while True:
            at = after_spaces(text, at)
            is_object = objects & _ONE == _ONE
            if text[at] == 0x2C:
                at = after_spaces(text, at + 1)
                if is_object:
                    at = key_end(text, at, end, is_utf8)
                    if at < 0:
                        return -1
                break
            if text[at] != (0x7D if is_object else 0x5D):
                return -1
            at += 1
            depth -= 1
            objects >>= _ONE
            if depth == 0:
                return at


@compiled
def value_end(text: Any, at: int, end: int, is_utf8: bool) -> tuple[int, int]:
    """Return the place behind any value, and its kind."""
    if text[at] == 0x7B or text[at] == 0x5B:
        return container_end(text, at, end, is_utf8), CONTAINER
    return scalar_end(text, at, end, is_utf8)


@inlined
def is_same(left: Any, left_at: int, right: Any, right_at: int, length: int) -> bool:
    """Tell whether that many bytes are the same; both arrays are padded."""
    index = 0
    while index + 8 <= length:
        if load(left, left_at + index) != load(right, right_at + index):
            return False
        index += 8
    if index == length:
        return True
    rest = (load(left, left_at + index) ^ load(right, right_at + index)) << np.uint64(8 * (8 - length + index))
    return rest == _ZERO  # type: ignore[no-any-return]  # numba's words are untyped
