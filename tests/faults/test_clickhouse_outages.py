"""ClickHouse that is away, slow, or refuses: the flow waits and catches up; nothing is lost and nothing doubled."""

import time
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest

from tests.faults.world import World
from tests.sinks.erp.fault_proxy import FaultName, FaultProxy, Reply

HISTORY = 4_000
LIVE = 1_500
TROUBLE_S = 8.0
REFUSALS = {
    "TOO_MANY_PARTS": (252, "Too many parts (3000). Merges are processing significantly slower than inserts."),
    "MEMORY_LIMIT_EXCEEDED": (241, "Memory limit (total) exceeded: would use 5.00 GiB"),
    "TABLE_IS_READ_ONLY": (242, "Table is in readonly mode (replica path: /tables/1)"),
}


def _is_insert(_method: str, path: str, body: bytes) -> bool:
    return "INSERT" in path or body[:300].lstrip().startswith(b"INSERT")


@pytest.fixture
def through_proxy(world: Callable[[int], World]) -> Iterator[Callable[[int], tuple[World, FaultProxy]]]:
    """Return a function that makes a world whose flow and poster reach ClickHouse only through a proxy."""
    proxies: list[FaultProxy] = []

    def make(seed: int) -> tuple[World, FaultProxy]:
        made = world(seed)
        port = urlsplit(made.settings.clickhouse.url).port
        assert port is not None
        proxy = FaultProxy(port, _is_insert)
        proxies.append(proxy)
        made.extra = {"METERBRIDGE_CLICKHOUSE__URL": proxy.url, "METERBRIDGE_CLICKHOUSE__REQUEST_TIMEOUT_S": "3"}
        return made, proxy

    yield make
    for proxy in proxies:
        proxy.close()


def _through(world: World, trouble: Callable[[], None]) -> None:
    """Load the flow, let the trouble happen, and require that everything is as if it had not."""
    world.start(HISTORY)
    for name in ("flow", "poster"):
        world.ensure(name)
    world.wait_until_started("flow")
    live = world.send_live(LIVE)
    time.sleep(0.5)
    trouble()
    assert world.running("flow"), world.said("flow")[-2_000:]
    live.join(timeout=120)
    world.settle()
    assert world.check() == []


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_server_that_is_killed_and_comes_back_is_waited_for(world: Callable[[int], World]) -> None:
    made = world(11)

    def down() -> None:
        made.kill("clickhouse")
        time.sleep(TROUBLE_S)
        assert made.running("flow")
        made.start_servers()
        time.sleep(2.0)

    _through(made, down)
    assert "repeating until it does" in made.said("flow")


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", REFUSALS)
def test_a_server_that_refuses_for_a_while_is_asked_again(
    through_proxy: Callable[[int], tuple[World, FaultProxy]], name: str
) -> None:
    code, text = REFUSALS[name]
    made, proxy = through_proxy(code)
    proxy.reply = Reply(
        500,
        f"Code: {code}. DB::Exception: {text}. ({name}) (version 25.3)\n".encode(),
        (("X-ClickHouse-Exception-Code", str(code)),),
    )

    def refuse() -> None:
        proxy.mix(1, 1.0, ("answer",))
        time.sleep(TROUBLE_S)
        proxy.heal()
        time.sleep(2.0)

    _through(made, refuse)
    assert sum(seen.fault == "answer" for seen in proxy.seen) > 3, "nothing was refused: the test is void"
    assert f"code {code}" in made.said("flow")


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("seed", "faults"),
    [
        (21, ("lose_answer", "pass")),
        (22, ("delay_answer", "lose_answer", "truncate", "duplicate", "lose_request", "pass")),
    ],
    ids=["applied-without-an-answer", "slow-cut-doubled-and-lost"],
)
def test_inserts_whose_outcome_is_unknown_count_once(
    through_proxy: Callable[[int], tuple[World, FaultProxy]], seed: int, faults: tuple[FaultName, ...]
) -> None:
    made, proxy = through_proxy(seed)
    proxy.delay_s = 4.0  # longer than the flow waits for an answer

    def mixed() -> None:
        proxy.mix(seed, 1.0, faults)
        time.sleep(TROUBLE_S * 2)
        proxy.heal()
        time.sleep(2.0)

    _through(made, mixed)
    assert sum(seen.fault not in ("pass", "lose_request") for seen in proxy.seen) > 5, (
        "too few faults: the test is void"
    )
