"""Merges the streams of one reader into position order, up to what can no longer be preceded. Pure.

An entry may go when nothing that is still unread can stand before it. With m the smallest watermark and l the
first stream that has it, these are: everything below m, and at m itself the entries of the streams up to l.
(Stream l has handed over its entries at m as far as they exist, those before it entirely.) So one stream whose
clock stands still is passed on as it comes, and never piles up.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from operators.items import RawBatch
from sources.entries import TICK, Chunk
from sources.stream_state import StreamState


@dataclass(slots=True)
class Held:
    """Entries of one stream that were read and not handed on yet."""

    chunks: deque[Chunk] = field(default_factory=deque)
    size_bytes: int = 0

    def add(self, chunk: Chunk) -> None:
        """Append what was read."""
        self.chunks.append(chunk)
        self.size_bytes += int(chunk.sizes.sum()) + ENTRY_BYTES * len(chunk)

    def take(self, bound_ms: int, *, inclusive: bool) -> list[Chunk]:
        """Remove and return the entries below the bound, or up to it."""
        taken: list[Chunk] = []
        while self.chunks:
            chunk = self.chunks[0]
            cut = int(np.searchsorted(chunk.entry_ms, bound_ms, side="right" if inclusive else "left"))
            if cut < len(chunk):
                if cut:
                    head, self.chunks[0] = _split(chunk, cut)
                    taken.append(head)
                break
            taken.append(self.chunks.popleft())
        self.size_bytes -= sum(int(chunk.sizes.sum()) + ENTRY_BYTES * len(chunk) for chunk in taken)
        return taken


ENTRY_BYTES = 100
"""What an entry takes in memory beside its payload, roughly."""


def _split(chunk: Chunk, cut: int) -> tuple[Chunk, Chunk]:
    def part(rows: slice, offset: int) -> Chunk:
        details = {
            place - offset: text
            for place, text in chunk.details.items()
            if rows.start <= place < (len(chunk) if rows.stop is None else rows.stop)
        }
        return Chunk(
            chunk.entry_ms[rows],
            chunk.entry_seq[rows],
            chunk.kinds[rows],
            chunk.payloads[rows],
            chunk.sizes[rows],
            chunk.weights[rows],
            details,
        )

    return part(slice(0, cut), 0), part(slice(cut, None), cut)


class Merge:
    """Holds what was read of each stream and gives it out in position order.

    `states` and `held` are parallel. The caller reads the stream `behind()` names whatever it holds, the others only
    while they hold less than their share.
    """

    def __init__(self, states: list[StreamState], *, events_max: int, bytes_max: int) -> None:
        self._states = states
        self._events_max = events_max
        self._bytes_max = bytes_max
        self.held = [Held() for _ in states]

    def behind(self) -> int:
        """Return the place of the stream everybody waits for: smallest watermark, then smallest index."""
        return min(range(len(self._states)), key=lambda at: (self._states[at].watermark_ms, self._states[at].index))

    def watermark_ms(self) -> int:
        """Return the smallest watermark: every entry with ms below it was read."""
        return self._states[self.behind()].watermark_ms

    def add(self, place: int, chunk: Chunk) -> None:
        """Take what was read of a stream; its state already knows of it."""
        self.held[place].add(chunk)

    def take(self) -> Iterator[RawBatch]:
        """Remove all that may go and return it as items in position order; the states note what left."""
        last = self._states[self.behind()]
        pieces: list[tuple[int, Chunk]] = []
        for state, held in zip(self._states, self.held, strict=True):
            chunks = held.take(last.watermark_ms, inclusive=state.index <= last.index)
            if chunks:
                state.handed_on(chunks[-1].last, sum(map(len, chunks)))
                pieces.extend((state.index, chunk) for chunk in chunks)
        if pieces:
            yield from self._items(pieces)

    def _items(self, pieces: list[tuple[int, Chunk]]) -> Iterator[RawBatch]:
        stream = np.concatenate([np.full(len(chunk), index, np.uint16) for index, chunk in pieces])
        entry_ms = np.concatenate([chunk.entry_ms for _, chunk in pieces])
        entry_seq = np.concatenate([chunk.entry_seq for _, chunk in pieces])
        kinds = np.concatenate([chunk.kinds for _, chunk in pieces])
        sizes = np.concatenate([chunk.sizes for _, chunk in pieces])
        weights = np.concatenate([chunk.weights for _, chunk in pieces])
        payloads: list[bytes] = []
        details: dict[int, str] = {}
        for _, chunk in pieces:
            if chunk.details:
                details.update({len(payloads) + place: text for place, text in chunk.details.items()})
            payloads += chunk.payloads
        order = np.lexsort((entry_seq, stream, entry_ms))
        if (kinds == TICK).any():
            order = order[kinds[order] != TICK]
        for rows in self._cuts(order, sizes, weights):
            places = rows.tolist()
            yield RawBatch(
                stream[rows],
                entry_ms[rows],
                entry_seq[rows],
                kinds[rows],
                [payloads[place] for place in places],
                {at: details[place] for at, place in enumerate(places) if place in details} if details else {},
            )

    def _cuts(self, order: np.ndarray, sizes: np.ndarray, weights: np.ndarray) -> Iterator[np.ndarray]:
        """Cut into items of up to the limits, with at least one entry each."""
        events, size_bytes = np.cumsum(weights[order]), np.cumsum(sizes[order])
        start, events_before, bytes_before = 0, 0, 0
        while start < len(order):
            stop = min(
                int(np.searchsorted(events, events_before + self._events_max, side="right")),
                int(np.searchsorted(size_bytes, bytes_before + self._bytes_max, side="right")),
            )
            stop = max(stop, start + 1)
            yield order[start:stop]
            start, events_before, bytes_before = stop, int(events[stop - 1]), int(size_bytes[stop - 1])
