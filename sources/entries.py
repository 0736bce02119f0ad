"""Replies of XRANGE become columns: ids, kinds and payloads, without a Python step per entry."""

from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from core.errors import InvariantViolation
from operators.items import EVENT, EVENTS, MALFORMED

TICK: Final = 255
"""An entry with the single field `tick`: a fence of our own. Counted as read, never handed on."""

REQUEST_FIELD: Final = b"request"
"""A second field behind `event` or `events`: the id of the API request that made the entry. For people; not read on."""

ID_PART_MAX: Final = 2**62
SHOWN_BYTES_MAX: Final = 64 * 1024
"""How much of a malformed entry is kept."""

_KINDS: Final = {b"event": EVENT, b"events": EVENTS, b"tick": TICK}

Ints = npt.NDArray[np.int64]
Kinds = npt.NDArray[np.uint8]


@dataclass(slots=True)
class Chunk:
    """Entries of one stream in order. `weights`: events each entry holds, as far as a count of lines can tell."""

    entry_ms: Ints
    entry_seq: Ints
    kinds: Kinds
    payloads: list[bytes]
    sizes: Ints
    weights: Ints
    details: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.payloads)

    @property
    def last(self) -> tuple[int, int]:
        """Return the id of the last entry."""
        return int(self.entry_ms[-1]), int(self.entry_seq[-1])


def parse(stream: str, reply: list[Any]) -> Chunk:
    """Return the chunk of a non-empty XRANGE reply.

    :raises InvariantViolation: an entry id is beyond what positions can hold.
    """
    ids, fields = zip(*reply, strict=True)
    entry_ms, entry_seq = _parse_ids(stream, ids)
    count = len(ids)
    details: dict[int, str] = {}
    if set(map(len, fields)) == {2}:
        flat = list(chain.from_iterable(fields))
        names, payloads = flat[::2], flat[1::2]
    else:
        whole = [len(entry) == 2 or _is_of_a_request(entry) for entry in fields]
        names = [entry[0] if good else b"" for good, entry in zip(whole, fields, strict=True)]
        payloads = [entry[1] if good else b"" for good, entry in zip(whole, fields, strict=True)]
    if names.count(b"event") == count:
        kinds = np.zeros(count, np.uint8)
    else:
        kinds = np.fromiter((_KINDS.get(name, MALFORMED) for name in names), np.uint8, count)
        for place in np.flatnonzero(kinds == MALFORMED).tolist():
            details[place], payloads[place] = _show(fields[place])
    sizes = np.fromiter(map(len, payloads), np.int64, count)
    weights = np.ones(count, np.int64)
    for place in np.flatnonzero(kinds == EVENTS).tolist():
        weights[place] = payloads[place].count(b"\n") + 1
    return Chunk(entry_ms, entry_seq, kinds, payloads, sizes, weights, details)


def _is_of_a_request(entry: list[bytes]) -> bool:
    return len(entry) == 4 and entry[2] == REQUEST_FIELD and entry[0] in (b"event", b"events")


def parse_id(entry_id: bytes) -> tuple[int, int]:
    """Return the two numbers of one entry id."""
    entry_ms, _, entry_seq = entry_id.partition(b"-")
    return int(entry_ms), int(entry_seq or 0)


def _parse_ids(stream: str, ids: tuple[bytes, ...]) -> tuple[Ints, Ints]:
    text = b" ".join(ids).replace(b"-", b" ").decode("ascii")
    numbers = np.fromstring(text, np.int64, sep=" ")
    if len(numbers) != 2 * len(ids) or int(numbers.max()) >= ID_PART_MAX:
        largest = max(ids, key=parse_id).decode("ascii")
        message = (
            f"stream {stream} holds the entry id {largest}, beyond any time there will be: it blocks the stream "
            f"for ever. Move the entries to a new stream, or remove it with `XDEL` and lower the stream's last id."
        )
        raise InvariantViolation(message)
    pairs = numbers.reshape(-1, 2)
    return np.ascontiguousarray(pairs[:, 0]), np.ascontiguousarray(pairs[:, 1])


def _show(fields: list[bytes]) -> tuple[str, bytes]:
    """Return why these fields are not an entry of ours, and the fields as bytes for the reject row."""
    names = [name[:40].decode("utf-8", "replace") for name in fields[::2][:10]]
    more = "" if len(fields) <= 20 else f" and {len(fields) // 2 - 10} more"
    detail = f"the entry has the fields {names}{more}; one field `event` or `events` is expected"
    shown: list[bytes] = []
    room = SHOWN_BYTES_MAX
    for name, value in zip(fields[::2], fields[1::2], strict=False):
        piece = name[:room] + b"=" + value[:room] + b"\n"
        shown.append(piece)
        room -= len(piece)
        if room <= 0:
            break
    return detail, b"".join(shown)[:SHOWN_BYTES_MAX]
