"""The source inside the engine, with recovery, 1 and 2 workers, stops and resumes."""

import socket
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import bytewax.operators as op
import pytest
import redis
from bytewax._bytewax import cluster_main
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSink
from structlog.testing import capture_logs

from core.errors import InvalidRequest
from operators.items import Marker, RawBatch
from sources.redis_streams import RedisStreamSource
from sources.resp import RespConnection
from tests.sources.support import NOW_MS, STREAMS, check_markers, drain, load, markers, positions, settings_of

Collected = dict[str, list[list[Any]]]
"""Per sink partition, the epochs that became durable, each with its items."""


@pytest.fixture
def client(redis_url: str) -> redis.Redis:
    return redis.Redis.from_url(redis_url)


class CollectPartition(StatefulSinkPartition[Any, int]):
    """Keeps items per epoch; an epoch whose snapshot was not taken is dropped on resume, as a sink replays it."""

    def __init__(self, epochs: list[list[Any]], kept: int) -> None:
        del epochs[kept:]
        self._epochs = epochs
        self._current: list[Any] = []

    def write_batch(self, items: list[Any]) -> None:
        self._current += items

    def snapshot(self) -> int:
        self._epochs.append(self._current)
        self._current = []
        return len(self._epochs)


class CollectSink(FixedPartitionedSink[Any, int]):
    def __init__(self, collected: Collected, parts: list[str]) -> None:
        self._collected, self._parts = collected, parts

    def list_parts(self) -> list[str]:
        return self._parts

    def part_fn(self, item_key: str) -> int:
        return self._parts.index(item_key)

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> CollectPartition:
        return CollectPartition(self._collected.setdefault(for_part, []), resume_state or 0)


def build(source: FixedPartitionedSource[Any, Any], collected: Collected, parts: list[str]) -> Dataflow:
    """Data goes to the partition of its reader, found by its first stream; markers name their sender."""
    flow = Dataflow("collect")

    def keyed(item: RawBatch | Marker) -> tuple[str, RawBatch | Marker]:
        if isinstance(item, Marker):
            return item.sender, item
        return f"reader-{int(item.stream[0]) % len(parts):02d}", item

    op.output("collected", op.map("keyed", op.input("read", flow, source), keyed), CollectSink(collected, parts))
    return flow


def run(source: RedisStreamSource, collected: Collected, *, workers: int, recovery: Path | None = None) -> None:
    cluster_main(
        build(source, collected, source.list_parts()),
        [],
        0,
        epoch_interval=timedelta(milliseconds=60),
        recovery_config=RecoveryConfig(str(recovery)) if recovery else None,
        worker_count_per_proc=workers,
    )


def flat(collected: Collected, part: str = "reader-00") -> list[Any]:
    return [item for epoch in collected[part] for item in epoch]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("readers", [1, 2])
def test_the_engine_gets_every_entry_once_in_order(
    redis_url: str, client: redis.Redis, workers: int, readers: int, tmp_path: Path
) -> None:
    added = load(client, 4_000, seed=workers)
    settings = settings_of(redis_url, read_entries=100, flow={"item_events_max": 150, "readers": readers})
    collected: Collected = {}
    init_db_dir(tmp_path, 2)
    run(RedisStreamSource(settings, stop=threading.Event(), drain=True), collected, workers=workers, recovery=tmp_path)
    for number in range(readers):
        items = flat(collected, f"reader-{number:02d}")
        assert positions(items) == [position for position in added if position[1] % readers == number]
        check_markers(items)
        assert markers(items)[-1] > NOW_MS + 60_000


class Feeding(threading.Thread):
    """Adds entries while the flow runs, then stops it, in the middle of whatever it does."""

    def __init__(self, client: redis.Redis, stop: threading.Event, numbers: Iterator[int], count: int) -> None:
        super().__init__(daemon=True)
        self._client, self._stop_flow, self._numbers, self._count = client, stop, numbers, count
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            for _ in range(self._count):
                number = next(self._numbers)
                self._client.xadd(STREAMS[number % 4], {"event": b"%d" % number})
        except BaseException as error:  # shown by the test
            self.failure = error
        finally:
            self._stop_flow.set()


@pytest.mark.parametrize("workers", [1, 2])
def test_stops_and_resumes_lose_and_repeat_nothing(
    redis_url: str, client: redis.Redis, workers: int, tmp_path: Path
) -> None:
    settings = settings_of(redis_url, read_entries=50, flow={"item_events_max": 40, "item_ms_max": 5})
    collected: Collected = {}
    init_db_dir(tmp_path, 1)
    numbers = iter(range(100_000))
    for _ in range(5):
        stop = threading.Event()
        feeding = Feeding(client, stop, numbers, 700)
        feeding.start()
        run(RedisStreamSource(settings, stop=stop), collected, workers=workers, recovery=tmp_path)
        feeding.join()
        assert feeding.failure is None
    run(RedisStreamSource(settings, stop=threading.Event(), drain=True), collected, workers=workers, recovery=tmp_path)
    items = flat(collected)
    numbers_read = sorted(int(payload) for item in items if isinstance(item, RawBatch) for payload in item.payloads)
    assert numbers_read == list(range(3_500))
    assert positions(items) == sorted(positions(items))
    check_markers(items)


def test_every_epoch_has_its_marker_even_when_nothing_happens(redis_url: str, tmp_path: Path) -> None:
    settings = settings_of(redis_url, idle_claim_ms=10_000)
    collected: Collected = {}
    init_db_dir(tmp_path, 1)
    stop = threading.Event()
    threading.Timer(1.2, stop.set).start()
    run(RedisStreamSource(settings, stop=stop), collected, workers=1, recovery=tmp_path)
    epochs = collected["reader-00"]
    assert len(epochs) >= 3
    assert all(len(markers(epoch)) == 1 for epoch in epochs[1:])
    assert all(isinstance(item, Marker) for epoch in epochs for item in epoch)


class Breaking(RespConnection):
    """A real connection that fails for good after some sends and receives, as if the process had died there."""

    calls_left = 0

    @staticmethod
    def _count() -> None:
        Breaking.calls_left -= 1
        if Breaking.calls_left < 0:
            message = "the test ends this process here"
            raise AssertionError(message)

    def send(self, data: bytes) -> None:
        self._count()
        super().send(data)

    def receive(self, reply_bytes_max: int | None = None) -> Any:
        self._count()
        return super().receive(reply_bytes_max)


@pytest.mark.parametrize("calls", [1, 6, 13, 24, 51, 120, 301])
def test_a_death_between_any_two_calls_repeats_only_what_was_not_durable(
    redis_url: str, client: redis.Redis, calls: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    added = load(client, 3_000, seed=calls)
    settings = settings_of(redis_url, read_entries=20, flow={"item_events_max": 30, "item_ms_max": 1})
    collected: Collected = {}
    init_db_dir(tmp_path, 1)
    with monkeypatch.context() as patched:
        Breaking.calls_left = calls
        patched.setattr("sources.redis_streams.RespConnection", Breaking)
        patched.setattr("sources.redis_streams.WORK_S", 0.001)
        with pytest.raises(BaseException, match=r"."):  # the engine turns it into a panic
            run(RedisStreamSource(settings, stop=threading.Event()), collected, workers=1, recovery=tmp_path)
    run(RedisStreamSource(settings, stop=threading.Event(), drain=True), collected, workers=1, recovery=tmp_path)
    assert positions(flat(collected)) == added


def test_a_reader_without_streams_is_refused(redis_url: str) -> None:
    with pytest.raises(InvalidRequest, match="5 readers share 4 streams"):
        RedisStreamSource(settings_of(redis_url, flow={"readers": 5}), stop=threading.Event())


def test_a_read_only_source_tells_where_the_streams_began(redis_url: str, client: redis.Redis) -> None:
    added = load(client, 400)
    kept = [position for position in added if position[1] != 0]
    client.xtrim("usage:0", maxlen=10, approximate=False)
    kept = sorted(kept + [position for position in added if position[1] == 0][-10:])
    collected: Collected = {}
    source = RedisStreamSource(
        settings_of(redis_url), stop=threading.Event(), read_only=True, end_watermark_ms=NOW_MS + 10**9
    )
    run(source, collected, workers=1)
    assert source.entries_trimmed == len(added) - len(kept)
    assert source.first_entry_ms == kept[0][0]


def test_what_a_drain_holds_back_is_counted_and_said(redis_url: str, client: redis.Redis) -> None:
    ahead_ms = int(time.time() * 1000) + 3_600_000
    for number in range(3):
        client.xadd("usage:1", {"event": b"x"}, id=f"{ahead_ms}-{number}")
    client.xadd("usage:0", {"event": b"x"})
    source = RedisStreamSource(settings_of(redis_url), stop=threading.Event(), drain=True)
    with capture_logs() as logs:
        items = drain(source.build_part("read", "reader-00", None))
    assert [stream for _, stream, _ in positions(items)] == [0]
    assert source.entries_held == 3
    said = [entry for entry in logs if "ahead of the server's clock" in entry["event"]]
    assert [entry["stream"] for entry in said] == ["usage:1"]


def test_a_call_that_hung_is_not_followed_by_as_long_a_sleep() -> None:
    """The engine counts the time of the next call from the beginning of the last one."""
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never answers
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        stop = threading.Event()
        calls: list[tuple[float, float]] = []
        source = RedisStreamSource(settings_of(url, socket_timeout_s=1.5), stop=stop)
        reader = source.build_part("read", "reader-00", None)

        class Timed(FixedPartitionedSource[Any, Any]):
            def list_parts(self) -> list[str]:
                return ["reader-00"]

            def build_part(self, step_id: str, for_part: str, resume_state: Any) -> Any:
                return reader

        next_batch = reader.next_batch

        def timed() -> list[Any]:
            began_s = time.monotonic()
            if len(calls) == 2:
                stop.set()
            try:
                return next_batch()
            finally:
                calls.append((began_s, time.monotonic()))

        reader.next_batch = timed  # type: ignore[method-assign]
        flow = Dataflow("hung")
        op.output("out", op.input("read", flow, Timed()), TestingSink([]))
        cluster_main(flow, [], 0, epoch_interval=timedelta(seconds=1))
    hung = [index for index, (began_s, ended_s) in enumerate(calls) if ended_s - began_s > 1]
    assert hung
    pauses_s = [calls[index + 1][0] - calls[index][1] for index in hung]
    assert max(pauses_s) < 0.5
