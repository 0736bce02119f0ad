"""The poster: grouping, holding, pacing, rivals, and what it tells ClickHouse."""

import threading
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import select

from core.errors import InvariantViolation
from sinks.clickhouse.posting_states import PostingState
from sinks.erp.journal import JournalAdapter
from sinks.ledger import documents, leases, postings, tables
from sinks.ledger.act_documents import ActDocument
from sinks.ledger.database import read, write
from sinks.ledger.times import to_ms
from tests.flows.poster_world import BY_CUSTOMER, World, many, postings_of
from tests.sinks.erp.memory_erp import UNIQUE, MemoryErp
from tests.sinks.ledger import samples
from tests.sinks.ledger.samples import HOUR, SampleDocument, entity, key


def test_an_hour_is_one_posting_once_it_is_complete(any_world: World, tmp_path: Path) -> None:
    world = any_world
    world.configure()
    world.book(*many(3), SampleDocument(key(90), "-0.05", customer="x"), complete_hour=HOUR)
    journal = JournalAdapter(tmp_path / "books")
    assert world.once(erp=journal).by_state == {}
    world.book(SampleDocument(key(91), currency="EUR"), complete_hour=HOUR + 1)
    summary = world.once(erp=journal)
    assert (summary.by_state, summary.posted, summary.created, summary.succeeded) == ({"POSTED": 2}, 2, 2, True)
    assert documents.count_by_state(world.engine) == {"POSTED": 5}
    with read(world.engine) as connection:
        entries = connection.execute(select(tables.erp_entries)).all()
        attempts = connection.execute(select(tables.attempts)).all()
    assert sorted(entry.number for entry in entries) == ["J-00000001", "J-00000002"]
    assert [attempt.outcome for attempt in attempts] == ["posted", "posted"]
    (usd,) = [row for row in postings_of(world) if row.posting.currency == "USD"]
    assert usd.posting.document_keys == tuple(sorted([*(key(n) for n in range(3)), key(90)]))
    assert [(line.account_role, line.side, line.amount) for line in usd.posting.lines] == [
        ("unbilled_receivable", "debit", Decimal("37.02")),
        ("usage_revenue", "debit", Decimal("0.05")),
        ("unbilled_receivable", "credit", Decimal("0.05")),
        ("usage_revenue", "credit", Decimal("37.02")),
    ]
    assert world.once(erp=journal).posted == 0


def test_a_document_for_a_posted_hour_is_refused(world: World) -> None:
    world.configure()
    world.book(*many(2))
    world.once()
    with write(world.engine) as connection:
        refused = documents.stage(connection, [SampleDocument(key(50))], 9)
    assert [one.kind for one in refused] == ["hour_already_posted"]
    with write(world.engine) as connection:  # past the outbox, as a defect would
        row = connection.execute(select(tables.documents).where(tables.documents.c.key == key(0))).one()
        values = dict(row._mapping) | {"key": key(51), "state": "PENDING", "posting_key": None}
        connection.execute(tables.documents.insert().values(values))
    with pytest.raises(InvariantViolation, match="sealed hour never changes"):
        world.once()
    assert [kind for kind, _ in world.exceptions()] == ["hour_already_posted"]


def test_conflict_and_duplicate_are_alarms(world: World) -> None:
    world.configure(BY_CUSTOMER)
    world.book(*many(3))
    world.erp.script = ["dropped"]
    poster = world.poster()
    poster.pass_once()
    one, two, three = (row.key for row in postings_of(world))
    world.erp.entries = {one: [("E-1", "other")], two: [("E-2", ""), ("E-3", "")], three: [("E-4", "")]}
    poster.run_once()
    assert world.states() == {"CONFLICT": 1, "DUPLICATED": 1, "POSTED": 1}
    assert sorted(kind for kind, _ in world.exceptions()) == ["posting_conflict", "posting_duplicated"]
    assert len(world.erp.batches) == 1


def test_a_rejected_atomic_batch_is_cut_until_only_the_bad_one_is_held(world: World) -> None:
    world.erp = MemoryErp(replace(UNIQUE, atomic_batch=True))
    world.configure(BY_CUSTOMER)
    world.book(*many(16))
    poster = world.poster()
    world.erp.script = ["not_sent"]
    poster.pass_once()
    bad = postings_of(world)[5].key
    world.erp.bad_keys = {bad: "closed_period"}
    summary = poster.run_once()
    assert summary.by_state == {"POSTED": 15, "HELD": 1}
    held = postings.get(world.engine, bad)
    assert held is not None
    assert (held.state, held.reason) == ("HELD", "closed_period")
    assert len(world.erp.batches) - 1 == 1 + 2 * 4
    assert summary.undelivered_for_error == 1


def test_a_missing_account_holds_only_its_document_and_is_released_under_the_same_key(world: World) -> None:
    world.configure()
    odd = SampleDocument(key(9), revenue_role="shortfall_revenue", customer="odd")
    world.book(*many(3), odd)
    summary = world.once()
    assert summary.by_state == {"POSTED": 1, "HELD": 1}
    (held,) = [row for row in postings_of(world) if row.state == "HELD"]
    assert (held.reason, held.posting.document_keys) == ("missing_account", (key(9),))
    assert world.exceptions() == [("posting_held", "missing_account: no account for shortfall_revenue in entity US01")]
    fixed = entity(accounts=samples.ACCOUNTS | {"shortfall_revenue": "4003"})
    world.configure(fixed, known_from_ms=10**15)
    summary = world.once()
    assert (summary.by_state, summary.succeeded) == ({"POSTED": 2}, True)
    assert held.key in world.erp.entries
    assert world.exceptions() == []


def test_a_throttled_erp_is_left_alone_as_long_as_it_asks(world: World) -> None:
    world.configure()
    world.book(*many(1))
    world.erp.script, world.erp.retry_after_s = ["throttled"], 45.0
    poster = world.poster()
    poster.pass_once()
    before = world.clock.monotonic_s()
    while world.states() != {"POSTED": 1}:
        world.clock.sleep(1)
        poster.pass_once()
    assert 44 <= world.clock.monotonic_s() - before <= 47


def test_the_breaker_opens_and_tries_with_one(world: World) -> None:
    world.configure(BY_CUSTOMER)
    world.book(*many(5))
    world.erp.script = ["not_sent"] * 8
    poster = world.poster()
    for _ in range(400):
        poster.pass_once()
        world.clock.sleep(2)
    assert world.states() == {"POSTED": 5}
    sizes = [len(batch) for batch in world.erp.batches]
    assert sizes[3:9] == [1] * 6
    assert len(sizes) < 20


def test_an_unreachable_lookup_decides_nothing(world: World) -> None:
    world.configure()
    world.book(*many(1))
    world.erp.script, world.erp.lookup_script = ["lost"], ["unreachable", "unreachable"]
    summary = world.once()
    assert (summary.by_state, world.erp.lookups) == ({"POSTED": 1}, 3)


def test_another_posters_lease_is_respected_and_lost_leases_are_fenced(world: World) -> None:
    world.configure(BY_CUSTOMER)
    world.book(*many(2))
    assert leases.acquire(world.engine, "US01", "other", world.clock.now()) is not None
    summary = world.once()
    assert (summary.entities_elsewhere, summary.succeeded, world.states()) == (("US01",), False, {})
    world.clock.sleep(leases.TTL.total_seconds() + 1)

    def slow() -> None:
        """The call takes longer than the lease, and another poster takes over and finishes the work."""
        world.erp.before = lambda: None
        world.clock.sleep(leases.TTL.total_seconds() + 1)
        assert world.poster().run_once().by_state == {"POSTED": 2}

    world.erp.before = slow
    first = world.poster()
    first.pass_once()
    assert world.states() == {"POSTED": 2}
    assert [len(found) for found in world.erp.entries.values()] == [1, 1]
    assert len(world.erp.batches) == 2


def test_two_posters_at_once_book_each_posting_once(any_world: World, tmp_path: Path) -> None:
    world = any_world
    names = ["US01", "DE01", "FR01"]
    world.configure(*(entity(name, grain="customer") for name in names))
    world.book(*(SampleDocument(key(n), customer=f"c{n}", entity=names[n % 3]) for n in range(30)))
    errors: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(8):
                world.poster(erp=JournalAdapter(tmp_path / "books"), batch=7).run_once()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert world.states() == {"POSTED": 30}
    rows = postings_of(world)
    found = JournalAdapter(tmp_path / "books").lookup([row.key for row in rows])
    assert {row.key: [row.posting.digest] for row in rows} == {
        one: [entry.digest for entry in entries] for one, entries in found.items()
    }


class Writer:
    """Keeps the newest row per document; down as long as told."""

    def __init__(self) -> None:
        self.rows: dict[str, PostingState] = {}
        self.documents: dict[str, str] = {}
        self.down = False

    def write_documents(self, made: Sequence[ActDocument]) -> None:
        if self.down:
            message = "ClickHouse is down"
            raise ConnectionError(message)
        self.documents |= {one.key: one.digest for one in made}

    def write(self, rows: Sequence[PostingState]) -> None:
        if self.down:
            message = "ClickHouse is down"
            raise ConnectionError(message)
        for row in rows:
            if row.key not in self.rows or row.version > self.rows[row.key].version:
                self.rows[row.key] = row


def test_states_reach_clickhouse_when_it_is_back_and_posting_goes_on_meanwhile(world: World) -> None:
    world.configure()
    world.book(*many(2), SampleDocument(key(9), "0.00"))
    writer = Writer()
    writer.down = True
    poster = world.poster(writer=writer)
    summary = poster.run_once()
    assert (summary.by_state, summary.states_unwritten, summary.succeeded) == ({"POSTED": 1}, 1, True)
    writer.down = False
    world.clock.sleep(11)
    poster.pass_once()
    assert poster.summary().states_unwritten == 0
    assert {one: row.state for one, row in writer.rows.items()} == {
        key(0): "POSTED",
        key(1): "POSTED",
        key(9): "NOT_POSTED_ZERO",
    }
    row = writer.rows[key(0)]
    assert (row.erp_reference, row.posting_key) == ("E-1", postings_of(world)[0].key)
    assert row.posted_at is not None
    posting = postings_of(world)[0]
    with write(world.engine) as connection:  # read-back agreed, a day later
        table = tables.postings
        changed = table.update().where(table.c.key == posting.key)
        later_ms = to_ms(world.clock.now()) + 86_400_000
        connection.execute(changed.values(state="RECONCILED", changed_at_ms=later_ms, version=table.c.version + 1))
    poster.pass_once()
    again = writer.rows[key(0)]
    assert (again.state, again.posted_at) == ("RECONCILED", row.posted_at)
