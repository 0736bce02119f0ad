from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from operators.items import EVENT, RawBatch
from sources.entries import TICK, parse
from sources.merge import Merge
from sources.stream_state import StreamState
from tests.sources.support import Position, positions

Entries = list[tuple[int, int]]
ENTRIES = st.lists(st.tuples(st.integers(1, 12), st.integers(0, 6)), max_size=30, unique=True).map(sorted)


def naive(streams: list[Entries], upto: list[int]) -> list[Position]:
    """All entries in position order."""
    return sorted(
        (entry_ms, stream, entry_seq)
        for stream, entries in enumerate(streams)
        for entry_ms, entry_seq in entries[: upto[stream]]
    )


@settings(max_examples=150, deadline=None)
@given(st.lists(ENTRIES, min_size=1, max_size=4), st.data(), st.integers(1, 7), st.integers(1, 60))
def test_any_interleaving_of_reads_gives_position_order(
    streams: list[Entries], data: Any, events_max: int, bytes_max: int
) -> None:
    states = [StreamState(f"s{index}", index) for index in range(len(streams))]
    merge = Merge(states, events_max=events_max, bytes_max=bytes_max)
    read = [0] * len(streams)
    out: list[RawBatch] = []
    for _ in range(data.draw(st.integers(1, 12))):
        place = data.draw(st.integers(0, len(streams) - 1))
        part = streams[place][read[place] : read[place] + data.draw(st.integers(1, 10))]
        if part:
            read[place] += len(part)
            chunk = parse("s", [[b"%d-%d" % entry, [b"event", b"%d-%d" % entry]] for entry in part])
            states[place].received(chunk.last, len(chunk))
            merge.add(place, chunk)
        elif data.draw(st.booleans()):
            states[place].claimed(data.draw(st.integers(states[place].watermark_ms, 14)))
        if data.draw(st.booleans()):
            out += merge.take()
            taken = len(positions(list(out)))
            everything = naive(streams, [len(entries) for entries in streams])
            if any(state.fence_ms for state in states):
                continue
            # Whatever is read later, what left is exactly the beginning of the whole order.
            assert positions(list(out)) == everything[:taken]
    for place, entries in enumerate(streams):
        if rest := entries[read[place] :]:
            rest = [entry for entry in rest if entry[0] >= states[place].watermark_ms]
            streams[place] = entries[: read[place]] + rest
        if rest:
            chunk = parse("s", [[b"%d-%d" % entry, [b"event", b"%d-%d" % entry]] for entry in rest])
            states[place].received(chunk.last, len(chunk))
            merge.add(place, chunk)
        states[place].claimed(100)
    out += merge.take()
    assert positions(list(out)) == naive(streams, [len(entries) for entries in streams])
    for item in out:
        assert [b"%d-%d" % pair for pair in zip(item.entry_ms, item.entry_seq, strict=True)] == item.payloads
        assert len(item.payloads) == 1 or (
            len(item.payloads) <= events_max and sum(map(len, item.payloads)) <= bytes_max
        )
    for state, entries in zip(states, streams, strict=True):
        assert state.emitted_count == len(entries)
        assert state.emitted == (entries[-1] if entries else (0, 0))
    assert all(not held.chunks and held.size_bytes == 0 for held in merge.held)


def test_a_stream_whose_clock_stands_still_flows_on() -> None:
    states = [StreamState("a", 0), StreamState("b", 1)]
    merge = Merge(states, events_max=100, bytes_max=10_000)
    states[1].claimed(50)
    for entry_seq in range(3):
        chunk = parse("a", [[b"10-%d" % entry_seq, [b"event", b"x"]]])
        states[0].received(chunk.last, 1)
        merge.add(0, chunk)
        assert positions(list(merge.take())) == [(10, 0, entry_seq)]


def test_ticks_are_counted_and_left_out_and_details_stay_with_their_entries() -> None:
    states = [StreamState("a", 0)]
    merge = Merge(states, events_max=2, bytes_max=10_000)
    fields = [[b"event", b"1"], [b"tick", b"2"], [b"odd", b"3"], [b"event", b"4"], [b"odd", b"5"]]
    chunk = parse("a", [[b"%d-0" % (at + 1), names] for at, names in enumerate(fields)])
    assert TICK in chunk.kinds
    states[0].received(chunk.last, len(chunk))
    merge.add(0, chunk)
    states[0].claimed(4)
    first = list(merge.take())
    states[0].claimed(9)
    batches = first + list(merge.take())
    assert positions(list(batches)) == [(1, 0, 0), (3, 0, 0), (4, 0, 0), (5, 0, 0)]
    assert states[0].emitted_count == 5
    for batch in batches:
        for place, payload in enumerate(batch.payloads):
            assert (place in batch.details) == (batch.kinds[place] != EVENT) == (b"=" in payload)
