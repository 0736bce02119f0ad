"""The producer on a real Valkey."""

import threading
import time
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config.settings import RedisSettings
from core.errors import InvalidRequest, Unreachable
from sources.producer import Producer, Record, stream_of
from sources.sending import LOADING_TTL_MS
from sources.stream_commands import LOADING_PREFIX
from tests.sources.support import STREAMS, drain, partition_of, payloads, positions, settings_of

HISTORY_MS = 1_700_000_000_000


@pytest.fixture
def client(redis_url: str) -> redis.Redis:
    return redis.Redis.from_url(redis_url)


@pytest.fixture
def producer(redis_url: str) -> Iterator[Producer]:
    with Producer(RedisSettings(url=redis_url)) as sender:
        yield sender


def entries(client: redis.Redis, stream: str) -> list[Any]:
    return list(client.xrange(stream))  # type: ignore[arg-type]


def test_a_subject_always_goes_to_its_stream(client: redis.Redis, producer: Producer) -> None:
    records: list[Record] = [(None, f"tenant-{at % 40}é", b"%d" % at) for at in range(3_000)]
    report = producer.send(iter(records))
    assert (report.events, report.entries) == (3_000, 3_000)
    assert report.payload_bytes == sum(len(payload) for _, _, payload in records)
    for index, name in enumerate(STREAMS):
        expected = [p for _, subject, p in records if zlib.crc32(subject.encode()) % 4 == index]
        stored = entries(client, name)
        assert [fields for _, fields in stored] == [{b"event": payload} for payload in expected]
        part = report.streams[name]
        assert (part.entries, part.first_id.encode(), part.last_id.encode()) == (
            len(expected),
            stored[0][0],
            stored[-1][0],
        )


def test_one_stream_takes_everything_if_told_so(client: redis.Redis, producer: Producer) -> None:
    producer.send([(None, f"t{at}", b"x") for at in range(20)], stream="usage:2")
    assert client.keys("*") == [b"usage:2"]
    assert client.xlen("usage:2") == 20


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.sampled_from("abcdef"), st.binary(min_size=1, max_size=9).filter(lambda b: b"\n" not in b))),
    st.integers(1, 7),
)
def test_batches_hold_the_same_events_in_the_same_order(
    redis_url: str, client: redis.Redis, events: list[tuple[str, bytes]], batch: int
) -> None:
    client.flushall()
    with Producer(RedisSettings(url=redis_url)) as sender:
        report = sender.send([(None, subject, payload) for subject, payload in events], batch=batch)
    assert report.events == len(events)
    for name in STREAMS:
        stored = []
        for _, fields in entries(client, name):
            ((field_name, payload),) = fields.items()
            lines = payload.split(b"\n")
            assert len(lines) <= batch
            assert field_name == (b"event" if len(lines) == 1 else b"events")
            stored += lines
        assert stored == [payload for subject, payload in events if stream_of(subject, STREAMS) == name]


def test_a_batch_never_exceeds_its_bytes(client: redis.Redis, producer: Producer) -> None:
    producer.send([(None, "t", b"x" * 300_000) for _ in range(10)], batch=1000, stream="usage:0")
    assert [len(fields[b"events"]) for _, fields in entries(client, "usage:0")[:3]] == [900_002] * 3


def test_a_line_break_inside_an_event_is_refused_in_a_batch_only(client: redis.Redis, producer: Producer) -> None:
    producer.send([(None, "t", b'{\n"a":1}')], stream="usage:0")
    producer.send([(None, "t", b'{"a":1}\n'), (None, "t", b"b\r\n")], batch=2, stream="usage:0")
    assert entries(client, "usage:0")[1][1] == {b"events": b'{"a":1}\nb'}
    with pytest.raises(InvalidRequest, match="line break"):
        producer.send([(None, "t", b'{\n"a":1}')], batch=2)
    with pytest.raises(InvalidRequest, match="from 1 to 1000"):
        producer.send([], batch=0)


# --- history ---------------------------------------------------------------------------------------------


def test_history_gets_ids_of_its_own_times(client: redis.Redis, producer: Producer, redis_url: str) -> None:
    records: list[Record] = [(HISTORY_MS + at // 3, f"t{at % 5}", b"%d" % at) for at in range(2_500)]
    producer.send(records)
    items = drain(partition_of(settings_of(redis_url), drain=True))
    stored = dict(zip(positions(items), payloads(items), strict=True))
    expected: dict[tuple[int, int, int], bytes] = {}
    for arrival_ms, subject, payload in records:
        assert arrival_ms is not None
        stream = STREAMS.index(stream_of(subject, STREAMS))
        seq = sum(1 for at in expected if at[:2] == (arrival_ms, stream))
        expected[arrival_ms, stream, seq] = payload
    assert stored == expected
    assert client.keys(LOADING_PREFIX + "*") == []


def test_every_stream_is_held_while_history_comes_and_let_go_after(client: redis.Redis, producer: Producer) -> None:
    seen: list[dict[bytes, int]] = []

    def records() -> Iterator[Record]:
        for at in range(3_001):
            if at == 3_000:
                keys: list[Any] = client.keys(LOADING_PREFIX + "*")
                seen.append({key: int(client.pttl(key)) for key in keys})
            yield HISTORY_MS + at, "only-one-subject", b"x"

    producer.send(records())
    assert sorted(seen[0]) == [(LOADING_PREFIX + name).encode() for name in STREAMS]
    assert all(0 < ttl_ms <= LOADING_TTL_MS for ttl_ms in seen[0].values())
    assert client.keys(LOADING_PREFIX + "*") == []


def test_history_below_what_is_there_is_refused(client: redis.Redis, producer: Producer) -> None:
    client.xadd("usage:0", {"event": b"x"}, id=f"{HISTORY_MS + 10}-0")
    with pytest.raises(InvalidRequest, match=f"usage:0 already has the id {HISTORY_MS + 10}-0.*before the flow"):
        producer.send([(HISTORY_MS, "t", b"x")], stream="usage:0")
    assert client.xlen("usage:0") == 1
    assert client.keys(LOADING_PREFIX + "*") == []
    producer.send([(HISTORY_MS + 11, "t", b"x")], stream="usage:0")


def test_history_that_is_not_in_order_is_refused(client: redis.Redis, producer: Producer) -> None:
    with pytest.raises(InvalidRequest, match="Sort the events"):
        producer.send([(HISTORY_MS, "t", b"x"), (HISTORY_MS - 1, "t", b"y")])
    with pytest.raises(InvalidRequest, match="cannot be sent together"):
        producer.send([(HISTORY_MS, "t", b"x"), (None, "t", b"y")])
    assert client.keys(LOADING_PREFIX + "*") == []


def test_another_writer_during_history_is_noticed(client: redis.Redis, producer: Producer) -> None:
    def records() -> Iterator[Record]:
        for at in range(4_000):
            if at == 2_500:
                client.xadd("usage:0", {"event": b"live"})
            yield HISTORY_MS + at, "t", b"x"

    with pytest.raises(InvalidRequest, match="newer entries while history") as failure:
        producer.send(records(), stream="usage:0")
    assert "nothing else may write" in str(failure.value)
    assert client.keys(LOADING_PREFIX + "*") == []
    assert client.xlen("usage:0") >= 1_001


def test_history_is_not_overtaken_by_a_running_reader(redis_url: str, producer: Producer) -> None:
    partition = partition_of(settings_of(redis_url))
    items: list[Any] = []

    def records() -> Iterator[Record]:
        for at in range(6_000):
            if at > 1_000 and at % 500 == 499:  # the reader runs while history is on its way
                items.extend(partition.next_batch())
                partition.snapshot()
                time.sleep(0.02)
            yield HISTORY_MS + at, f"t{at % 9}", b"%d" % at

    producer.send(records())
    until_s = time.monotonic() + 10
    while len(payloads(items)) < 6_000:
        assert time.monotonic() < until_s
        items += partition.next_batch()
    assert positions(items) == sorted(positions(items))


# --- slow records, outages, durability -------------------------------------------------------------------


def test_slow_records_do_not_wait_for_a_full_pipeline(client: redis.Redis, producer: Producer) -> None:
    lengths = []

    def records() -> Iterator[Record]:
        for at in range(4):
            lengths.append(int(client.xlen("usage:0")))
            yield None, "t", b"%d" % at
            time.sleep(0.3)

    producer.send(records(), stream="usage:0")
    assert lengths[-1] >= 2
    assert client.xlen("usage:0") == 4


def test_no_server_is_said_with_its_address_and_setting() -> None:
    with pytest.raises(Unreachable, match=r"127.0.0.1:1 .*METERBRIDGE_REDIS__URL"):
        Producer(RedisSettings(url="redis://:hidden@127.0.0.1:1/0")).send([(None, "t", b"x")])


def test_a_server_without_an_append_only_file_confirms_nothing(producer: Producer) -> None:
    assert producer.send([(None, "t", b"x")], wait_aof=True).fsynced is False
    assert producer.send([(None, "t", b"x")]).fsynced is None


def test_two_producers_write_to_one_stream(client: redis.Redis, redis_url: str) -> None:
    def work() -> None:
        with Producer(RedisSettings(url=redis_url)) as sender:
            sender.send([(None, "t", b"x") for _ in range(5_000)])

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(int(client.xlen(name)) for name in STREAMS) == 10_000
