"""Invoices: every cent accrued is invoiced once, revenue stands once, and unbilled ends at 0.00."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from config.revision import History
from sinks.erp.journal import JournalAdapter
from sinks.erp.port import Outcome, Posted, Posting
from sinks.ledger import act_check, acts, invoicing, read_back, revisions, tables, unbilled
from sinks.ledger.act_documents import When, reversal_of
from sinks.ledger.database import read, write
from sinks.ledger.erp_codes import ErpNames
from sinks.ledger.invoice_lines import InvoiceAct, invoice_of
from sinks.ledger.readiness import ErpData, Readiness, readiness
from sinks.ledger.reversal import reverse
from sinks.ledger.times import MS_PER_HOUR, to_ms
from tests.flows.poster_world import World
from tests.sinks.erp.memory_erp import MemoryErp
from tests.sinks.ledger.invoice_books import (
    ACCOUNTS,
    FIRST_HOUR,
    configure,
    configured,
    fee,
    run,
    usage,
)
from tests.sinks.ledger.samples import revision


@pytest.fixture
def world(any_world: World) -> World:
    return any_world


def test_a_month_accrued_and_invoiced_leaves_no_unbilled_and_revenue_once(world: World, tmp_path: Path) -> None:
    journal = JournalAdapter(tmp_path / "books")
    history = configure(world)
    usages = [
        usage(1, "100.10", 0),
        usage(2, "0.05", 700, charge="output"),
        usage(3, "-20.00", 719),
        usage(4, "7.77", 5, customer="globex"),
        usage(5, "3.33", 30 * 24 + 10),  # late by ten hours: before the cut-off
        usage(6, "9.99", 30 * 24 + 30),  # after it: the next invoice
        usage(7, "1.00", 30 * 24 + 3, period="2025-12-01T00:00:00Z", accounting_period="2025-12"),
    ]
    world.book(*usages, complete_hour=FIRST_HOUR + 31 * 24 - 1)
    assert run(world, history) == []  # the cut-off hour is not complete
    world.book(complete_hour=FIRST_HOUR + 31 * 24)
    world.once(erp=journal)
    preview = run(world, history, dry_run=True)
    lines = run(world, history)
    assert [(one.customer, one.kind, one.net) for one in lines] == [
        ("acme", "invoice", "83.48"),
        ("globex", "invoice", "7.77"),
    ]
    assert [one.net for one in preview] == [one.net for one in lines]
    assert run(world, history) == []
    assert world.once(erp=journal).succeeded
    balances = journal.balances()
    by_code = {name.rpartition("-")[2]: amount for (name, _), amount in balances.items()}
    assert by_code == {"1150": Decimal("1.00"), "4001": Decimal("-92.25"), "1200": Decimal("91.25")}
    world.book(complete_hour=FIRST_HOUR + 62 * 24)
    assert [(one.net, f"{one.period_start:%m}") for one in run(world, history)] == [("10.99", "12")]
    assert world.once(erp=journal).succeeded
    by_code = {name.rpartition("-")[2]: amount for (name, _), amount in journal.balances().items()}
    assert by_code == {"1150": Decimal(0), "4001": Decimal("-102.24"), "1200": Decimal("102.24")}
    with read(world.engine) as connection:
        rolls = unbilled.roll_forward(unbilled.movements(connection), "2025-12", "2026-01", world.clock.now())
        assert len(acts.of_kind(connection, acts.INVOICE)) == 3
    found = {one.customer: (one.opening, one.accrued, one.invoiced, one.closing) for one in rolls}
    assert found["acme"] == (Decimal("93.47"), Decimal("1.00"), Decimal("-94.47"), Decimal(0))
    assert found["globex"] == (Decimal("7.77"), Decimal(0), Decimal("-7.77"), Decimal(0))
    assert read_back.booked_totals(world.engine, journal, ["US01"]) == journal.balances()


def test_the_invoice_says_what_the_erp_needs_and_the_next_one_names_the_service_period(world: World) -> None:
    history = configure(world, state="draft")
    world.book(
        usage(1, "10.00", 0, quantity="1200"),
        usage(2, "5.00", 30 * 24 + 40, quantity="600"),
        complete_hour=FIRST_HOUR + 31 * 24,
    )
    (line,) = run(world, history)
    world.once()
    posting = next(one for one in world.erp.booked.values() if one.kind == "invoice")
    invoice = posting.invoice
    assert invoice is not None
    assert (invoice.party, invoice.reference, invoice.net) == ("CUST-acme", line.key, Decimal("10.00"))
    assert [(one.text, one.account, one.tax_category) for one in invoice.lines] == [
        ("input, 1200 token, 2025-11-01 to 2025-11-01", "1150", "saas")
    ]
    assert [(one.account, one.party, one.signed) for one in posting.lines] == [
        ("1200", "CUST-acme", Decimal("10.00")),
        ("1150", "CUST-acme", Decimal("-10.00")),
    ]
    assert posting.extra == {"state": "draft"}
    world.book(complete_hour=FIRST_HOUR + 62 * 24)
    run(world, history)
    world.once()
    (second,) = [one for one in world.erp.booked.values() if one.kind == "invoice" and one.key != posting.key]
    assert second.invoice is not None
    assert [one.text for one in second.invoice.lines] == ["input, 600 token, 2025-12-02 to 2025-12-02"]


class TaxingErp(MemoryErp):
    """An ERP that adds ten percent to every invoice."""

    def submit(self, postings: Sequence[Posting], attempt_id: str) -> list[Outcome]:
        outcomes = super().submit(postings, attempt_id)
        for index, (outcome, posting) in enumerate(zip(outcomes, postings, strict=True)):
            if isinstance(outcome, Posted) and posting.invoice:
                outcomes[index] = replace(outcome, tax=posting.invoice.net / 10)
        return outcomes


def test_the_tax_of_an_invoice_is_owed_too_and_no_difference_of_balances(world: World) -> None:
    history = configure(world)
    world.erp = TaxingErp(name="journal")  # what the sample entity posts to
    world.book(usage(1, "10.00", 0), usage(2, "-4.00", 31 * 24 + 5, kind="void"), complete_hour=FIRST_HOUR + 31 * 24)
    run(world, history)
    assert world.once().succeeded
    world.book(complete_hour=FIRST_HOUR + 62 * 24)
    run(world, history)
    assert world.once().succeeded
    assert {one.kind for one in world.erp.booked.values()} == {"journal", "invoice", "credit_note"}
    assert read_back.booked_totals(world.engine, world.erp, ["US01"]) == {
        ("1150", "USD"): Decimal(0),
        ("1200", "USD"): Decimal("6.60"),  # 10.00 and its tax less 4.00 and its tax
        ("4001", "USD"): Decimal("-6.00"),
    }


def test_a_net_negative_is_a_credit_note_that_names_the_invoice(world: World) -> None:
    history = configure(world)
    world.book(usage(1, "10.00", 0), usage(2, "-4.00", 31 * 24 + 5, kind="void"), complete_hour=FIRST_HOUR + 31 * 24)
    run(world, history)
    world.once()
    (invoice,) = [one for one in world.erp.booked.values() if one.kind == "invoice"]
    world.book(complete_hour=FIRST_HOUR + 62 * 24)
    (line,) = run(world, history)
    assert (line.kind, line.net) == ("credit_note", "-4.00")
    world.once()
    (note,) = [one for one in world.erp.booked.values() if one.kind == "credit_note"]
    assert note.invoice is not None
    assert note.invoice.credits == invoice.key
    assert [(one.account, one.signed) for one in note.lines] == [
        ("1150", Decimal("4.00")),
        ("1200", Decimal("-4.00")),
    ]


def test_a_contract_that_is_not_ready_waits_and_metering_does_not(world: World) -> None:
    history = configure(world)
    world.book(usage(1, "10.00", 0), usage(2, "4.00", 0, customer="globex"), complete_hour=FIRST_HOUR + 31 * 24)
    assert world.once().by_state == {"POSTED": 1}
    missing = Readiness("acme", "acme-1", "US01", ("the ERP has no party CUST-acme",))
    found = list(
        invoicing.run(world.engine, history, {("acme", "acme-1"): missing}, actor="ann", now=world.clock.now())
    )
    assert [(one.customer, one.waits) for one in found] == [
        ("acme", "the ERP has no party CUST-acme"),
        ("globex", ""),
    ]
    assert [one.customer for one in run(world, history)] == ["acme"]


def test_readiness_names_everything_that_is_missing() -> None:
    plain = configured()
    made = revision(*plain.pop("entities"), **plain)
    assert "erp pull" in readiness(made, {}, {"US01": "2025-11"})[0].missing[0]
    kinds = ("party", "account", "period", "currency")
    nothing = ErpData({}, frozenset(kinds))
    assert readiness(made, {"US01": nothing}, {"US01": "2025-11"})[0].missing == (
        "the ERP has no account 1200, needed for invoices",
        "the ERP has no account 1150, needed for usage not invoiced yet",
        "the ERP has no party CUST-acme",
        "the ERP has no currency USD",
        "the ERP has no period 2025-11",
    )
    full = {("party", "CUST-acme"): True, ("party", "CUST-globex"): False, ("currency", "USD"): True}
    full |= {("account", code): True for code in ACCOUNTS.values()} | {("period", "2025-11"): False}
    first, second = readiness(made, {"US01": ErpData(full, frozenset(kinds))}, {"US01": "2025-11"})
    assert first.missing == ("period 2025-11 is closed in the ERP",)
    assert second.missing[0] == "party CUST-globex is not active in the ERP"
    assert readiness(made, {"US01": ErpData({}, frozenset())}, {"US01": "2025-11"})[0].is_ready


AMOUNTS = st.decimals("-500", "500", places=2)
BOOKED = st.tuples(AMOUNTS, st.integers(0, 4 * 30 * 24), st.sampled_from(["a", "b"]), st.integers(0, 2))
STARTS = ("2025-11-01T00:00:00Z", "2025-12-01T00:00:00Z", "2026-01-01T00:00:00Z")
BEGINS = [to_ms(datetime.fromisoformat(start)) // MS_PER_HOUR - FIRST_HOUR for start in STARTS]
ENDS = [datetime(2025, 12, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)]
REVERSED = st.tuples(st.integers(0, 60), st.integers(0, 2))
"""Which document is reversed (modulo how many there are then), behind which invoice run."""


@settings(max_examples=100, deadline=None)
@given(made=st.lists(BOOKED, max_size=25), taken_back=st.lists(REVERSED, max_size=3))
def test_whatever_is_booked_when_all_invoices_together_are_all_accruals(
    made: list[tuple[Decimal, int, str, int]], taken_back: list[tuple[int, int]]
) -> None:
    accrued = [
        orjson.loads(
            usage(n, format(amount, "f"), BEGINS[month] + hours, charge=charge, period=STARTS[month]).to_json()
        )
        for n, (amount, hours, charge, month) in enumerate(made)
    ]
    by_acts: list[dict[str, Any]] = []
    counted: frozenset[str] = frozenset()
    since: dict[str, Any] = {"since_hour": 0, "since_period": ""}
    gone: set[str] = set()
    for run_, (start, ends) in enumerate(zip(STARTS, ENDS, strict=True)):
        cutoff_hour = to_ms(ends + timedelta(days=1)) // MS_PER_HOUR
        act = InvoiceAct("US01", "acme", "acme-1", "USD", start, "", cutoff_hour, "2025-12", "2025-12-02", "v")
        known = [*accrued, *by_acts]
        whole = invoice_of(act, known)
        again = invoice_of(act, list(reversed(known)))
        # From the last invoice's billing period on, and with what it counted: the same amounts.
        first_hour = to_ms(datetime.fromisoformat(since["since_period"])) // MS_PER_HOUR if counted else 0
        recent = [*(one for one in accrued if one["booked_hour"] >= first_hour), *by_acts]
        found = invoice_of(replace(act, **since), recent, counted)
        assert (found is None) == (again is None) == (whole is None)
        if found is not None and again is not None and whole is not None:
            assert sorted(map(orjson.dumps, whole.plain["lines"])) == sorted(map(orjson.dumps, again.plain["lines"]))
            assert [amounts(one) for one in found.plain["lines"]] == [amounts(one) for one in whole.plain["lines"]]
            counted = frozenset([*(one["key"] for one in by_acts), found.key])
            since = {"since_hour": cutoff_hour, "since_period": start}
            by_acts.append(orjson.loads(found.to_json()))
            credited = [one for one in found.plain["lines"] if one["account_role"] != "accounts_receivable"]
            assert Decimal(found.total) == sum(Decimal(one["amount_exact"]) for one in credited)
        # The oracle: by the cut-off, invoiced to date is what was accrued, cent by cent.
        assert net_of(by_acts, "invoice") == accrued_by([*accrued, *by_acts], cutoff_hour, start)
        for choice, behind in taken_back:
            candidates = [one for one in [*accrued, *by_acts] if one["kind"] != "reversal" and one["key"] not in gone]
            if behind == run_ and candidates:
                original = candidates[choice % len(candidates)]
                gone.add(original["key"])
                when = When(max(cutoff_hour, original["booked_hour"]) + 5, "2025-12", "2025-12-03")
                by_acts.append(orjson.loads(reversal_of(original, when, "x").to_json()))


def amounts(line: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(line[name]) for name in ("charge", "period_start", "account_role", "side", "amount"))


def net_of(known: list[dict[str, Any]], kind: str) -> Decimal:
    """Return what lines of that kind took off unbilled."""
    found = [line for one in known for line in one["lines"] if line["kind"] == kind]
    unbilled_ = [line for line in found if line["account_role"] == "unbilled_receivable"]
    return sum((Decimal(one["amount"]) * (1 if one["side"] == "credit" else -1) for one in unbilled_), Decimal(0))


def accrued_by(known: list[dict[str, Any]], before_hour: int, start: str) -> Decimal:
    """Return what was accrued before an hour for billing periods up to one."""
    early = [
        {**one, "lines": [line for line in one["lines"] if line["period_start"] <= start]}
        for one in known
        if one["booked_hour"] < before_hour
    ]
    return -net_of(early, "usage")


def test_late_usage_of_a_period_without_an_invoice_is_billed_once(world: World) -> None:
    history = configure(world)
    october = "2025-10-15T00:00:00Z"
    world.book(
        usage(1, "4.00", 5 * 24, period=october),  # behind October's cut-off
        usage(2, "10.00", 6 * 24),
        complete_hour=FIRST_HOUR + 31 * 24,
    )
    assert [one.net for one in run(world, history)] == ["14.00"]
    assert run(world, history) == []
    world.book(usage(3, "1.00", 33 * 24, period=october), complete_hour=FIRST_HOUR + 62 * 24)
    assert [one.net for one in run(world, history)] == ["1.00"]
    assert run(world, history) == []
    stored, made = act_check.stored_and_made(world.engine)
    assert stored == made


def test_a_later_run_reads_no_more_than_what_is_new(world: World) -> None:
    history = configure(world)
    world.book(*(usage(n, "1.00", 24 * n) for n in range(28)), complete_hour=FIRST_HOUR + 31 * 24)
    run(world, history)
    world.book(
        *(usage(100 + n, "1.00", 30 * 24 + 24 * n, period="2025-12-01T00:00:00Z") for n in range(28)),
        complete_hour=FIRST_HOUR + 62 * 24,
    )
    run(world, history)
    world.book(usage(200, "5.00", 61 * 24, period="2026-01-01T00:00:00Z"), complete_hour=FIRST_HOUR + 93 * 24)
    with read(world.engine) as connection:
        (last,) = [one for one in acts.of_kind(connection, acts.INVOICE) if one.content["previous"]]
        act = InvoiceAct(**{name: last.content[name] for name in InvoiceAct.__dataclass_fields__})
        loaded = invoicing.documents_of(connection, replace(act, since_period="2025-12-01T00:00:00Z"))
    assert len(loaded) == 28 + 1 + 2  # December's usage, January's, and two invoices
    (line,) = run(world, history)
    assert line.net == "5.00"
    stored, made = act_check.stored_and_made(world.engine)
    assert stored == made


def test_acts_hold_everything_their_documents_follow_from(world: World) -> None:
    history = configure(world)
    world.book(usage(1, "10.00", 0), complete_hour=FIRST_HOUR + 31 * 24)
    run(world, history)
    with read(world.engine) as connection:
        (act,) = acts.of_kind(connection, acts.INVOICE)
        text = connection.execute(
            select(tables.documents.c.json).where(tables.documents.c.key == act.content["document"])
        ).scalar()
    content = {name: value for name, value in act.content.items() if name not in ("posting", "document", "after")}
    again = invoice_of(InvoiceAct(**content), [orjson.loads(usage(1, "10.00", 0).to_json())])
    assert again is not None
    assert again.to_json() == text


def test_the_text_of_the_rule_is_on_the_lines_and_in_the_act(world: World) -> None:
    plain = configured()
    (made,) = plain.pop("entities")
    world.configure(made | {"posting_rules": {"invoice": {"text": "monthly usage"}}}, **plain)
    world.book(usage(1, "10.00", 0), complete_hour=FIRST_HOUR + 31 * 24)
    run(world, History(revisions.load_history(world.engine)))
    with read(world.engine) as connection:
        (act,) = acts.of_kind(connection, acts.INVOICE)
        query = select(tables.documents.c.json).where(tables.documents.c.key == act.content["document"])
        lines = orjson.loads(connection.execute(query).scalar_one())["lines"]
    assert act.content["text"] == "monthly usage"
    assert {line["text"] for line in lines} == {"monthly usage"}


def test_documents_of_acts_are_made_again_the_same_whatever_came_later(world: World) -> None:
    history = configure(world)
    world.book(usage(1, "10.00", 0), usage(2, "2.00", 30 * 24 + 30), complete_hour=FIRST_HOUR + 31 * 24)
    run(world, history)
    world.once()
    first = next(one for one in world.erp.booked.values() if one.kind == "invoice")
    names = ErpNames(ACCOUNTS, {"acme": "CUST-acme"})
    entities = {"US01": history.latest.entities["US01"]}
    reverse(world.engine, entities, names, first.key, actor="ann", reason="wrong address", now=world.clock.now())
    world.once()
    assert {one.kind for one in world.erp.booked.values()} == {"journal", "invoice", "credit_note"}
    world.book(usage(3, "1.00", 33 * 24, period="2025-12-01T00:00:00Z"), complete_hour=FIRST_HOUR + 62 * 24)
    (line,) = run(world, history)
    assert line.net == "13.00"  # what was taken back is billed again, with what came since
    stored, made = act_check.stored_and_made(world.engine)
    assert stored == made
    assert len(stored) == 3
    with write(world.engine) as connection:
        connection.execute(tables.documents.update().where(tables.documents.c.key == line.key).values(digest="0" * 64))
    stored, made = act_check.stored_and_made(world.engine)
    assert [one for one in stored if stored[one] != made[one]] == [line.key]


def test_a_fee_is_invoiced_when_it_is_due_whatever_of_it_is_revenue(world: World) -> None:
    history = configure(world)
    daily = ("recognition", "recognition", "contract_asset", "usage_revenue", "1.00")
    due = ("fee", "recognition", "unbilled_receivable", "contract_asset", "31.00")
    ahead = ("fee", "recognition", "unbilled_receivable", "contract_liability", "12.00")
    world.book(
        *(fee(day, 24 * day, daily) for day in range(5)),
        fee(40, 30 * 24 + 1, due),
        fee(41, 30 * 24 + 2, ahead),
        complete_hour=FIRST_HOUR + 31 * 24,
    )
    (line,) = run(world, history)
    assert line.net == "43.00"
    with read(world.engine) as connection:
        (roll,) = unbilled.roll_forward(unbilled.movements(connection), "2025-11", "2025-12", world.clock.now())
    assert (roll.accrued, roll.invoiced, roll.closing) == (Decimal("43.00"), Decimal("-43.00"), Decimal(0))


def test_a_dry_run_over_several_periods_counts_each_amount_once(world: World) -> None:
    history = configure(world)
    world.book(
        usage(1, "10.00", 0),
        usage(2, "5.00", 31 * 24, period="2025-12-01T00:00:00Z"),
        complete_hour=FIRST_HOUR + 62 * 24,
    )
    dry = [(one.net, one.period_start.month) for one in run(world, history, dry_run=True)]
    assert dry == [("10.00", 11), ("5.00", 12)]
    assert [(one.net, one.period_start.month) for one in run(world, history)] == dry
