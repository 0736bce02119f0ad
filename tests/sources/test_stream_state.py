import pickle

import pytest

from core.errors import InvariantViolation, StateMismatch
from sources.stream_state import StreamInfo, StreamState, backward, gap, restore


def info(length: int, added: int, last: int, first: int | None, entry: int | None = None) -> StreamInfo:
    top = last if entry is None else entry
    return StreamInfo(length, added, (last, 0), (first, 0) if first else None, (top, 0) if first else None)


def at(read: int, count: int, fence_ms: int = 0) -> StreamState:
    return StreamState("s", 0, read=(read, 0), read_count=count, emitted=(read, 0), fence_ms=fence_ms, known=True)


@pytest.mark.parametrize(
    ("state", "server", "lost"),
    [
        (at(0, 0), info(5, 5, 5, 1), 0),
        (at(3, 3), info(5, 5, 5, 1), 0),
        (at(3, 3), info(2, 5, 5, 4), 0),
        (at(3, 3), info(1, 5, 5, 5), 1),
        (at(3, 3), info(0, 5, 5, None), 2),
        (at(5, 5), info(0, 5, 5, None), 0),
        (at(5, 5), info(0, 5, 900, None), 0),
        (at(5, 4), info(1, 5, 5, 5), 1),
        (at(5, 5), info(1, 6, 6, 6), 0),
    ],
)
def test_a_gap_is_what_is_neither_read_nor_there(state: StreamState, server: StreamInfo, lost: int) -> None:
    assert gap(state, server) == lost
    assert backward(state, server, 0) is None


@pytest.mark.parametrize(
    ("state", "server", "high_water_ms"),
    [
        (at(5, 5), info(4, 4, 4, 1), 0),
        (at(5, 5), info(0, 0, 0, None), 0),
        (at(5, 5), info(3, 3, 9, 1), 0),
        (at(5, 5), info(2, 6, 9, 8), 0),
        (at(0, 0), info(5, 5, 5, 1), 6),
        (at(5, 5, fence_ms=7), info(5, 5, 5, 1), 8),
    ],
)
def test_a_lost_tail_is_seen(state: StreamState, server: StreamInfo, high_water_ms: int) -> None:
    assert backward(state, server, high_water_ms) is not None


def test_a_fence_that_did_not_reach_the_disk_is_no_loss() -> None:
    assert backward(at(5, 5, fence_ms=70), info(5, 5, 5, 1), 60) is None


def test_the_baseline_is_taken_once() -> None:
    state = StreamState("s", 0)
    state.begin(info(3, 10, 9, 7))
    state.begin(info(3, 20, 19, 17))
    assert state.read_count == state.emitted_count == 7


def test_an_entry_below_the_watermark_stops_the_flow() -> None:
    state = StreamState("usage:3", 0, watermark_ms=100)
    state.check_order(100)
    with pytest.raises(InvariantViolation, match=r"usage:3.*99"):
        state.check_order(99)


def test_a_snapshot_holds_what_left_as_plain_values_and_comes_back() -> None:
    state = restore([(0, "a"), (1, "b")], None)
    stream = state.streams[0]
    stream.begin(info(3, 10, 9, 7))
    stream.received((9, 0), 3)
    stream.handed_on((8, 0), 2)
    stream.claimed(50)
    state.sent_ms = 8
    plain = pickle.loads(pickle.dumps(state.snapshot()))  # noqa: S301
    back = restore([(0, "a"), (1, "b")], plain)
    assert back.sent_ms == 8
    assert back.streams[0].read == back.streams[0].emitted == (8, 0)
    assert back.streams[0].read_count == 9
    assert back.streams[0].fence_ms == 50
    assert back.streams[0].watermark_ms == 8
    assert not back.streams[1].known
    assert plain["total"] == 9


def test_a_stream_that_moved_in_the_list_is_refused() -> None:
    state = restore([(0, "a")], None)
    state.streams[0].begin(info(0, 0, 0, None))
    plain = state.snapshot()
    with pytest.raises(StateMismatch, match="grows at its end"):
        restore([(0, "b"), (1, "a")], plain)
    with pytest.raises(StateMismatch, match="version 99"):
        restore([(0, "a")], plain | {"version": 99})
    assert len(restore([(0, "a"), (1, "b")], plain).streams) == 2
