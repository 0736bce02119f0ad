"""The reader on a real Valkey: order, resume, claims, loading, forms, limits, read-only."""

import random
import time
from typing import Any

import pytest
import redis

from core.errors import InvalidRequest, InvariantViolation
from operators.items import EVENTS, MALFORMED, Marker, RawBatch
from sources.entries import parse_id
from sources.reading import Reading
from sources.stream_commands import LOADING_PREFIX
from tests.sources.support import (
    NOW_MS,
    STREAMS,
    StepClock,
    add,
    batch_lengths,
    check_markers,
    drain,
    load,
    markers,
    partition_of,
    payloads,
    poll,
    positions,
    reader_of,
    settings_of,
)


@pytest.fixture
def client(redis_url: str) -> redis.Redis:
    return redis.Redis.from_url(redis_url)


# --- order, drain, resume --------------------------------------------------------------------------------


def test_a_drain_hands_on_everything_in_order_and_claims_the_clock(redis_url: str, client: redis.Redis) -> None:
    added = load(client, 2_000)
    before_ms = time.time() * 1000 - 5
    items = drain(partition_of(settings_of(redis_url, read_entries=37), drain=True))
    assert positions(items) == added
    assert payloads(items) == [b"%d-%d-%d" % position for position in added]
    check_markers(items)
    assert markers(items)[-1] >= before_ms
    assert isinstance(items[-1], Marker)


def test_a_resume_reads_exactly_what_was_not_handed_on(redis_url: str, client: redis.Redis) -> None:
    added = load(client, 3_000, seed=2)
    settings = settings_of(redis_url, read_entries=50, flow={"item_events_max": 100})
    chance, out, snapshot, sent = random.Random(3), [], None, 0
    for _ in range(40):
        reader, state = reader_of(settings, snapshot)
        assert state.sent_ms == sent
        for _ in range(chance.randrange(4)):
            reader.round()
        batches = reader.take()
        out += positions(list(batches))
        state.sent_ms = sent = reader.watermark_ms
        snapshot = state.snapshot()  # whatever was read beyond is forgotten
        reader.disconnect()
    out += positions(drain(partition_of(settings, snapshot, drain=True)))
    assert out == added


def test_a_drain_does_not_wait_for_ids_of_the_far_future(redis_url: str, client: redis.Redis) -> None:
    ahead_ms = int(time.time() * 1000) + 3_600_000
    added = [add(client, 0, NOW_MS, 0), add(client, 1, ahead_ms, 0)]
    partition = partition_of(settings_of(redis_url), drain=True)
    items = drain(partition, limit_s=5)
    assert positions(items) == added[:1]
    assert markers(items)[-1] < ahead_ms
    assert partition.snapshot()["streams"]["usage:1"]["count"] == 0


def test_batch_settings_change_nothing_but_the_items(redis_url: str, client: redis.Redis) -> None:
    added = load(client, 1_000, seed=4)
    for read_entries, events_max in ((1, 7), (1000, 20_000), (13, 1)):
        settings = settings_of(redis_url, read_entries=read_entries, flow={"item_events_max": events_max})
        items = drain(partition_of(settings, drain=True))
        assert positions(items) == added
        assert max(batch_lengths(items)) <= events_max


def test_readers_share_the_streams_and_leave_none_out(redis_url: str, client: redis.Redis) -> None:
    added = load(client, 500)
    settings = settings_of(redis_url, flow={"readers": 3})
    parts = [drain(partition_of(settings, part=f"reader-{n:02d}", drain=True)) for n in range(3)]
    assert [sorted({stream for _, stream, _ in positions(part)}) for part in parts] == [[0, 3], [1], [2]]
    assert sorted(position for part in parts for position in positions(part)) == added


# --- claims ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fence", ["xsetid", "tick"])
def test_a_claim_holds_against_every_later_entry(redis_url: str, client: redis.Redis, fence: str) -> None:
    add(client, 0, NOW_MS, 0)
    partition = partition_of(settings_of(redis_url, fence=fence, streams=STREAMS[:2]))
    items = poll(partition, lambda _: partition.snapshot()["sent_ms"] > NOW_MS)
    for _ in range(50):
        items += partition.next_batch()
        partition.snapshot()
        claimed = max(stream["fence_ms"] for stream in partition.snapshot()["streams"].values())
        entry_id: Any = client.xadd("usage:1", {"event": b"x"})
        assert parse_id(entry_id)[0] >= claimed
        with pytest.raises(redis.ResponseError):
            client.xadd("usage:1", {"event": b"x"}, id=f"{claimed - 1}-5")
        time.sleep(0.003)
    poll(partition, lambda more: len(payloads(items + more)) == 51)
    check_markers(items)
    added = {name: client.xinfo_stream(name)["entries-added"] for name in STREAMS[:2]}
    assert fence == "tick" or added == {"usage:0": 1, "usage:1": 50}


def test_missing_streams_are_created_with_nothing_ever_added(redis_url: str, client: redis.Redis) -> None:
    drain(partition_of(settings_of(redis_url), drain=True))
    for name in STREAMS:
        assert client.xinfo_stream(name)["entries-added"] == 0
        assert client.xinfo_stream(name)["groups"] == 0


def test_a_claim_never_lowers_a_last_id_ahead_of_the_clock(redis_url: str, client: redis.Redis) -> None:
    ahead_ms = int(time.time() * 1000) + 3_600_000
    for name in STREAMS:
        client.xadd(name, {"event": b"x"}, id=f"{ahead_ms}-3")
        client.xtrim(name, maxlen=0, approximate=False)  # with entries gone the server itself would let XSETID go back
    items = drain(partition_of(settings_of(redis_url), drain=True))
    assert markers(items)[-1] == ahead_ms
    for name in STREAMS:
        assert client.xinfo_stream(name)["last-generated-id"] == b"%d-3" % ahead_ms


def test_a_fence_lost_by_the_server_is_set_again(redis_url: str, client: redis.Redis) -> None:
    settings = settings_of(redis_url)
    partition = partition_of(settings, drain=True)
    drain(partition)
    snapshot = partition.snapshot()
    ahead_ms = int(time.time() * 1000) + 60_000
    for stream in snapshot["streams"].values():
        stream["fence_ms"] = ahead_ms  # as if claimed by a server whose clock was a minute ahead
    drain(partition_of(settings, snapshot, drain=True))
    assert client.xinfo_stream("usage:2")["last-generated-id"] == b"%d-0" % ahead_ms


def test_an_entry_below_the_watermark_stops_the_flow(redis_url: str, client: redis.Redis) -> None:
    partition = partition_of(settings_of(redis_url, streams=STREAMS[:1]))
    poll(partition, lambda items: bool(markers(items)) and markers(items)[-1] > NOW_MS)
    client.delete("usage:0")
    client.xgroup_create("usage:0", "g", "$", mkstream=True)
    add(client, 0, NOW_MS, 1)
    with pytest.raises(InvariantViolation, match=str(NOW_MS)):
        poll(partition, lambda _: False)


# --- loading ---------------------------------------------------------------------------------------------


def test_while_history_is_loaded_the_clock_moves_nothing(redis_url: str, client: redis.Redis) -> None:
    client.set(LOADING_PREFIX + "usage:1", b"1")
    added = [add(client, stream, NOW_MS + stream, 0) for stream in range(4)]
    settings = settings_of(redis_url)
    partition = partition_of(settings)
    items = poll(partition, lambda items: len(positions(items)) >= 2)
    for _ in range(20):
        items += partition.next_batch()
        time.sleep(0.01)
    assert positions(items) == added[:2]
    assert max(markers(items)) <= NOW_MS + 1
    added.append(add(client, 1, NOW_MS + 5, 0))
    client.delete(LOADING_PREFIX + "usage:1")
    items += poll(partition, lambda more: len(positions(more)) == 3)
    assert positions(items) == sorted(added)


def test_a_drain_while_history_is_loaded_ends_with_what_can_be_known(redis_url: str, client: redis.Redis) -> None:
    for name in STREAMS:
        client.set(LOADING_PREFIX + name, b"1")
    added = load(client, 400)
    partition = partition_of(settings_of(redis_url), drain=True)
    items = drain(partition)
    assert positions(items) == added[: len(positions(items))]
    assert (
        NOW_MS
        < markers(items)[-1]
        <= min(max(entry_ms for entry_ms, stream, _ in added if stream == at) for at in range(4))
    )
    for name in STREAMS:
        client.delete(LOADING_PREFIX + name)
    rest = drain(partition_of(settings_of(redis_url), partition.snapshot(), drain=True))
    assert positions(items + rest) == added


# --- forms and sizes of entries --------------------------------------------------------------------------


def test_entries_of_all_forms_arrive(redis_url: str, client: redis.Redis) -> None:
    client.xadd("usage:0", {"events": b"a\nb\nc"})
    client.xadd("usage:0", {"event": b"d"})
    client.xadd("usage:0", {"event": b"e", "more": b"f"})
    client.xadd("usage:0", {"other": b"g"})
    items = drain(partition_of(settings_of(redis_url), drain=True))
    (batch,) = [item for item in items if isinstance(item, RawBatch)]
    assert batch.kinds.tolist() == [EVENTS, 0, MALFORMED, MALFORMED]
    assert batch.payloads == [b"a\nb\nc", b"d", b"event=e\nmore=f\n", b"other=g\n"]
    assert sorted(batch.details) == [2, 3]


def test_large_entries_do_not_fill_the_memory(redis_url: str, client: redis.Redis) -> None:
    small, large = b"s" * 100, b"L" * (1 << 20)
    for at in range(1_200):
        client.xadd("usage:0", {"event": small}, id=f"{NOW_MS}-{at}")
    for at in range(120):
        client.xadd("usage:0", {"event": large}, id=f"{NOW_MS + 1}-{at}")
    settings = settings_of(redis_url, streams=STREAMS[:1])
    reader, _ = reader_of(settings, reading=Reading(drain=True, item_events_max=2_000, item_bytes_max=4 << 20))
    lengths, held = [], 0
    while not reader.finished:
        reader.round()
        held = max(held, reader.held_bytes)
        for batch in reader.take():
            lengths.append(len(batch.payloads))
            assert len(batch.payloads) == 1 or sum(map(len, batch.payloads)) <= 4 << 20
    assert sum(lengths) == 1_320
    assert held <= 70 << 20


def test_a_stream_far_ahead_waits_for_the_others(redis_url: str, client: redis.Redis) -> None:
    client.set(LOADING_PREFIX + "usage:1", b"1")
    added = [add(client, 1, NOW_MS, 0)]
    for at in range(3_000):
        added.append(add(client, 0, NOW_MS + 1 + at, 0, event=b"x" * 1_000))
    settings = settings_of(redis_url, streams=STREAMS[:2], read_entries=100)
    reader, _ = reader_of(settings, reading=Reading(held_bytes_max=400_000))
    out = []
    for _ in range(60):
        reader.round()
        out += positions(list(reader.take()))
        assert reader.held_bytes <= 400_000 // 2 + 101 * 1_200
    assert out == added[:1]
    client.delete(LOADING_PREFIX + "usage:1")
    for _ in range(200):
        reader.round()
        out += positions(list(reader.take()))
        if len(out) == len(added):
            break
        time.sleep(0.005)
    assert out == added


def test_an_epoch_takes_no_more_than_its_bytes(redis_url: str, client: redis.Redis) -> None:
    for at in range(40):
        add(client, 0, NOW_MS, at, event=b"x" * 100_000)
    flow = {"epoch_bytes_max": 1 << 20, "item_events_max": 5, "item_ms_max": 1}
    settings = settings_of(redis_url, streams=STREAMS[:1], read_entries=5, flow=flow)
    partition = partition_of(settings)
    items: list[Any] = []
    for _ in range(20):
        items += partition.next_batch()
    assert 10 <= len(payloads(items)) <= 16
    awake = partition.next_awake()
    assert awake is not None, "it must not spin while it waits for the epoch's end"
    partition.snapshot()
    more: list[Any] = []
    for _ in range(20):
        more += partition.next_batch()
    assert 10 <= len(payloads(more)) <= 16
    check_markers(items + more)


def test_an_overdue_epoch_gets_its_work_in_one_call(redis_url: str, client: redis.Redis) -> None:
    for at in range(300):
        add(client, 0, NOW_MS, at)
    settings = settings_of(redis_url, streams=STREAMS[:1], read_entries=1, flow={"item_ms_max": 1, "epoch_s": 2.0})
    counts = []
    for drained_s in (0.0, 1.0, 60.0):
        clock = StepClock()
        partition = partition_of(settings, clock=clock)
        partition.snapshot()
        clock.sleep(drained_s)  # the engine waits for the old epoch's end meanwhile
        counts.append(len(payloads(partition.next_batch())))
    assert 2 <= counts[0] <= 30
    assert 1.5 * counts[0] < counts[1] < counts[2] <= 200


def test_a_stream_never_read_may_vanish_and_is_made_again(redis_url: str, client: redis.Redis) -> None:
    partition = partition_of(settings_of(redis_url))
    poll(partition, lambda items: bool(markers(items)) and markers(items)[-1] > NOW_MS)
    client.delete("usage:2")
    items = poll(partition, lambda _: bool(client.exists("usage:2")))
    client.xadd("usage:2", {"event": b"x"})
    items += poll(partition, lambda more: payloads(more) == [b"x"])
    check_markers(items)


def test_a_key_that_is_no_stream_is_named(redis_url: str, client: redis.Redis) -> None:
    client.set("usage:1", b"x")
    with pytest.raises(InvalidRequest, match="usage:1 is not a stream"):
        drain(partition_of(settings_of(redis_url), drain=True))


# --- read-only ------------------------------------------------------------------------------


def test_a_read_only_reader_writes_nothing_and_ends_before_its_watermark(redis_url: str, client: redis.Redis) -> None:
    added = load(client, 500)
    client.delete("usage:3")
    added = [position for position in added if position[1] != 3]
    end_ms = added[300][0]
    before = {name: client.xinfo_stream(name) for name in STREAMS[:3]}
    items = drain(partition_of(settings_of(redis_url), read_only=True, end_watermark_ms=end_ms))
    assert positions(items) == [position for position in added if position[0] < end_ms]
    assert markers(items)[-1] == end_ms
    assert {name: client.xinfo_stream(name) for name in STREAMS[:3]} == before
    assert not client.exists("usage:3")


def test_a_read_only_reader_ends_at_given_ids(redis_url: str, client: redis.Redis) -> None:
    added = load(client, 500)
    ends = dict.fromkeys(STREAMS, (0, 1))
    for entry_ms, stream, entry_seq in added[:200]:
        ends[STREAMS[stream]] = (entry_ms, entry_seq)
    items = drain(partition_of(settings_of(redis_url), read_only=True, end_ids=ends, end_watermark_ms=added[200][0]))
    assert positions(items) == added[:200]
    assert markers(items)[-1] == added[200][0]


def test_a_read_only_reader_needs_an_end(redis_url: str) -> None:
    with pytest.raises(InvalidRequest, match="watermark"):
        partition_of(settings_of(redis_url), read_only=True)


def test_under_load_an_item_fills_up_before_it_leaves(redis_url: str, client: redis.Redis) -> None:
    for at in range(300):
        add(client, 0, NOW_MS, at)
    flow = {"item_events_max": 100, "item_ms_max": 1}
    partition = partition_of(settings_of(redis_url, streams=STREAMS[:1], read_entries=10, flow=flow), clock=StepClock())
    items = [item for item in partition.next_batch() if isinstance(item, RawBatch)]
    assert len(items[0].payloads) == 100, "whole reads come back for longer than the item's time"


def test_a_reader_knows_that_more_is_waiting(redis_url: str, client: redis.Redis) -> None:
    for at in range(25):
        add(client, 0, NOW_MS, at)
    add(client, 1, NOW_MS, 0)
    reader, _ = reader_of(settings_of(redis_url, streams=STREAMS[:2], read_entries=10))
    assert not reader.is_behind
    behind = []
    for _ in range(4):
        reader.round()
        behind.append(reader.is_behind)
    assert behind == [True, True, False, False]
