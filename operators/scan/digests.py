"""The digests of an event as `core.digests` defines them, from its bytes."""

from typing import Any, Final

import numpy as np

from operators.scan.attributes import DATA, ID, SOURCE, SUBJECT, TIME, TYPE
from operators.scan.words import compiled, copy, inlined, load, word
from operators.scan.xxh3 import digest_64, digest_128

_SPACES: Final = word(b" " * 8)
_EACH_1: Final = word(b"\x01" * 8)
_EACH_128: Final = word(b"\x80" * 8)


@inlined
def _measured(text: Any, spans: Any, name: int, scratch: Any, at: int) -> int:
    """Write `<characters>:<text>` as `core.digests` does, and return where the next goes."""
    rest = spans[name, 2]
    unit = 1
    while unit * 10 <= rest:
        unit *= 10
    while unit > 0:
        scratch[at] = 0x30 + rest // unit % 10
        unit //= 10
        at += 1
    scratch[at] = 0x3A
    return copy(text, spans[name, 0], spans[name, 1], scratch, at + 1)


@compiled
def _compact(text: Any, at: int, size: int, scratch: Any, to: int) -> int:
    """Write a plain value without the spaces outside of strings, and return where the next byte goes."""
    spaces = np.uint64(0)
    for index in range(at, at + size, 8):
        found = load(text, index) ^ _SPACES
        spaces |= (found - _EACH_1) & ~found & _EACH_128
    if spaces == np.uint64(0):
        return copy(text, at, size, scratch, to)
    in_string = False
    for index in range(at, at + size):
        byte = text[index]
        if byte == 0x22:
            in_string = not in_string
        if in_string or byte != 0x20:
            scratch[to] = byte
            to += 1
    return to


@compiled
def digests_of(text: Any, spans: Any, has_time: bool, scratch: Any, secret: Any, sums: Any) -> tuple[Any, Any, Any]:
    """Return the high and the low bits of the identity, and the content, as `core.digests` defines them."""
    end = _measured(text, spans, SOURCE, scratch, 0)
    end = copy(text, spans[ID, 0], spans[ID, 1], scratch, end)
    top, low = digest_128(scratch, 0, end, secret, sums)
    end = _measured(text, spans, SUBJECT, scratch, 0)
    end = _measured(text, spans, TYPE, scratch, end)
    if has_time:
        end = _measured(text, spans, TIME, scratch, end)
    else:
        scratch[end] = 0x2D
        end += 1
    end = _compact(text, spans[DATA, 0], spans[DATA, 1], scratch, end)
    return top, low, digest_64(scratch, 0, end, secret, sums)
