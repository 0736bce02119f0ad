"""The poster's state machine against an ERP in memory, and the journal."""

import random
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, event, select

from config.settings import PosterSettings, Settings
from core.clock import ManualClock
from core.errors import InvariantViolation
from flows.poster import Poster, Summary
from flows.poster_states import PostingState
from sinks import ledger
from sinks.erp.journal import JournalAdapter
from sinks.erp.port import Capabilities, Idempotency
from sinks.ledger import documents, exceptions, leases, postings, progress, revisions, tables
from sinks.ledger.database import read, write
from sinks.ledger.times import MS_PER_HOUR
from tests.sinks.erp.memory_erp import UNIQUE, Died, MemoryErp
from tests.sinks.ledger import samples
from tests.sinks.ledger.samples import HOUR, SampleDocument, entity, key

START = datetime(2025, 11, 24, 18, tzinfo=UTC)


def _without_sync(connection: Any, _record: Any) -> None:
    """Leave out the disk: these tests kill no machine."""
    connection.execute("PRAGMA synchronous = OFF")


class World:
    """A ledger with documents, a clock, and posters on it."""

    def __init__(self, url: str) -> None:
        ledger.migrate(url)
        self.url = url
        self.engine: Engine = ledger.connect(url)
        if self.engine.dialect.name == "postgresql":
            samples.empty(self.engine)
        else:
            event.listen(self.engine, "connect", _without_sync)
        self.clock = ManualClock(START)
        self.sequence = 0
        self.erp = MemoryErp()

    def configure(self, *entities: dict[str, Any], known_from_ms: int = 0) -> None:
        revisions.record_revision(self.engine, samples.revision(*entities, known_from_ms=known_from_ms), START)

    def book(self, *made: SampleDocument, complete_hour: int = HOUR + 1) -> None:
        """Promote documents, with a watermark that completes every hour before `complete_hour`."""
        self.sequence += 1
        with write(self.engine) as connection:
            assert documents.stage(connection, made, self.sequence) == []
            documents.promote(connection, self.sequence)
            watermark_ms = complete_hour * MS_PER_HOUR + 60_000
            progress.put(connection, progress.PROMOTED, progress.Progress(self.sequence, watermark_ms))

    def poster(self, erp: Any = None, writer: Any = None, batch: int = 100, **more: Any) -> Poster:
        chosen = self.erp if erp is None else erp
        configured = Settings(poster=PosterSettings(batch_documents=batch, poll_s=0.01))
        return Poster(configured, self.engine, lambda _: chosen, self.clock, writer, chance=random.Random(7), **more)

    def once(self, **more: Any) -> Summary:
        return self.poster(**more).run_once()

    def states(self) -> dict[str, int]:
        return postings.count_by_state(self.engine)

    def exceptions(self) -> list[tuple[str, str]]:
        with read(self.engine) as connection:
            return [(row["kind"], row["detail"]) for row in exceptions.open_exceptions(connection)]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    yield made
    made.engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def any_world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    is_lite = request.param == "sqlite"
    made = World(f"sqlite:///{tmp_path / 'ledger.sqlite'}" if is_lite else request.getfixturevalue("postgres_url"))
    yield made
    made.engine.dispose()


BY_CUSTOMER = entity(grain="customer")


def many(count: int, start: int = 0, **more: Any) -> list[SampleDocument]:
    return [SampleDocument(key(start + n), customer=f"c{start + n}", **more) for n in range(count)]


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


def postings_of(world: World) -> list[postings.Stored]:
    with read(world.engine) as connection:
        keys = connection.execute(select(tables.postings.c.key).order_by(tables.postings.c.key)).scalars().all()
    found = [postings.get(world.engine, one) for one in keys]
    return [one for one in found if one is not None]


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
    assert world.exceptions() == [("posting_held", "no account for shortfall_revenue in entity US01")]
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
        self.down = False

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
