"""The outbox's protocol, with a crash at every step. The engine calls: write_batch*, snapshot, write_batch..."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from pydantic import SecretStr
from sqlalchemy import Engine, select, text

from config.settings import LedgerSettings, Settings
from core.errors import InvariantViolation, LockHeld, StateMismatch, StopRequested
from operators.document import Document
from operators.document_lines import DocumentLine
from operators.items import Marker
from sinks import ledger
from sinks.ledger import documents, exceptions, progress, tables
from sinks.ledger.database import read
from sinks.outbox import OutboxPartition, OutboxSink, high_water_ms, promote_all, take_back
from tests.sinks.ledger import samples
from tests.sinks.ledger.samples import SampleDocument, key

SENDERS = ("customer-0", "customer-1")


class Outbox:
    """A migrated ledger and partitions on it, as the engine would build them."""

    def __init__(self, directory: Path, url: str = "") -> None:
        self.url = url or f"sqlite:///{directory / 'ledger.sqlite'}"
        ledger.migrate(self.url)
        self.engine: Engine = ledger.connect(self.url)
        self.stop = threading.Event()

    def build(self, state: dict[str, Any] | None = None) -> OutboxPartition:
        settings = Settings(ledger=LedgerSettings(url=SecretStr(self.url)))
        return OutboxSink(settings, senders=SENDERS, stop=self.stop).build_part("outbox", "outbox", state)

    def states(self) -> dict[str, int]:
        return documents.count_by_state(self.engine)


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    made = Outbox(tmp_path)
    yield made
    made.engine.dispose()


def both(watermark_ms: int) -> list[Any]:
    return [Marker(sender, watermark_ms) for sender in SENDERS]


def test_documents_are_staged_in_snapshot_and_pending_in_the_next_epoch(outbox: Outbox) -> None:
    part = outbox.build()
    part.write_batch([SampleDocument(key(1)), SampleDocument(key(2), "0.00"), *both(7_200_000)])
    assert outbox.states() == {}
    part.snapshot()
    assert outbox.states() == {"STAGED": 2}
    assert (progress.watermark_ms(outbox.engine), high_water_ms(outbox.engine)) == (0, 7_200_000)
    part.write_batch(both(7_200_001))
    assert outbox.states() == {"PENDING": 1, "NOT_POSTED_ZERO": 1}
    assert progress.watermark_ms(outbox.engine) == 7_200_000
    assert REGISTRY.get_sample_value("meterbridge_watermark_timestamp_seconds", {"stage": "durable"}) == 7_200


def test_the_watermark_is_the_minimum_over_all_senders(outbox: Outbox) -> None:
    part = outbox.build()
    part.write_batch([Marker("customer-0", 500)])
    state = part.snapshot()
    assert high_water_ms(outbox.engine) == 0
    part.write_batch([Marker("customer-1", 300)])
    part.snapshot()
    assert high_water_ms(outbox.engine) == 300
    again = outbox.build(state)  # the kept sender is not sent again
    again.write_batch([Marker("customer-1", 400)])
    again.snapshot()
    assert high_water_ms(outbox.engine) == 400
    with pytest.raises(InvariantViolation, match="unknown sender"):
        again.write_batch([Marker("customer-9", 1)])


def test_dying_in_snapshot_takes_the_epoch_back_and_replay_makes_it_again(outbox: Outbox) -> None:
    part = outbox.build()
    part.write_batch([SampleDocument(key(1)), *both(1000)])
    durable = part.snapshot()
    part.write_batch([SampleDocument(key(2)), *both(2000)])
    part.snapshot()  # this snapshot is lost
    again = outbox.build(durable)
    assert outbox.states() == {"PENDING": 1}
    assert progress.watermark_ms(outbox.engine) == 1000
    again.write_batch([SampleDocument(key(2)), *both(2000)])
    again.snapshot()
    assert outbox.states() == {"PENDING": 1, "STAGED": 1}


def test_dying_after_the_epoch_is_durable_promotes_on_resume(outbox: Outbox) -> None:
    part = outbox.build()
    part.write_batch([SampleDocument(key(1)), *both(1000)])
    outbox.build(part.snapshot())
    assert outbox.states() == {"PENDING": 1}
    assert progress.watermark_ms(outbox.engine) == 1000


def test_a_replay_from_an_older_snapshot_changes_nothing(outbox: Outbox) -> None:
    part = outbox.build()
    part.write_batch([SampleDocument(key(1)), *both(1000)])
    old = part.snapshot()
    for number in (2, 3):
        part.write_batch([SampleDocument(key(number)), *both(number * 1000)])
        part.snapshot()
    part.write_batch(both(3001))
    again = outbox.build(old)
    again.write_batch([SampleDocument(key(2)), *both(2000)])
    again.snapshot()
    again.write_batch([SampleDocument(key(3)), *both(3000)])
    assert outbox.states() == {"PENDING": 3}
    assert progress.watermark_ms(outbox.engine) == 3000  # never back


def test_the_same_key_with_other_content_stops_before_anything_is_overwritten(outbox: Outbox) -> None:
    part = outbox.build()
    part.write_batch([SampleDocument(key(1)), *both(1000)])
    part.snapshot()
    part.write_batch([SampleDocument(key(2)), SampleDocument(key(1), "99.00"), *both(2000)])
    with pytest.raises(InvariantViolation, match=key(1)):
        part.snapshot()
    stored = documents.load(outbox.engine, key(1))
    assert stored is not None
    assert stored["lines"][0]["amount"] == "12.34"
    assert outbox.states() == {"PENDING": 1}
    with read(outbox.engine) as connection:
        assert [row["kind"] for row in exceptions.open_exceptions(connection)] == ["digest_conflict"]


def test_more_documents_than_the_buffer_are_inserted_early_and_still_belong_to_the_epoch(outbox: Outbox) -> None:
    part = outbox.build()
    durable = part.snapshot()
    part.write_batch([SampleDocument(key(number)) for number in range(6000)])
    assert outbox.states() == {"STAGED": 6000}
    again = outbox.build(durable)
    assert outbox.states() == {}
    again.write_batch([SampleDocument(key(1)), *both(1)])
    again.snapshot()
    again.write_batch(both(2))
    assert outbox.states() == {"PENDING": 1}


def test_promote_all_ends_a_clean_run(outbox: Outbox) -> None:
    part = outbox.build()
    part.write_batch([SampleDocument(key(1)), *both(1000)])
    part.snapshot()
    assert promote_all(outbox.engine) == 1
    assert outbox.states() == {"PENDING": 1}
    assert progress.watermark_ms(outbox.engine) == 1000


def test_a_locked_ledger_is_waited_for_and_a_stop_ends_the_wait(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sinks.ledger.database.BUSY_TIMEOUT_MS", 50)
    part = outbox.build()
    blocker = outbox.engine.raw_connection()
    blocker.cursor().execute("BEGIN IMMEDIATE")
    part.write_batch([SampleDocument(key(1)), *both(1000)])
    timer = threading.Timer(0.5, lambda: blocker.cursor().execute("COMMIT"))
    timer.start()
    part.snapshot()
    timer.join()
    assert outbox.states() == {"STAGED": 1}
    blocker.cursor().execute("BEGIN IMMEDIATE")
    threading.Timer(0.3, outbox.stop.set).start()
    started_s = time.monotonic()
    with pytest.raises(StopRequested):
        part.write_batch(both(2000))
    assert time.monotonic() - started_s < 2
    blocker.cursor().execute("ROLLBACK")
    blocker.close()


def test_a_ledger_older_than_the_state_is_refused_and_a_newer_one_is_not(outbox: Outbox, tmp_path: Path) -> None:
    """Given copies of the ledger of every epoch; then a state goes on with those that have all of its documents."""
    part = outbox.build()
    copies: list[bytes] = []
    states: list[dict[str, Any]] = []
    for number in (1, 2, 3):
        part.write_batch([SampleDocument(key(number)), *both(number * 1000)])
        states.append(part.snapshot())
        part.close()
        outbox.engine.dispose()
        copies.append((tmp_path / "ledger.sqlite").read_bytes())  # closed by all: nothing is left in a write-ahead log
    for of_ledger, copy in enumerate(copies):
        for of_state, state in enumerate(states):
            directory = tmp_path / f"{of_ledger}-{of_state}"
            directory.mkdir()
            (directory / "ledger.sqlite").write_bytes(copy)
            restored = Outbox(directory)
            if of_state > of_ledger:
                with pytest.raises(StateMismatch, match=r"older copy.*meterbridge rebuild"):
                    restored.build(state)
            else:
                restored.build(state)
            restored.engine.dispose()


def test_a_state_whose_staged_documents_were_taken_back_is_refused(outbox: Outbox) -> None:
    """Given a `rebuild` that gave up a state and then died; then that state, put back, would miss its documents."""
    part = outbox.build()
    part.write_batch([SampleDocument(key(1)), *both(1000)])
    durable = part.snapshot()
    part.write_batch([SampleDocument(key(2)), *both(2000)])
    given_up = part.snapshot()
    assert take_back(outbox.engine) == 1
    assert outbox.states() == {"PENDING": 1}
    with pytest.raises(LockHeld):  # it may still run somewhere
        part.write_batch(both(3000))
    with pytest.raises(StateMismatch, match="older copy"):
        outbox.build(given_up)
    again = outbox.build(durable)
    again.write_batch([SampleDocument(key(2)), *both(2000)])
    again.snapshot()
    assert promote_all(outbox.engine, again.fence) == 1


def test_a_flow_that_was_started_later_ends_the_earlier_one_before_it_writes(outbox: Outbox) -> None:
    """Given two flows on copies of one state, as on two hosts; then the later alone stages and promotes."""
    first = outbox.build()
    first.write_batch([SampleDocument(key(1)), *both(1000)])
    state = first.snapshot()
    first.write_batch([SampleDocument(key(2)), *both(2000)])
    second = outbox.build(state)
    with pytest.raises(LockHeld, match="another metering flow"):
        first.snapshot()
    with pytest.raises(LockHeld):
        first.write_batch([SampleDocument(key(number)) for number in range(6000)])
    with pytest.raises(LockHeld):
        promote_all(outbox.engine, first.fence)
    assert outbox.states() == {"PENDING": 1}
    second.write_batch([SampleDocument(key(2)), *both(2000)])
    second.snapshot()
    assert promote_all(outbox.engine, second.fence) == 1


def test_a_flow_that_was_overtaken_promotes_nothing(outbox: Outbox) -> None:
    """Given an epoch that was staged and made durable before another flow came; then its promotion is refused."""
    first = outbox.build()
    first.write_batch([SampleDocument(key(1)), *both(1000)])
    first.snapshot()
    outbox.build(first.snapshot() | {"sequence": 0, "watermarks": {}})
    assert outbox.states() == {}, "the later flow goes on from before, and makes it again"
    with pytest.raises(LockHeld):
        first.write_batch(both(2000))


def test_a_connection_that_dies_inside_the_transaction_is_made_again(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a PostgreSQL that ends our session half way; then the epoch is staged once, by the next one."""
    outbox = Outbox(tmp_path, postgres_url)
    samples.empty(outbox.engine)
    part = outbox.build()
    part.write_batch([SampleDocument(key(1)), *both(1000)])
    original, deaths = documents.stage, [1]

    def dies_once(connection: Any, *arguments: Any) -> Any:
        made = original(connection, *arguments)
        if deaths:
            deaths.pop()
            connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
        return made

    monkeypatch.setattr(documents, "stage", dies_once)
    part.snapshot()
    assert not deaths
    assert outbox.states() == {"STAGED": 1}
    assert promote_all(outbox.engine, part.fence) == 1
    outbox.engine.dispose()


EPOCHS = st.lists(st.integers(0, 3), min_size=1, max_size=6)
CRASHES = st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["before", "after", "promoted"])), max_size=4)


@settings(max_examples=25, deadline=None)
@given(epochs=EPOCHS, crashes=CRASHES)
def test_any_crashes_end_with_every_document_once(
    tmp_path_factory: pytest.TempPathFactory, epochs: list[int], crashes: list[tuple[int, str]]
) -> None:
    """Epoch i makes epochs[i] documents; a crash goes back to the last durable snapshot."""
    outbox = Outbox(tmp_path_factory.mktemp("outbox"))
    made = [[SampleDocument(key(100 * index + n)) for n in range(size)] for index, size in enumerate(epochs)]
    waiting = list(crashes)
    durable: dict[str, Any] | None = None
    part, index = outbox.build(durable), 0
    while index < len(made):
        part.write_batch([*made[index], *both((index + 1) * 1000)])
        crash = next((item for item in waiting if item[0] == index), None)
        if crash is None:
            durable, index = part.snapshot(), index + 1
            continue
        waiting.remove(crash)
        if crash[1] != "before":
            state = part.snapshot()
            if crash[1] == "promoted":
                durable, index = state, index + 1
                if index < len(made):
                    part.write_batch([*made[index], *both((index + 1) * 1000)])
        part = outbox.build(durable)
        outbox.stop.clear()
    promote_all(outbox.engine)
    wanted = {document.key: document.digest for epoch in made for document in epoch}
    assert documents.digests_before(outbox.engine, 10**9) == wanted
    assert progress.watermark_ms(outbox.engine) == len(epochs) * 1000
    outbox.engine.dispose()


def test_a_real_document_comes_back_equal(outbox: Outbox) -> None:
    line = DocumentLine(
        kind="usage",
        account_role="unbilled_receivable",
        side="debit",
        amount=Decimal("0.10"),
        amount_exact=Decimal("0.099999999999"),
        swapped=False,
        cumulative_before=Decimal(0),
        cumulative_after=Decimal("0.099999999999"),
        rounded_before=Decimal("0.00"),
        rounded_after=Decimal("0.10"),
        quantity=Decimal(3),
        unit="token",
        events=3,
        customer="acme",
        contract="acme-2025",
        plan="payg",
        plan_version=1,
        charge="input",
        price_row="",
        meter="input_tokens",
        period_start="2025-11-01T00:00:00Z",
        service_from="2025-11-24T16:00:00Z",
        service_to="2025-11-24T17:00:00Z",
        original_period="2025-11",
        dimensions={"model": "gpt-4"},
        tax_category="saas",
    )
    document = Document(
        key=key(1),
        kind="accrual",
        status="TO_POST",
        entity="US01",
        customer="acme",
        contract="acme-2025",
        currency="USD",
        booked_hour=490_000,
        accounting_period="2025-11",
        original_period="2025-11",
        posting_date="2025-11-24",
        reason_code="",
        revision=1,
        supersedes="",
        reverses="",
        approval="",
        config_version="c0ffee",
        source_digest="0" * 64,
        events=3,
        total=Decimal("0.10"),
        debit_total=Decimal("0.10"),
        credit_total=Decimal("0.10"),
        trace_url="/documents/X",
        lines=(line, replace(line, account_role="usage_revenue", side="credit")),
    )
    part = outbox.build()
    part.write_batch([document, *both(1000)])
    part.snapshot()
    promote_all(outbox.engine)
    assert documents.digests_before(outbox.engine, 490_001) == {key(1): document.digest}
    with read(outbox.engine) as connection:
        row = connection.execute(select(tables.documents)).one()
    assert Document.from_json(row.json) == document
    assert (row.posting_date, row.debit_total, row.state) == ("2025-11-24", Decimal("0.10"), "PENDING")
