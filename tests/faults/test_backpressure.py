"""ClickHouse away under load: the flow's memory stays within its limits, and it catches up fast when it is back."""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import psutil
import pytest

from sources.producer import Producer
from sources.workload import Workload
from tests.faults.world import World

RATE_PER_S = 750
LOAD_S = 60
RSS_BYTES_MAX = 700 << 20
GROWTH_BYTES_MAX = 96 << 20
CATCH_UP_FACTOR = 3
QUEUE_BYTES = 4 << 20


def _load(world: World, ended: threading.Event) -> threading.Thread:
    """Send at a steady rate in the background."""
    now = datetime.now(UTC)
    workload = Workload(seed=9, events=RATE_PER_S * LOAD_S, start=now - timedelta(seconds=60), end=now)
    records = [(None, subject, payload) for _, subject, payload in workload]

    def send() -> None:
        began_s = time.monotonic()
        with Producer(world.settings.redis) as producer:
            for start in range(0, len(records), RATE_PER_S):
                producer.send(records[start : start + RATE_PER_S], batch=25)
                if ended.wait(max(0.0, began_s + start / RATE_PER_S + 1 - time.monotonic())):
                    return

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    return thread


def _counted(world: World) -> int:
    return sum(world.deployment.outcomes().values())


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_memory_is_bounded_while_clickhouse_is_away_and_the_backlog_is_caught_up(
    world: Callable[[int], World],
) -> None:
    made = world(41)
    made.extra = {
        "METERBRIDGE_CLICKHOUSE__QUEUE_BYTES_MAX": str(QUEUE_BYTES),
        "METERBRIDGE_FLOW__EPOCH_BYTES_MAX": str(QUEUE_BYTES),
        "METERBRIDGE_REDIS__READ_ENTRIES": "1000",
        "METERBRIDGE_FLOW__ITEM_EVENTS_MAX": "20000",
        "METERBRIDGE_FLOW__EPOCH_S": "1",
    }
    made.start(4_000)
    made.ensure("flow")
    until_s = time.monotonic() + 60
    while _counted(made) < 4_000:
        assert time.monotonic() < until_s, made.said("flow")[-2_000:]
        time.sleep(0.3)

    ended = threading.Event()
    made.kill("clickhouse")
    load = _load(made, ended)
    process = psutil.Process(made.pid("flow"))
    rss_bytes: list[int] = []
    try:
        while load.is_alive():
            rss_bytes.append(process.memory_info().rss)
            time.sleep(0.5)
    finally:
        ended.set()
    half = len(rss_bytes) // 2
    assert max(rss_bytes) < RSS_BYTES_MAX, f"{max(rss_bytes) >> 20} MiB"
    growth = max(rss_bytes[half:]) - max(rss_bytes[:half])
    assert growth < GROWTH_BYTES_MAX, f"{growth >> 20} MiB in the second half"
    assert made.running("flow"), made.said("flow")[-2_000:]

    made.start_servers()
    began_s, before = time.monotonic(), _counted(made)
    wanted = 4_000 + RATE_PER_S * LOAD_S
    while _counted(made) < wanted:
        assert time.monotonic() < began_s + 120, f"{_counted(made)} of {wanted}: {made.said('flow')[-2_000:]}"
        time.sleep(0.2)
    rate_per_s = (wanted - before) / (time.monotonic() - began_s)
    print(f"memory at most {max(rss_bytes) >> 20} MiB; caught up at {rate_per_s:,.0f} events/s, sent at {RATE_PER_S}/s")
    assert rate_per_s >= CATCH_UP_FACTOR * RATE_PER_S
    made.settle()
    assert made.check() == []
