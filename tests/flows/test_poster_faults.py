"""The poster's state machine when answers are lost, late, refused, or the process dies."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sinks.erp.port import Capabilities, Idempotency
from sinks.ledger import leases
from tests.flows.poster_world import BY_CUSTOMER, World, many, postings_of
from tests.sinks.erp.memory_erp import UNIQUE, Died, MemoryErp
from tests.sinks.ledger.samples import HOUR


@pytest.mark.parametrize("fault", ["lost", "dropped", "raises", "not_sent", "throttled", "job"])
def test_every_unclear_answer_ends_in_one_entry(any_world: World, fault: str) -> None:
    world = any_world
    world.configure(BY_CUSTOMER)
    world.book(*many(3))
    world.erp.script = [fault]
    summary = world.once()
    assert (summary.by_state, summary.succeeded) == ({"POSTED": 3}, True)
    assert [len(found) for found in world.erp.entries.values()] == [1, 1, 1]


@pytest.mark.parametrize("fault", ["died_before", "died_after"])
def test_dying_between_submitted_and_the_answer_is_looked_up(any_world: World, fault: str) -> None:
    world = any_world
    world.configure(BY_CUSTOMER)
    world.book(*many(3))
    world.erp.script = [fault]
    with pytest.raises(Died):
        world.once()
    assert world.states() == {"SUBMITTED": 3}
    world.clock.sleep(leases.TTL.total_seconds() + 1)
    assert world.once().by_state == {"POSTED": 3}
    assert world.erp.lookups == 1
    assert len(world.erp.batches) == (1 if fault == "died_after" else 2)
    assert [len(found) for found in world.erp.entries.values()] == [1, 1, 1]


def test_nothing_is_sent_again_before_the_settle_window_passed(world: World) -> None:
    capabilities = replace(UNIQUE, settle_window_s=900, settle_lookups=3)
    world.erp = MemoryErp(capabilities, script=["late"])
    world.configure()
    world.book(*many(1))
    poster = world.poster()
    poster.pass_once()
    until = world.clock.now() + timedelta(seconds=890)
    while world.clock.now() < until:
        poster.pass_once()
        world.clock.sleep(10)
    assert world.states() == {"UNKNOWN": 1}
    assert len(world.erp.batches) == 1
    world.erp.settle()
    for _ in range(40):
        world.clock.sleep(10)
        poster.pass_once()
    assert world.states() == {"POSTED": 1}
    assert len(world.erp.batches) == 1


def test_an_erp_that_can_only_be_searched_leaves_it_to_a_person(world: World) -> None:
    world.erp = MemoryErp(Capabilities(Idempotency.SEARCH_ONLY), script=["dropped"])
    world.configure()
    world.book(*many(1))
    summary = world.once()
    assert (summary.by_state, summary.succeeded) == ({"HELD": 1}, False)
    assert len(world.erp.batches) == 1
    assert [kind for kind, _ in world.exceptions()] == ["posting_held"]


FAULTS = ["ok"] * 7 + ["lost", "dropped", "not_sent", "throttled", "raises", "job", "died_before", "died_after"]


@settings(max_examples=8, deadline=None)
@given(
    script=st.lists(st.sampled_from(FAULTS), max_size=25),
    lookups=st.lists(st.sampled_from(["ok", "unreachable"]), max_size=8),
    atomic=st.booleans(),
    bad=st.sets(st.integers(0, 29), max_size=3),
)
def test_whatever_happens_every_posting_is_booked_once(
    tmp_path_factory: pytest.TempPathFactory, script: list[str], lookups: list[str], atomic: bool, bad: set[int]
) -> None:
    world = World(f"sqlite:///{tmp_path_factory.mktemp('poster') / 'ledger.sqlite'}")
    world.configure(BY_CUSTOMER)
    world.book(*many(15), complete_hour=HOUR + 1)
    world.book(*many(15, 15, booked_hour=HOUR + 1), complete_hour=HOUR + 2)
    world.erp = MemoryErp(replace(UNIQUE, atomic_batch=atomic), script=["not_sent", *script], lookup_script=lookups)
    world.poster(batch=30).pass_once()
    keys = [row.key for row in postings_of(world)]
    world.erp.bad_keys = {keys[index]: "closed_period" for index in bad}
    poster = world.poster(batch=4)
    for _ in range(2000):
        try:
            poster.pass_once()
        except Died:
            poster = world.poster(batch=4)
        world.clock.sleep(20)
        if set(world.states()) <= {"POSTED", "HELD"}:
            break
    assert world.states() == {"POSTED": 30 - len(bad)} | ({"HELD": len(bad)} if bad else {})
    assert {one: len(found) for one, found in world.erp.entries.items()} == dict.fromkeys(
        set(keys) - set(world.erp.bad_keys), 1
    )
    assert [row.posting.digest for row in postings_of(world) if row.state == "POSTED"] == [
        world.erp.entries[row.key][0][1] for row in postings_of(world) if row.state == "POSTED"
    ]
    world.engine.dispose()
