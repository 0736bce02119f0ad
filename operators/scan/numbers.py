"""Times and quantities of plain form, read from the bytes; anything else is left to the other paths."""

from typing import Any, Final

from operators.scan.tokens import INTEGER_DIGITS_MAX
from operators.scan.words import compiled, inlined

TIME_CHARS_MIN: Final = len("2026-10-31T10:00:00Z")
TIME_CHARS_MAX: Final = 64
PLACES: Final = 12
SIGNIFICANT_DIGITS_MAX: Final = 15
"""A double is read back by every decimal of so many digits, so its shortest decimal is the literal itself."""

_DAY_US: Final = 86_400_000_000


@inlined
def _two(text: Any, at: int) -> int:
    """Return the number of two digits, or -1000 if they are none."""
    tens, ones = text[at] - 0x30, text[at + 1] - 0x30
    if 0 <= tens <= 9 and 0 <= ones <= 9:
        return tens * 10 + ones  # type: ignore[no-any-return]
    return -1000


@inlined
def _days(year: int, month: int, day: int) -> int:
    """Return the days since 1970-01-01 of a date of the Gregorian calendar."""
    if month <= 2:
        year -= 1
        month += 12
    return 365 * year + year // 4 - year // 100 + year // 400 + (153 * month - 457) // 5 + day - 719_469


@inlined
def _days_of_month(year: int, month: int) -> int:
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 if month in (4, 6, 9, 11) else 31


@compiled
def time_us(text: Any, at: int, size: int) -> tuple[bool, int]:
    """Read an RFC 3339 time to microseconds since 1970, truncated; the first value tells whether it is plain.

    Plain: `YYYY-MM-DDTHH:MM:SS[.digits](Z|+HH:MM|-HH:MM)`, no leap second.
    """
    if size < TIME_CHARS_MIN or size > TIME_CHARS_MAX:
        return False, 0
    is_marked = text[at + 4] == 0x2D and text[at + 7] == 0x2D and text[at + 10] == 0x54
    if not is_marked or text[at + 13] != 0x3A or text[at + 16] != 0x3A:
        return False, 0
    year = _two(text, at) * 100 + _two(text, at + 2)
    month, day = _two(text, at + 5), _two(text, at + 8)
    hour, minute, second = _two(text, at + 11), _two(text, at + 14), _two(text, at + 17)
    if year < 1 or month < 1 or month > 12 or day < 1 or day > _days_of_month(year, month):
        return False, 0
    if hour < 0 or hour > 23 or minute < 0 or minute > 59 or second < 0 or second > 59:
        return False, 0
    end, place = at + size, at + 19
    micros = 0
    if text[place] == 0x2E:
        place += 1
        unit, begin = 100_000, place
        while place < end and 0x30 <= text[place] <= 0x39:
            micros += (text[place] - 0x30) * unit
            unit //= 10
            place += 1
        if place == begin:
            return False, 0
    total = _days(year, month, day) * _DAY_US + (hour * 3600 + minute * 60 + second) * 1_000_000 + micros
    if place == end - 1 and text[place] == 0x5A:
        return True, total
    if place != end - 6 or text[place + 3] != 0x3A or (text[place] != 0x2B and text[place] != 0x2D):
        return False, 0
    hour, minute = _two(text, place + 1), _two(text, place + 4)
    if hour < 0 or hour > 23 or minute < 0 or minute > 59:
        return False, 0
    offset = (hour * 3600 + minute * 60) * 1_000_000
    return True, total - offset if text[place] == 0x2B else total + offset


@compiled
def quantity(text: Any, at: int, size: int, is_literal: bool) -> tuple[bool, bool, int, int]:
    """Read a decimal: whether it is plain, whether it has a minus sign, its whole part, its fraction times 10^12.

    :param is_literal: it is a JSON number, which is a double unless it is an integer; else text in quotes.
    """
    end, place = at + size, at
    is_negative = size > 0 and text[place] == 0x2D
    if is_negative:
        place += 1
    begin = place
    whole = 0
    while place < end and place - begin <= INTEGER_DIGITS_MAX and 0x30 <= text[place] <= 0x39:
        whole = whole * 10 + (text[place] - 0x30)
        place += 1
    digits = place - begin
    if digits == 0 or digits > INTEGER_DIGITS_MAX:
        return False, False, 0, 0
    if place == end:
        return True, is_negative, whole, 0
    if text[place] != 0x2E or end - place - 1 > PLACES or end - place == 1:
        return False, False, 0, 0
    places = end - place - 1
    if is_literal and digits + places > SIGNIFICANT_DIGITS_MAX:
        return False, False, 0, 0
    fraction = 0
    for index in range(place + 1, end):
        if not 0x30 <= text[index] <= 0x39:
            return False, False, 0, 0
        fraction = fraction * 10 + (text[index] - 0x30)
    for _ in range(places, PLACES):
        fraction *= 10
    return True, is_negative, whole, fraction
