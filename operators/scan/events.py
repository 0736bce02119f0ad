"""Reads events from bytes to arrays: where each attribute and property stands, times, quantities and digests."""

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from operators.scan.attributes import ID, SOURCE, SUBJECT, TIME, TYPE, UNKNOWN, are_good, envelope_of
from operators.scan.digests import digests_of
from operators.scan.members import properties_of
from operators.scan.numbers import time_us
from operators.scan.tokens import is_same
from operators.scan.words import compiled

VOID: Final = 0
"""The type with this number is that of voids, which are not read here."""


class Wanted(NamedTuple):
    """What is read of each event type, as arrays of places.

    The compiled code gets each array by itself: taking one out of a tuple costs it as much as reading ten bytes.
    """

    names: npt.NDArray[np.uint8]
    """All texts below one behind the other; padded."""
    types: npt.NDArray[np.int64]
    """By type: begin and size of its name, first property and the one behind its last.

    The first is that of voids, the last that of control totals: both are read by others.
    """
    properties: npt.NDArray[np.int64]
    """By property: first key of its path, the one behind the last, what it is read for (AS_TEXT, AS_QUANTITY)."""
    keys: npt.NDArray[np.int64]
    """By key: begin and size."""


class Limits(NamedTuple):
    """The rules of a revision that decide whether an event is plain."""

    event_bytes: int
    attribute_bytes: int
    subject_bytes: int
    future_us: int
    past_us: int


@compiled
def _type_number(text: Any, at: int, size: int, names: Any, types: Any) -> int:
    """Return the number of the type with that name."""
    for number in range(len(types)):
        if types[number, 1] == size and is_same(text, at, names, types[number, 0], size):
            return number
    return UNKNOWN


@compiled
def read(
    text: Any,
    begins_of_lines: Any,
    ends_of_lines: Any,
    entry_ms: Any,
    is_utf8: bool,
    wanted: Any,
    limits: Any,
    secret: Any,
    scratch: Any,
    sums: Any,
    spans: Any,
    members: Any,
    counts: Any,
    attributes: Any,
    properties: Any,
) -> int:
    """Read every line that is plain and return how many are; what is written, see `operators.scan.scanner`.

    :param begins_of_lines: where each line begins; between two may stand anything.
    :param scratch: room for the longest line and all attributes.
    :param counts: zeros, one for each type; how many events of it were found. The properties of an event stand at its
        place among the events of its type, so that types do not leave holes for each other.
    """
    rows, begins, sizes, times, highs, lows, contents, numbers = attributes
    kinds, value_begins, value_sizes, quantities = properties
    names, types, wanted_properties, keys = wanted
    count = 0
    for row in range(len(begins_of_lines)):
        at, end = begins_of_lines[row], ends_of_lines[row]
        if end - at > limits.event_bytes:
            continue
        good, data_members, seen = envelope_of(text, at, end, is_utf8, spans, members)
        if not good or not are_good(text, spans, limits.attribute_bytes, limits.subject_bytes):
            continue
        has_time = seen >> TIME & 1 == 1 and spans[TIME, 1] >= 0
        arrival_us = event_us = entry_ms[row] * 1000
        if has_time:
            good, event_us = time_us(text, spans[TIME, 0], spans[TIME, 1])
            if not good or event_us > arrival_us + limits.future_us or event_us < arrival_us - limits.past_us:
                continue
        number = _type_number(text, spans[TYPE, 0], spans[TYPE, 1], names, types)
        if number == VOID or number == len(types) - 1:  # compiled  # the last one is that of control totals
            continue
        if number >= 0 and not properties_of(
            text,
            end,
            is_utf8,
            members,
            data_members,
            names,
            keys,
            wanted_properties,
            types[number, 2],
            types[number, 3],
            kinds,
            value_begins,
            value_sizes,
            quantities,
            counts[number],
        ):
            continue
        if number >= 0:
            counts[number] += 1
        highs[count], lows[count], contents[count] = digests_of(text, spans, has_time, scratch, secret, sums)
        rows[count], times[count], numbers[count] = row, event_us, number
        for name in (ID, SOURCE, TYPE, SUBJECT):
            begins[name, count], sizes[name, count] = spans[name, 0], spans[name, 1]
        count += 1
    return count
