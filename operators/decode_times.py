"""RFC 3339 times to Unix microseconds: one by one, and whole columns of the usual form.

Accepted: `YYYY-MM-DDTHH:MM:SS[.digits](Z|+HH:MM|-HH:MM)`, `T` and `Z` in either case, years 0001 to 9999, hours to
23 (offsets too), any number of digits in the fraction (up to TIME_CHARS_MAX characters in all), truncated to
microseconds. A leap second is accepted where there can be one, at 23:59:60 UTC, and is the first second of the next
day, as Unix time has it. Everything else is not a time.
"""

import re
from datetime import date
from typing import Final

import numpy as np
import numpy.typing as npt

TIME_CHARS_MAX: Final = 64
NO_TIME: Final = -(1 << 63)
"""Stands in a column of times where the text is not a time."""

_FORM: Final = re.compile(
    r"(\d{4})-(\d{2})-(\d{2})[Tt](\d{2}):(\d{2}):(\d{2})(?:\.(\d+))?(?:[Zz]|([+-])(\d{2}):(\d{2}))", re.ASCII
)
_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()
_DAY_S: Final = 86_400
_PLAIN_CHARS: Final = 20
"""Length of `2026-10-31T10:00:00Z`; with a fraction it is longer by the point and the digits."""


def time_us(text: str) -> int | None:
    """Return the Unix time in microseconds, or None if the text is not an RFC 3339 time."""
    match = _FORM.fullmatch(text) if len(text) <= TIME_CHARS_MAX else None
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    fraction, sign, offset_hour, offset_minute = match.groups()[6:]
    try:
        days = date(year, month, day).toordinal() - _EPOCH_DAY
    except ValueError:
        return None
    offset_s = 0
    if sign:
        if int(offset_hour) > 23 or int(offset_minute) > 59:
            return None
        offset_s = (int(offset_hour) * 3600 + int(offset_minute) * 60) * (-1 if sign == "-" else 1)
    if hour > 23 or minute > 59 or second > 60:
        return None
    total_s = days * _DAY_S + hour * 3600 + minute * 60 + second - offset_s
    if second == 60 and total_s % _DAY_S:
        return None
    return total_s * 1_000_000 + (int(f"{fraction:0<6}"[:6]) if fraction else 0)


def times_us(texts: list[str]) -> npt.NDArray[np.int64]:
    """Return `time_us` of every text; NO_TIME where it is None. The usual UTC forms are read in columns."""
    out = np.full(len(texts), NO_TIME, dtype=np.int64)
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    for length in np.unique(lengths).tolist():
        rows = np.flatnonzero(lengths == length)
        group = texts if len(rows) == len(texts) else [texts[row] for row in rows.tolist()]
        out[rows] = _same_length(group, length)
    for row in np.flatnonzero(out == NO_TIME).tolist():
        value = time_us(texts[row])
        if value is not None:
            out[row] = value
    return out


def _same_length(texts: list[str], length: int) -> npt.NDArray[np.int64]:
    """Read texts of one length that have the form `...Z`; NO_TIME for any other, which may still be a time."""
    count = len(texts)
    joined = "".join(texts)
    if not (length == _PLAIN_CHARS or _PLAIN_CHARS + 1 < length <= TIME_CHARS_MAX) or not joined.isascii():
        return np.full(count, NO_TIME, dtype=np.int64)
    # One row per place in the text, so that what follows walks memory in order.
    characters = np.frombuffer(joined.encode("ascii"), dtype=np.uint8).reshape(count, length).T.copy()
    fraction_digits = max(0, length - _PLAIN_CHARS - 1)
    digit_places = [0, 1, 2, 3, 5, 6, 8, 9, 11, 12, 14, 15, 17, 18, *range(20, 20 + fraction_digits)]
    marks = [(4, "-"), (7, "-"), (10, "T"), (13, ":"), (16, ":"), (length - 1, "Z")]
    if fraction_digits:
        marks.append((19, "."))
    digits = characters - np.uint8(ord("0"))  # wraps around, so one comparison finds what is no digit
    good = np.ones(count, dtype=np.bool_)
    for place in digit_places:
        good &= digits[place] <= 9
    for place, mark in marks:
        good &= characters[place] == ord(mark)

    def number(start: int, end: int) -> npt.NDArray[np.int64]:
        value = digits[start].astype(np.int64) if end > start else np.zeros(count, dtype=np.int64)
        for place in range(start + 1, end):
            value = value * 10 + digits[place]
        return value

    year, month, day = number(0, 4), number(5, 7), number(8, 10)
    hour, minute, second = number(11, 13), number(14, 16), number(17, 19)
    # Day 29 and later, and leap seconds, need the calendar: those few months' ends are checked below.
    good &= (year >= 1) & (month >= 1) & (month <= 12) & (day >= 1) & (hour <= 23) & (minute <= 59) & (second <= 59)
    months = np.where(good, (year - 1970) * 12 + month - 1, 0)
    first_day = months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    next_month = (months + 1).astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    good &= day <= next_month - first_day
    taken = min(fraction_digits, 6)
    micros = number(20, 20 + taken) * 10 ** (6 - taken)
    seconds = (first_day + day - 1) * _DAY_S + hour * 3600 + minute * 60 + second
    return np.where(good, seconds * 1_000_000 + micros, NO_TIME)
