"""What people decide: approvals, reversals, closes; and what the poster makes of it."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from config.entities import Entity
from config.period_closes import PeriodClose
from core.errors import InvalidRequest, InvariantViolation
from flows.poster_held import ERP_REASONS
from sinks.erp.journal import JournalAdapter
from sinks.erp.port import MasterData, Record, Window
from sinks.ledger import acts, audit, closes, documents, held, master_data, postings, tables
from sinks.ledger.database import read, write
from sinks.ledger.erp_codes import ErpNames
from sinks.ledger.reversal import Reversal, reverse
from sinks.ledger.times import MS_PER_HOUR
from tests.flows.poster_world import BY_CUSTOMER, START, World, many, postings_of
from tests.sinks.ledger.samples import ACCOUNTS, HOUR, SampleDocument, entity, key


def approving(**approval: Any) -> dict[str, Any]:
    return entity() | {"approval": approval}


def approve(world: World, one: str) -> bool:
    return held.approve(world.engine, one, actor="ann", reason="seen", now=world.clock.now())


def test_policy_holds_only_what_it_names_and_an_approval_sends_it_under_the_same_key(any_world: World) -> None:
    world = any_world
    world.configure(approving(above="100", credits=True))
    world.book(*many(3), SampleDocument(key(20), "100.01"), SampleDocument(key(21), "-0.01"))
    assert world.once().by_state == {"POSTED": 1, "HELD": 2}
    rows = {row.posting.document_keys: row for row in postings_of(world)}
    large, credit = rows[key(20),], rows[key(21),]
    assert (large.reason, large.detail) == ("approval_required", "its amount 100.01 is above 100")
    assert credit.detail == "it is a credit of 0.01"
    assert [kind for kind, _ in world.exceptions()] == ["posting_held"] * 2
    with pytest.raises(InvalidRequest, match="waits for approval"):
        held.release(world.engine, large.key, actor="ann", reason="x", now=world.clock.now())
    with pytest.raises(InvalidRequest, match="no posting or document"):
        approve(world, "NOBODY")
    with pytest.raises(InvalidRequest, match="needs no approval"):
        approve(world, key(0))
    assert approve(world, large.key)
    assert not approve(world, large.key)
    assert world.once().by_state == {"POSTED": 2, "HELD": 1}
    assert approve(world, key(21))  # by the document's key
    assert world.once().by_state == {"POSTED": 3}
    assert {large.key, credit.key} <= world.erp.entries.keys()
    assert world.exceptions() == []
    with read(world.engine) as connection:
        found = audit.entries(connection, large.key)
        assert [(row["actor"], row["action"], row["reason"]) for row in found] == [("ann", "approve", "seen")]
        assert len(acts.of_kind(connection, acts.APPROVAL)) == 2


def test_an_approval_does_not_mend_a_missing_account_and_a_mapping_does_not_approve(world: World) -> None:
    world.configure(approving(every=True))
    world.book(SampleDocument(key(1), revenue_role="shortfall_revenue"), SampleDocument(key(2)))
    assert world.once().by_state == {"HELD": 2}
    assert sorted(row.reason for row in postings_of(world)) == ["approval_required", "missing_account"]
    world.configure(
        approving(every=True) | {"accounts": ACCOUNTS | {"shortfall_revenue": "4003"}}, known_from_ms=10**15
    )
    assert world.once().by_state == {"HELD": 2}
    assert {row.reason for row in postings_of(world)} == {"approval_required"}
    for row in postings_of(world):
        assert approve(world, row.key)
    assert world.once().by_state == {"POSTED": 2}


def test_cheaper_tiers_are_no_credit_within_their_period(world: World) -> None:
    world.configure(approving(credits=True))
    lines = [
        {"kind": "tier_repricing", "account_role": "usage_revenue", "side": "debit", "amount": "49.95"},
        {"kind": "tier_repricing", "account_role": "unbilled_receivable", "side": "credit", "amount": "49.95"},
    ]
    late = [line | {"original_period": "2025-10"} for line in lines]
    world.book(
        SampleDocument(key(1), customer="a", extra={"lines": lines}),
        SampleDocument(key(2), customer="b", extra={"lines": late}),
    )
    assert world.once().by_state == {"POSTED": 1, "HELD": 1}
    (waits,) = [row for row in postings_of(world) if row.state == "HELD"]
    assert waits.posting.document_keys == (key(2),)


def correction(number: int, amount: str, hour: int, original: str = "2025-10", customer: str = "c") -> SampleDocument:
    lines = [
        {"kind": "late_usage", "account_role": role, "side": side, "amount": amount, "original_period": original}
        for role, side in (("unbilled_receivable", "debit"), ("usage_revenue", "credit"))
    ]
    extra = {"lines": lines, "original_period": original}
    return SampleDocument(key(number), kind="correction", booked_hour=hour, customer=customer, extra=extra)


@pytest.mark.parametrize("limits", [{"correction_above": "25"}, {"correction_share_percent": "2.5"}])
def test_small_corrections_of_a_closed_period_wait_once_their_sum_is_over_the_limit(
    any_world: World, limits: dict[str, str]
) -> None:
    world = any_world
    world.configure(entity() | {"close": limits})
    # 1,000.00 in October: 2.5 % are 25.00
    world.book(SampleDocument(key(90), "1000.00", booked_hour=HOUR - 1, accounting_period="2025-10"))
    for step in range(4):  # 10.00 each
        world.book(correction(step, "10.00", HOUR + step), correction(50 + step, "10.00", HOUR + step, customer="d"))
    world.book(correction(99, "24.00", HOUR + 4, original="2025-09"), complete_hour=HOUR + 5)
    world.once()
    held_keys = {row.posting.document_keys for row in postings_of(world) if row.state == "HELD"}
    wanted = {(key(number),) for number in (2, 3, 52, 53)}  # the third makes 30.00
    if "correction_share_percent" in limits:
        wanted |= {(key(99),)}  # nothing was charged in September: any correction is above a share of nothing
    assert held_keys == wanted
    (third,) = [row for row in postings_of(world) if row.posting.document_keys == (key(2),)]
    assert "corrections of 2025-10 come to 30.00" in third.detail


def test_a_bucket_that_cannot_be_stored_adds_nothing_to_the_corrections(world: World) -> None:
    world.configure(entity() | {"close": {"correction_above": "25"}})
    world.book(correction(1, "10.00", HOUR))
    world.once()
    with write(world.engine) as connection:  # past the outbox, as a defect would
        row = connection.execute(select(tables.documents).where(tables.documents.c.key == key(1))).one()
        values = dict(row._mapping) | {"key": key(2), "state": "PENDING", "posting_key": None}
        connection.execute(tables.documents.insert().values(values))
    for _ in range(2):
        with pytest.raises(InvariantViolation, match="sealed hour never changes"):
            world.once()
    with read(world.engine) as connection:
        assert connection.execute(select(tables.correction_totals.c.total)).scalars().all() == [Decimal("10.00")]


def make_reversal(world: World, one: str, **more: Any) -> Reversal:
    with read(world.engine) as connection:
        text = connection.execute(select(tables.config_revisions.c.text)).scalars().all()[-1]
    assert text
    configured = Entity.model_validate(more.pop("configured", entity()))
    return reverse(
        world.engine,
        {"US01": configured},
        ErpNames(ACCOUNTS),
        one,
        actor="ann",
        reason="wrong price",
        now=more.pop("now", world.clock.now()),
    )


def test_a_posting_is_reversed_once_under_a_key_of_its_own(any_world: World, tmp_path: Path) -> None:
    world = any_world
    journal = JournalAdapter(tmp_path / "books")
    world.configure()
    world.book(*many(3))
    world.once(erp=journal)
    (original,) = postings_of(world)
    first = make_reversal(world, original.key)
    again = make_reversal(world, original.key)
    assert (first.made_now, again.made_now, again.key) == (True, False, first.key)
    assert world.once(erp=journal).by_state == {"POSTED": 1, "REVERSED": 1}
    (entry,) = journal.lookup([first.key])[first.key]
    (before,) = journal.lookup([original.key])[original.key]
    totals: dict[str, Decimal] = {}
    for account, amount in (*entry.lines, *before.lines):
        totals[account] = totals.get(account, Decimal(0)) + amount
    assert set(totals.values()) == {Decimal(0)}
    opposite = documents.load(world.engine, first.documents[0])
    assert opposite is not None
    assert (opposite["kind"], opposite["reverses"]) == ("reversal", key(0))
    assert {one["side"] for one in opposite["lines"] if one["account_role"] == "usage_revenue"} == {"debit"}
    assert documents.digests_before(world.engine, 10**9).keys() == {key(n) for n in range(3)}  # what verify compares
    with pytest.raises(InvalidRequest, match="is REVERSED"):
        reverse(world.engine, {}, ErpNames({}), key(0), actor="a", reason="r", now=world.clock.now())
    with read(world.engine) as connection:
        assert [row["action"] for row in audit.entries(connection, original.key)] == ["reverse"]
    # What was reversed by mistake comes back by reversing the reversal.
    back = make_reversal(world, first.key)
    assert world.once(erp=journal).by_state == {"POSTED": 1, "REVERSED": 2}
    assert len(journal.lookup([back.key])[back.key]) == 1


def test_one_document_of_several_is_reversed_alone(any_world: World) -> None:
    world = any_world
    world.configure()
    world.book(*many(2), SampleDocument(key(7), "-1.00"))
    world.once()
    made = make_reversal(world, key(7))
    assert len(made.documents) == 1
    assert world.once().by_state == {"POSTED": 2}
    sent = world.erp.booked[made.key]
    assert [(line.account, line.signed) for line in sent.lines] == [
        ("1150", Decimal("1.00")),
        ("4001", Decimal("-1.00")),
    ]
    assert not make_reversal(world, key(7)).made_now


def test_nothing_is_reversed_both_alone_and_with_its_posting(any_world: World) -> None:
    world = any_world
    world.configure()
    world.book(*many(2), *many(2, 10, booked_hour=HOUR + 1), complete_hour=HOUR + 2)
    world.once()
    first, second = sorted(postings_of(world), key=lambda row: row.posting.booked_hour)
    alone = make_reversal(world, key(0))
    with pytest.raises(InvalidRequest, match=f"document {key(0)} is reversed already, by posting {alone.key}"):
        make_reversal(world, first.key)
    whole = make_reversal(world, second.key)
    with pytest.raises(InvalidRequest, match=f"document {key(10)} is reversed already, by posting {whole.key}"):
        make_reversal(world, key(10))
    make_reversal(world, key(1))
    world.once()
    totals: dict[str, Decimal] = {}
    for one in world.erp.booked.values():
        for line in one.lines:
            totals[line.account] = totals.get(line.account, Decimal(0)) + line.signed
    assert set(totals.values()) == {Decimal(0)}


def test_reversals_count_as_corrections_of_a_closed_period(any_world: World) -> None:
    world = any_world
    limits = entity() | {"close": {"correction_above": "20"}}
    world.configure(limits)
    lines = [
        {"kind": "usage", "account_role": role, "side": side, "amount": "12.34", "original_period": "2025-10"}
        for role, side in (("unbilled_receivable", "debit"), ("usage_revenue", "credit"))
    ]
    extra = {"lines": lines, "original_period": "2025-10"}
    made = [
        SampleDocument(key(n), customer="c", booked_hour=HOUR - n, accounting_period="2025-10", extra=extra)
        for n in range(2)
    ]
    world.book(*made)
    assert world.once().by_state == {"POSTED": 2}
    first = make_reversal(world, key(0), configured=limits)
    second = make_reversal(world, key(1), configured=limits)
    assert first.approval == ""
    assert second.approval == "corrections of 2025-10 come to -24.68, above 20"
    assert world.once().by_state == {"POSTED": 2, "REVERSED": 1, "HELD": 1}


def test_a_reversal_waits_for_approval_and_for_what_it_reverses(world: World) -> None:
    world.configure(approving(credits=True))
    world.book(*many(1))
    poster = world.poster()
    world.erp.script = ["dropped"]
    poster.pass_once()
    (original,) = postings_of(world)
    with pytest.raises(InvalidRequest, match="only what is in the books"):
        make_reversal(world, original.key)
    with pytest.raises(InvalidRequest, match="no posting or document"):
        make_reversal(world, "NOBODY")
    poster.run_once()
    made = make_reversal(world, original.key, configured=approving(credits=True))
    assert made.approval == "it is a credit of 12.34"
    assert world.once().by_state == {"POSTED": 1, "HELD": 1}
    approve(world, made.key)
    world.erp.entries.pop(original.key)  # somebody deleted it in the ERP
    assert world.once().by_state == {"POSTED": 1, "HELD": 1}
    row = postings.get(world.engine, made.key)
    assert row is not None
    assert row.reason == "original_missing"


@pytest.mark.parametrize("fault", ["lost", "dropped", "not_sent", "throttled"])
def test_a_reversal_survives_a_lost_answer(world: World, fault: str) -> None:
    world.configure()
    world.book(*many(1))
    world.once()
    (original,) = postings_of(world)
    made = make_reversal(world, original.key)
    world.erp.reverse_script = [fault]
    assert world.once().by_state == {"POSTED": 1, "REVERSED": 1}
    assert len(world.erp.entries[made.key]) == 1


def close(world: World, action: Any, at: datetime, period: str = "2025-11") -> None:
    fact = PeriodClose("US01", period, int(at.timestamp() * 1000), action)
    closes.record(world.engine, fact, actor="ann", reason="month end", now=world.clock.now())


def test_an_erp_that_says_closed_is_obeyed_by_policy(any_world: World, tmp_path: Path) -> None:
    world = any_world
    world.configure(entity(grain="customer") | {"close": {"erp_closed": "next_open"}})
    world.book(*many(2))
    world.erp.script = ["not_sent"]
    poster = world.poster()
    poster.pass_once()
    bad = postings_of(world)[0]
    world.erp.bad_keys = {bad.key: "closed_period"}
    world.clock.sleep(30)
    poster.run_once()
    assert world.states() == {"POSTED": 1, "HELD": 1}  # the close is not recorded: dates never change in silence
    close(world, "close", datetime(2025, 11, 24, 19, tzinfo=UTC))
    poster = world.poster()
    poster.run_once()
    assert world.states() == {"POSTED": 1, "HELD": 1}  # known from 19:00 on
    world.clock.sleep(3600)
    world.poster().run_once()
    assert world.states() == {"POSTED": 2, "SUPERSEDED": 1}
    (moved,) = [row for row in postings_of(world) if row.posting.accounting_period == "2025-12"]
    assert moved.key != bad.key
    assert moved.posting.posting_date == date(2025, 12, 1)
    assert "posted in 2025-12 since 2025-11 is closed" in moved.posting.description
    assert {line.dimensions for line in moved.posting.lines} == {(("original_period", "2025-11"),)}
    assert moved.posting.document_keys == bad.posting.document_keys
    assert world.erp.entries.keys() == {row.key for row in postings_of(world) if row.state == "POSTED"}
    assert world.exceptions() == []
    assert documents.count_by_state(world.engine) == {"POSTED": 2}


def test_hold_is_the_default_and_a_reopened_erp_gets_it_with_the_same_key(world: World) -> None:
    world.configure(BY_CUSTOMER)
    world.book(*many(1))
    poster = world.poster()
    world.erp.script = ["not_sent"]
    poster.pass_once()
    (row,) = postings_of(world)
    world.erp.issues = {row.key: "closed_period"}
    close(world, "close", START)
    world.clock.sleep(7200)
    poster.pass_once()
    assert world.states() == {"HELD": 1}
    world.erp.issues = {}
    world.clock.sleep(7200)
    poster.pass_once()
    assert world.states() == {"POSTED": 1}
    assert row.key in world.erp.entries


def test_closes_are_recorded_once_per_hour_and_last_one_counts(any_world: World) -> None:
    world = any_world
    at = datetime(2025, 12, 3, 10, tzinfo=UTC)
    close(world, "close", at)
    with pytest.raises(InvalidRequest, match="closed before"):
        close(world, "close", datetime(2025, 12, 3, 12, tzinfo=UTC))
    with pytest.raises(InvalidRequest, match="wait for the next one"):
        close(world, "reopen", at)
    close(world, "reopen", datetime(2025, 12, 3, 11, tzinfo=UTC))
    with read(world.engine) as connection:
        found = closes.load(connection)
        rows = audit.entries(connection, "US01/2025-11")
    hours = [int(datetime(2025, 12, 3, hour, tzinfo=UTC).timestamp() * 1000) for hour in (9, 10, 11)]
    assert [found.recorded("US01", "2025-11", at_ms) for at_ms in hours] == [None, "close", "reopen"]
    assert [row["action"] for row in rows] == ["reopen-period", "close-period"]
    assert closes.next_hour_ms(5 * MS_PER_HOUR, 7 * MS_PER_HOUR + 1) == 8 * MS_PER_HOUR


def test_the_journal_books_a_reversal_that_bean_check_accepts(world: World, tmp_path: Path) -> None:
    journal = JournalAdapter(tmp_path / "books")
    world.configure(entity(line_grain=["charge"]))
    world.book(*many(2))
    world.once(erp=journal)
    (original,) = postings_of(world)
    make_reversal(world, original.key)
    world.once(erp=journal)
    assert set(journal.balances().values()) == {Decimal(0)}
    assert len(list(journal.read_back(Window(date.min, date.max)))) == 2


@pytest.mark.parametrize("by", ["pull", "reopen"])
def test_what_the_erp_refused_is_sent_again_after_a_pull_or_a_reopen(any_world: World, by: str) -> None:
    world = any_world
    world.configure(BY_CUSTOMER)
    world.book(*many(2))
    poster = world.poster()
    world.erp.script = ["not_sent"]
    poster.pass_once()
    bad = postings_of(world)[0].key
    reason = "unknown_customer" if by == "pull" else "closed_period"
    world.erp.bad_keys = {bad: reason}
    poster.run_once()
    assert world.states() == {"POSTED": 1, "HELD": 1}
    world.erp.bad_keys = {}
    world.clock.sleep(86_400)
    poster.run_once()
    assert world.states() == {"POSTED": 1, "HELD": 1}  # nobody said that anything changed
    if by == "pull":
        data = MasterData((Record("party", "CUST-1", "Acme"),), frozenset({"party"}))
        pulled = master_data.keep(world.engine, "US01", data, ERP_REASONS, world.clock.now())
        assert (pulled.counts, pulled.looked_at_again, pulled.added) == ({"party": 1}, 1, ())
        other = MasterData((Record("party", "CUST-1", "Acme Inc."), Record("party", "CUST-2")), frozenset({"party"}))
        again = master_data.keep(world.engine, "US01", other, ERP_REASONS, world.clock.now())
        assert (again.added, again.changed, again.gone) == (("party CUST-2",), ("party CUST-1",), ())
    else:
        close(world, "close", START)
        close(world, "reopen", START + timedelta(hours=1))
    poster.run_once()
    assert world.states() == {"POSTED": 2}
    assert bad in world.erp.entries
