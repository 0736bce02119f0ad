"""Servers that are away for long, under load: `OUTAGE_SECONDS=600` for ten minutes; a minute if nothing is said.

Input goes on all the time. While Redis is away producers keep what they have, and send it again.
"""

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from tests.faults.conftest import free_port
from tests.faults.world import PART_EVENTS, World

OUTAGE_S = float(os.environ.get("OUTAGE_SECONDS", "60"))
EVENTS_PER_S = 50
TAIL_S = 20
"""Input goes on for so long behind the outage."""
LAG_S_MAX = 60.0
RSS_BYTES_MAX = 900 << 20
Make = Callable[[int], World]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(int(600 + 3 * OUTAGE_S))]


def _health(port: int, what: str) -> tuple[int, Any]:
    """Return status and answer of a health endpoint."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/{what}", timeout=10) as reply:
            return reply.status, json.loads(reply.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


@pytest.mark.parametrize(("seed", "server"), [(31, "valkey"), (36, "clickhouse")])
def test_a_server_that_is_away_under_load_is_waited_for_and_health_says_so(world: Make, seed: int, server: str) -> None:
    made = world(seed)
    port = free_port()
    made.extra = {"METERBRIDGE_METRICS__FLOW_PORT": str(port)}
    made.start(4_000)
    made.ensure("flow")
    made.wait_until_started("flow")
    live = made.send_live(int((OUTAGE_S + TAIL_S) * EVENTS_PER_S), parts_per_s=EVENTS_PER_S / PART_EVENTS)
    time.sleep(2.0)
    made.kill(server)
    began_s = time.monotonic()
    flow = psutil.Process(made.pid("flow"))
    ready_until_s, rss_bytes = 0.0, 0
    while (away_s := time.monotonic() - began_s) < OUTAGE_S:
        assert made.running("flow"), made.said("flow")[-2_000:]
        status, said = _health(port, "live")
        assert status == 200, f"it waits, and is alive: {said}"
        status, said = _health(port, "ready")
        if status == 200:
            ready_until_s = away_s
        rss_bytes = max(rss_bytes, flow.memory_info().rss)
        time.sleep(1.0)
    if OUTAGE_S > LAG_S_MAX + 30:
        assert ready_until_s < LAG_S_MAX + 30, "nothing fresh for over a minute: it is not ready"
        assert server in json.dumps(said).replace("redis", "valkey"), said
    assert rss_bytes < RSS_BYTES_MAX, f"{rss_bytes >> 20} MiB"
    made.start_servers()
    live.join(timeout=OUTAGE_S + 300)
    assert not live.is_alive()
    assert made.running("flow"), made.said("flow")[-2_000:]
    began_s = time.monotonic()
    while _health(port, "ready")[0] != 200:
        assert time.monotonic() - began_s < 120, made.said("flow")[-2_000:]
        time.sleep(0.5)
    print(
        f"{server} away for {OUTAGE_S:.0f} s: ready for the first {ready_until_s:.0f} s of it, memory at most"
        f" {rss_bytes >> 20} MiB; ready again {time.monotonic() - began_s:.0f} s after input ended"
    )
    made.settle()
    assert made.check() == []
