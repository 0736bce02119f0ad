"""Failover between two real servers: a replica that lacks the tail is promoted, at the same address."""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis

from core.errors import FatalError
from sources.producer import Producer, Record
from stack import valkey
from tests.faults.clocks import SettableClock, needs_compiler
from tests.faults.conftest import free_port
from tests.faults.link import Link
from tests.faults.streams import entries_of, exceptions_of, live_records, wait_until_read
from tests.faults.world import World
from tests.flows.harness import differences
from tests.flows.oracle import Entry, Oracle

DETECTED_S_MAX = 60.0
SYNCED_S_MAX = 30.0


@dataclass
class Pair:
    """A primary (the world's own server), its replica, the link between them, and the address clients use."""

    primary_port: int
    replica_port: int
    between: Link
    address: Link

    def wait_until_synced(self) -> None:
        """Wait until the replica has all that the primary has."""
        with _client(self.primary_port) as primary, _client(self.replica_port) as replica:
            until_s = time.monotonic() + SYNCED_S_MAX
            while True:
                link, offset = replica.info("replication"), primary.info("replication")["master_repl_offset"]
                if link.get("master_link_status") == "up" and link["slave_repl_offset"] >= offset:
                    return
                assert time.monotonic() < until_s, link
                time.sleep(0.05)

    def promote(self) -> None:
        """Make the replica a server of its own."""
        with _client(self.replica_port) as replica:
            replica.execute_command("REPLICAOF", "NO", "ONE")

    def move_address(self) -> None:
        """Lead clients to the replica."""
        self.address.to(self.replica_port)


def _client(port: int) -> Any:
    return redis.Redis(host="127.0.0.1", port=port)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Callable[..., Pair]]:
    """Return a function that gives a world a replica, and itself the address that can move."""
    with ExitStack() as stack:

        def make(world: World, environment: dict[str, str] | None = None) -> Pair:
            port = urlsplit(world.settings.redis.url).port
            assert port is not None
            own = free_port()
            log = stack.enter_context((tmp_path / "replica.log").open("ab"))
            command = valkey.command(tmp_path / "replica", "127.0.0.1", own)
            process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
            stack.callback(process.wait)
            stack.callback(process.kill)
            between, address = Link(port), Link(port)
            stack.callback(between.close)
            stack.callback(address.close)
            made = Pair(port, own, between, address)
            with _client(own) as replica:
                until_s = time.monotonic() + SYNCED_S_MAX
                while True:
                    try:
                        replica.execute_command("REPLICAOF", "127.0.0.1", between.port)
                        break
                    except redis.ConnectionError:
                        assert time.monotonic() < until_s
                        time.sleep(0.05)
            made.wait_until_synced()
            world.reach_redis_at(address.port)
            return made

        yield make


def _send(world: World, records: list[Record], port: int | None = None) -> None:
    settings = world.settings.redis
    if port is not None:
        settings = settings.model_copy(update={"url": f"redis://127.0.0.1:{port}/0"})
    with Producer(settings) as producer:
        producer.send(records)


def _run(world: World, *options: str) -> tuple[int, str]:
    process = world.deployment.start("run", "--drain", *options)
    _, errors = process.communicate(timeout=120)
    return process.returncode, errors


def _accept_and_compare(world: World, before: list[Entry], again: list[Record], hidden: int = 0) -> None:
    """Require a refusal, send again what may be lost, accept, and compare with an oracle of all that was ever read.

    `hidden`: entries whose ids are below what was read, though they came later; nobody reads them.
    """
    code, errors = _run(world)
    assert code == FatalError.exit_code, errors
    assert "went backward" in errors
    assert "run --accept-gap" in errors

    _send(world, again)
    code, errors = _run(world, "--accept-gap")
    assert code == 0, errors
    assert {kind for kind, _ in exceptions_of(world)} >= {"stream_loss"}
    code, errors = _run(world)
    assert code == 0, f"what was accepted is refused again: {errors}"

    known = {(entry.stream, entry.ms, entry.seq) for entry in before}
    read_to = {entry.stream: (entry.ms, entry.seq) for entry in sorted(before, key=lambda entry: (entry.ms, entry.seq))}
    new = [entry for entry in entries_of(world) if (entry.stream, entry.ms, entry.seq) not in known]
    later = [entry for entry in new if (entry.ms, entry.seq) > read_to[entry.stream]]
    assert len(new) - len(later) == hidden
    assert len(later) >= len(again)
    expected = Oracle(world.deployment.configuration).run(before + later)
    assert world.deployment.outcomes() == dict(expected.outcomes)
    assert differences(world.deployment.facts(), expected) == []


@pytest.mark.slow
@pytest.mark.timeout(500)
@pytest.mark.parametrize("fresh", [0, 900], ids=["silent", "with-more-new-events-than-were-lost"])
def test_a_failover_under_a_running_flow_stops_it_and_totals_are_exact_once_accepted(
    world: Callable[[int], World], pair: Callable[..., Pair], fresh: int
) -> None:
    """Given a tail that the flow read and the replica never got; then the flow sees it at the same address and ends.

    Also where producers have sent more to the promoted server by then than it lacks.
    """
    made = world(34)
    made.start(2_000)
    servers = pair(made)
    made.ensure("flow")
    _send(made, live_records(300, seed=7))
    wait_until_read(made)
    servers.wait_until_synced()
    servers.between.cut()
    lost = live_records(600, seed=8)
    _send(made, lost)
    wait_until_read(made)
    before = entries_of(made)

    made.kill("valkey")
    servers.promote()
    if fresh:
        _send(made, live_records(fresh, seed=9), servers.replica_port)
    servers.move_address()

    began_s = time.monotonic()
    assert made.wait("flow", DETECTED_S_MAX) == FatalError.exit_code, made.said("flow")[-2_000:]
    print(f"detected after {time.monotonic() - began_s:.1f} s")
    assert "went backward" in made.said("flow")
    assert "run --accept-gap" in made.said("flow")
    _accept_and_compare(made, before, lost)


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_a_failover_while_the_flow_is_stopped_loses_nothing_that_is_sent_again(
    world: Callable[[int], World], pair: Callable[..., Pair]
) -> None:
    """Given a tail of which the flow read one half and nobody the other; then all of it is there once sent again."""
    made = world(35)
    made.start(2_000)
    servers = pair(made)
    servers.between.cut()
    tail = live_records(800, seed=10)
    _send(made, tail[:400])
    code, errors = _run(made)
    assert code == 0, errors
    before = entries_of(made)
    _send(made, tail[400:])

    made.kill("valkey")
    servers.promote()
    servers.move_address()
    _accept_and_compare(made, before, tail)
    outcomes = made.deployment.outcomes()
    assert outcomes["duplicate", ""] >= 400, "the half that was read comes again, and is known"


@pytest.mark.slow
@pytest.mark.timeout(500)
@needs_compiler
def test_a_promoted_server_whose_clock_is_behind_hides_entries_that_are_there_once_sent_again(
    world: Callable[[int], World], pair: Callable[..., Pair], tmp_path: Path
) -> None:
    """Given a replica ten minutes behind; then what it takes first gets ids below our position, and is never read."""
    made = world(37)
    made.start(2_000)
    clock = SettableClock(tmp_path / "clock", -600)
    with clock.applied():
        servers = pair(made)
    made.ensure("flow")
    _send(made, live_records(300, seed=40))
    wait_until_read(made)
    servers.wait_until_synced()
    servers.between.cut()
    time.sleep(1.0)
    lost = live_records(400, seed=41)
    _send(made, lost)
    wait_until_read(made)
    before = entries_of(made)

    made.kill("valkey")
    servers.promote()
    fresh = live_records(200, seed=42)
    _send(made, fresh, servers.replica_port)
    servers.move_address()
    assert made.wait("flow", DETECTED_S_MAX) == FatalError.exit_code, made.said("flow")[-2_000:]
    assert "everything since shortly before" in made.said("flow")
    clock.set(0)
    _accept_and_compare(made, before, lost + fresh, hidden=len(fresh))
