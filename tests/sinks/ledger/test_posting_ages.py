"""The age of the oldest posting by state, from when it was made and not from its last try."""

from pathlib import Path

from prometheus_client import REGISTRY

from sinks.ledger import postings
from sinks.ledger.posting_ages import WATCHED, oldest_made
from tests.flows.poster_world import BY_CUSTOMER, START, World, many


def test_a_posting_tried_again_and_again_does_not_look_young(tmp_path: Path) -> None:
    world = World(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    world.configure(BY_CUSTOMER)
    world.book(*many(2))
    world.erp.down = True
    poster = world.poster()
    for _ in range(4):
        poster.pass_once()
        world.clock.sleep(600)
    assert set(world.states()) == {postings.PENDING}
    assert oldest_made(world.engine) == {postings.PENDING: START}
    name = "meterbridge_postings_oldest_timestamp_seconds"
    assert REGISTRY.get_sample_value(name, {"state": postings.PENDING}) == START.timestamp()
    world.erp.down = False
    world.clock.sleep(600)
    poster.pass_once()
    assert oldest_made(world.engine) == {}
    world.clock.sleep(60)
    poster.pass_once()
    assert {REGISTRY.get_sample_value(name, {"state": state}) for state in WATCHED} == {0}
    world.engine.dispose()
