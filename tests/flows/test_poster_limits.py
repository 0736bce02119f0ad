"""The poster's limits: lines per posting, calls per second, an ERP that is away for days."""

import threading
from dataclasses import replace
from decimal import Decimal
from itertools import pairwise

from config.entities import Entity
from core import metrics
from core.errors import ConfigError
from sinks.erp.port import Capabilities, Idempotency
from sinks.ledger import erp_status, held, leases, postings
from sinks.ledger.erp_codes import ErpNames
from sinks.ledger.reversal import reverse
from tests.flows.poster_world import BY_CUSTOMER, World, many, postings_of
from tests.sinks.erp.memory_erp import UNIQUE, MemoryErp
from tests.sinks.ledger import samples
from tests.sinks.ledger.samples import ACCOUNTS, entity

PER_CUSTOMER = [{"id": f"c{n}", "subjects": [f"c{n}"], "erp": {"customer": f"CUST-{n}"}} for n in range(12)]


def test_more_lines_than_the_cap_make_further_postings_of_whole_documents(any_world: World) -> None:
    world = any_world
    world.configure(entity(line_grain=["customer"], lines_max=8), customers=PER_CUSTOMER)
    world.book(*many(10))  # two lines each, none in common
    assert world.once().by_state == {"POSTED": 3}
    rows = postings_of(world)
    assert sorted(len(row.posting.lines) for row in rows) == [4, 8, 8]
    listed = sorted(one for row in rows for one in row.posting.document_keys)
    assert listed == sorted(one.key for one in many(10))
    assert all(sum(line.signed for line in row.posting.lines) == 0 for row in rows)
    assert {line.party for row in rows for line in row.posting.lines} == {f"CUST-{n}" for n in range(10)}


def test_the_adapters_own_cap_holds_too_and_a_document_above_it_is_held_alone(world: World) -> None:
    world.erp = MemoryErp(replace(UNIQUE, lines_max=2))
    world.configure(entity(line_grain=["charge"]))
    lines = [
        {"kind": "usage", "account_role": role, "side": side, "amount": "1.00", "charge": charge}
        for charge in ("a", "b")
        for role, side in (("unbilled_receivable", "debit"), ("usage_revenue", "credit"))
    ]
    world.book(*many(2), *many(1, 5, extra={"lines": lines}))
    summary = world.once()
    assert summary.by_state == {"POSTED": 1, "HELD": 1}
    (waits,) = [row for row in postings_of(world) if row.state == "HELD"]
    assert (waits.reason, waits.posting.document_keys) == ("too_many_lines", (many(1, 5)[0].key,))


def test_a_customer_without_an_erp_code_is_held_and_released_under_the_same_key(any_world: World) -> None:
    world = any_world
    world.configure(entity(line_grain=["customer"]), customers=PER_CUSTOMER[:2])
    world.book(*many(3))
    assert world.once().by_state == {"POSTED": 1, "HELD": 1}
    (waits,) = [row for row in postings_of(world) if row.state == "HELD"]
    assert (waits.reason, waits.detail) == ("missing_customer", "no erp.customer for c2 in the configuration")
    world.configure(entity(line_grain=["customer"]), customers=PER_CUSTOMER[:3], known_from_ms=10**15)
    assert world.once().by_state == {"POSTED": 2}
    assert world.erp.booked[waits.key].lines[0].party == "CUST-2"
    assert world.exceptions() == []


def test_calls_keep_to_the_rate_also_while_a_batch_is_bisected(world: World) -> None:
    times: list[float] = []
    world.erp = MemoryErp(replace(UNIQUE, atomic_batch=True, rate_per_s=0.5, burst=1), script=["not_sent"])
    world.configure(BY_CUSTOMER)
    world.book(*many(8))
    poster = world.poster()
    poster.pass_once()
    world.erp.bad_keys = {postings_of(world)[3].key: "invalid"}
    world.erp.before = lambda: times.append(world.clock.monotonic_s())
    for _ in range(60):
        poster.pass_once()
        world.clock.sleep(1)
    assert world.states() == {"POSTED": 7, "HELD": 1}
    gaps = [after - before for before, after in pairwise(times)]
    assert len(gaps) == 6  # 8, 4, 2, 1, 1, 2, 4
    assert min(gaps) >= 2


def test_a_stop_while_bisecting_sends_the_rest_back_unsent(world: World) -> None:
    world.erp = MemoryErp(replace(UNIQUE, atomic_batch=True, rate_per_s=0.1, burst=1))
    world.configure(BY_CUSTOMER)
    world.book(*many(4))
    stop = threading.Event()
    poster = world.poster(stop=stop)
    world.erp.script = ["not_sent"]
    poster.pass_once()
    world.erp.bad_keys = {postings_of(world)[0].key: "invalid"}
    world.erp.before = stop.set
    world.clock.sleep(30)
    poster.pass_once()
    assert world.states() == {"PENDING": 4}
    assert len(world.erp.batches) == 2
    world.erp.before = lambda: None
    world.clock.sleep(leases.TTL.total_seconds() + 1)
    assert world.poster().run_once().by_state == {"POSTED": 3, "HELD": 1}


def test_a_part_of_a_rejected_batch_is_not_sent_while_the_erp_asks_to_wait(world: World) -> None:
    world.erp = MemoryErp(replace(UNIQUE, atomic_batch=True), retry_after_s=120)
    world.configure(BY_CUSTOMER)
    world.book(*many(8))
    poster = world.poster()
    world.erp.script = ["not_sent"]
    poster.pass_once()
    world.erp.bad_keys = {postings_of(world)[7].key: "invalid"}
    world.erp.script = ["ok", "throttled"]
    world.clock.sleep(5)
    poster.pass_once()
    assert [len(batch) for batch in world.erp.batches] == [8, 8, 4]  # and not the other half
    assert world.states() == {"PENDING": 8}
    world.clock.sleep(60)
    poster.pass_once()
    assert len(world.erp.batches) == 3
    world.clock.sleep(61)
    assert poster.run_once().by_state == {"POSTED": 7, "HELD": 1}


def test_lookups_ask_about_no_more_keys_at_once_than_are_sent_at_once(world: World) -> None:
    world.erp = MemoryErp(replace(UNIQUE, postings_max=3))
    world.configure(BY_CUSTOMER)
    world.book(*many(7))
    world.erp.script = ["lost"] * 3
    poster = world.poster()
    poster.pass_once()
    asked: list[int] = []
    answer = world.erp.lookup
    world.erp.lookup = lambda keys: asked.append(len(keys)) or answer(keys)  # type: ignore[func-returns-value,method-assign]
    assert poster.run_once().by_state == {"POSTED": 7}
    assert max(asked) == 3


def test_a_reversal_is_sent_at_the_slowest_rate_too(world: World) -> None:
    world.erp = MemoryErp(replace(UNIQUE, rate_per_s=0.05, burst=1))
    world.configure()
    world.book(*many(1))
    poster = world.poster()
    poster.pass_once()
    (original,) = postings_of(world)
    entities = {"US01": Entity.model_validate(entity())}
    now = world.clock.now()
    made = reverse(world.engine, entities, ErpNames(ACCOUNTS), original.key, actor="ann", reason="r", now=now)
    for _ in range(100):
        poster.pass_once()
        world.clock.sleep(1)
    assert world.states() == {"POSTED": 1, "REVERSED": 1}
    assert world.erp.entries.keys() == {original.key, made.key}


def test_a_wrong_company_of_one_entity_holds_up_no_other(world: World) -> None:
    world.configure(entity("DE01"), entity("US01"))
    world.book(*many(1), *many(1, 10, entity="DE01"))
    poster = world.poster()
    message = "erp.company 'DE01' names 0 companies"

    def refuse() -> None:
        raise ConfigError([message])

    wrong = MemoryErp(before_preflight=refuse)
    poster._adapters = lambda erp: wrong if erp.company == "DE01" else world.erp
    summary = poster.run_once()
    assert summary.by_state == {"POSTED": 1, "PENDING": 1}
    assert [(one.entity, one.cause) for one in erp_status.waiting(world.engine)] == [("DE01", message)]
    wrong.before_preflight = lambda: None
    world.clock.sleep(300)
    assert poster.run_once().by_state == {"POSTED": 2}
    assert erp_status.waiting(world.engine) == []


def test_an_erp_that_is_down_for_days_is_waited_for_and_everybody_is_told(any_world: World) -> None:
    world = any_world
    world.configure(BY_CUSTOMER)
    world.book(*many(3))
    world.erp.down = True
    poster = world.poster()
    began = world.clock.now()
    for _ in range(3 * 24 * 12):  # three days, a look every five minutes
        poster.pass_once()
        world.clock.sleep(300)
    assert world.states() == {"PENDING": 3}
    (told,) = erp_status.waiting(world.engine)
    assert (told.entity, told.cause) == ("US01", "the ERP is down")
    assert abs((told.since - began).total_seconds()) < 600
    gauge = metrics.ERP_WAITING_SINCE.labels(entity="US01")
    assert gauge._value.get() == told.since.timestamp()
    assert poster.summary().entities_waiting == ("US01",)
    world.erp.down = False
    world.clock.sleep(300)
    poster.pass_once()
    poster.pass_once()
    assert world.states() == {"POSTED": 3}
    assert erp_status.waiting(world.engine) == []
    assert gauge._value.get() == 0


def test_held_by_preflight_is_looked_at_again_and_goes_on_with_the_same_key(any_world: World) -> None:
    world = any_world
    world.configure(BY_CUSTOMER)
    world.book(*many(2))
    poster = world.poster()
    world.erp.script = ["not_sent"]
    poster.pass_once()
    bad = postings_of(world)[0].key
    world.erp.issues = {bad: "unknown_customer"}
    world.clock.sleep(30)
    poster.pass_once()
    assert world.states() == {"POSTED": 1, "HELD": 1}
    assert [kind for kind, _ in world.exceptions()] == ["posting_held"]
    world.clock.sleep(3600)
    poster.pass_once()
    assert world.states() == {"POSTED": 1, "HELD": 1}
    world.erp.issues = {}
    world.clock.sleep(3600)
    poster.pass_once()
    assert world.states() == {"POSTED": 2}
    assert bad in world.erp.entries
    assert world.exceptions() == []


def test_a_rejection_is_not_sent_again_by_itself(world: World) -> None:
    world.configure()
    world.book(*many(1))
    poster = world.poster()
    world.erp.script = ["not_sent"]
    poster.pass_once()
    key = postings_of(world)[0].key
    world.erp.bad_keys = {key: "unknown_customer"}
    for _ in range(50):
        world.clock.sleep(3600)
        poster.pass_once()
    assert world.states() == {"HELD": 1}
    assert len(world.erp.batches) == 2
    row = postings.get(world.engine, key)
    assert row is not None
    assert row.due_at_ms == postings.NEVER_MS


def test_amounts_are_not_lost_when_one_search_only_erp_is_slow(world: World) -> None:
    world.erp = MemoryErp(Capabilities(Idempotency.SEARCH_ONLY, rate_per_s=1.0, burst=2))
    world.configure(BY_CUSTOMER)
    world.book(*many(5))
    assert world.once(batch=2).by_state == {"POSTED": 5}
    assert sum(line.amount for one in world.erp.booked.values() for line in one.lines) == Decimal("12.34") * 10


def test_a_person_who_releases_while_the_poster_asks_is_no_trouble(any_world: World) -> None:
    world = any_world
    world.configure(BY_CUSTOMER)
    world.book(*many(3))
    poster = world.poster()
    world.erp.script = ["not_sent"]
    poster.pass_once()
    first, second, _ = (row.key for row in postings_of(world))
    world.erp.issues = {first: "unknown_customer", second: "unknown_customer"}
    world.clock.sleep(30)
    poster.pass_once()
    assert world.states() == {"HELD": 2, "POSTED": 1}
    world.erp.issues = {}

    def released() -> None:
        world.erp.before_preflight = lambda: None
        held.release(world.engine, first, actor="ann", reason="I know better", now=world.clock.now())

    world.erp.before_preflight = released
    world.clock.sleep(3600)
    poster.pass_once()
    assert world.states() == {"POSTED": 3}
    assert [len(entries) for entries in world.erp.entries.values()] == [1, 1, 1]


def test_many_held_postings_hide_none_behind_them(world: World) -> None:
    world.configure(BY_CUSTOMER)
    world.book(*many(600, revenue_role="shortfall_revenue"))
    assert world.once().by_state == {"HELD": 600}
    fixed = entity(grain="customer", accounts=samples.ACCOUNTS | {"shortfall_revenue": "4003"})
    world.configure(fixed, known_from_ms=10**15)
    assert world.once().by_state == {"POSTED": 600}


def test_preflight_takes_its_share_of_the_rate_and_is_not_repeated_for_what_waits(world: World) -> None:
    slow = replace(UNIQUE, rate_per_s=0.5, burst=1, postings_max=2, preflight_asks=True)
    calls: list[tuple[str, float]] = []
    world.erp = MemoryErp(slow)
    world.erp.before_preflight = lambda: calls.append(("preflight", world.clock.monotonic_s()))
    world.erp.before = lambda: calls.append(("submit", world.clock.monotonic_s()))
    world.configure(BY_CUSTOMER)
    world.book(*many(6))
    poster = world.poster()
    while world.states() != {"POSTED": 6}:
        poster.pass_once()
        world.clock.sleep(0.25)
        assert world.clock.monotonic_s() < 1_000
    assert [name for name, _ in calls] == ["preflight", "submit"] * 3
    assert all(later - earlier >= 2 for (_, earlier), (_, later) in pairwise(calls))


TWO_STEPS = Capabilities(Idempotency.SEARCH_ONLY, two_phase=True, settle_window_s=60, postings_max=50)


def test_what_lost_requests_left_is_swept_at_the_start_and_when_they_have_settled(world: World) -> None:
    world.erp = MemoryErp(TWO_STEPS)
    world.configure(BY_CUSTOMER)
    world.book(*many(2))
    poster = world.poster()
    poster.pass_once()
    assert (world.states(), world.erp.sweeps) == ({"POSTED": 2}, 1)
    poster.pass_once()
    assert world.erp.sweeps == 1
    world.erp.script = ["lost"]
    world.book(*many(1, 5, booked_hour=samples.HOUR + 1), complete_hour=samples.HOUR + 2)
    poster.pass_once()
    assert world.states()["UNKNOWN"] == 1
    poster.pass_once()
    assert (world.states(), world.erp.sweeps) == ({"POSTED": 3}, 1)
    world.clock.sleep(61)
    world.erp.down = True
    poster.pass_once()  # nothing is lost by an ERP that is away: it is swept when it is back
    assert world.erp.sweeps == 1
    world.erp.down = False
    world.clock.sleep(400)
    poster.pass_once()
    poster.pass_once()
    assert world.erp.sweeps == 2


def test_an_erp_that_books_in_one_step_is_never_swept(world: World) -> None:
    world.configure(BY_CUSTOMER)
    world.book(*many(2))
    world.erp.script = ["lost"]
    world.once()
    world.clock.sleep(400)
    world.once()
    assert (world.states(), world.erp.sweeps) == ({"POSTED": 2}, 0)
