"""Invoices in Tryton: they credit the unbilled account, Tryton computes the taxes, each key is invoiced once."""

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from sinks.erp.port import Conflict, Invoice, InvoiceLine, Posted, Posting, PostingLine, Rejected
from sinks.ledger.read_back import by_account
from tests.sinks.erp.contract.harness import ErpUnderTest, day_window, fresh_hour
from tests.sinks.erp.contract.tryton_erp import TrytonErp

pytestmark = pytest.mark.timeout(900)  # the first test that needs Tryton installs and sets it up


@pytest.fixture
def tryton(erps: Callable[[str], ErpUnderTest]) -> TrytonErp:
    erp = erps("tryton")
    assert isinstance(erp, TrytonErp)
    return erp


def line(amount: str, category: str = "saas") -> InvoiceLine:
    return InvoiceLine("Input, 1,200 tokens", Decimal(amount), "1150", category, date(2025, 11, 1), date(2025, 11, 30))


def invoice(erp: TrytonErp, *lines: InvoiceLine, **changes: Any) -> Posting:
    """Return an invoice, or a credit note if its lines are negative, with its journal without taxes beside it."""
    net = sum((one.amount for one in lines), Decimal(0))
    sides: tuple[Any, Any] = ("debit", "credit") if net >= 0 else ("credit", "debit")
    pair = (
        PostingLine("accounts_receivable", "1200", sides[0], abs(net), customer="acme", party="CUST-0001"),
        PostingLine("unbilled_receivable", "1150", sides[1], abs(net), customer="acme", party="CUST-0001"),
    )
    made = {"kind": "invoice" if net >= 0 else "credit_note", "extra": {"state": "posted"}}
    return erp.posting(lines=pair, invoice=Invoice("CUST-0001", "REFERENCE", lines), **(made | changes))


def test_an_invoice_is_posted_with_its_taxes_once(tryton: TrytonErp) -> None:
    adapter = tryton.adapter(timeout_s=60)
    assert adapter.capabilities.invoices
    hour = fresh_hour()
    posting = invoice(tryton, line("60.05"), line("39.95"), line("5.00", "exempt"), booked_hour=hour)
    before = adapter.balances()
    assert adapter.preflight([posting]) == []
    (outcome,) = adapter.submit([posting], "a")
    assert isinstance(outcome, Posted), outcome
    assert outcome.tax == Decimal("10.00")
    assert adapter.submit([posting], "b") == [replace(outcome, replayed=True)]
    (entry,) = adapter.lookup([posting.key])[posting.key]
    assert (entry.number, entry.digest, entry.tax) == (outcome.number, posting.digest, Decimal("10.00"))
    ours = by_account(adapter.expected(posting))
    theirs = by_account(entry.lines)
    assert ours == {"1200": Decimal(105), "1150": Decimal(-105)}
    assert (theirs["1200"], theirs["1150"]) == (Decimal(115), Decimal(-105))
    assert sum(theirs.values()) == 0
    assert [one.key for one in adapter.read_back(day_window(hour))] == [posting.key]
    after = adapter.balances()
    for place, grown in ((("1200", "USD"), Decimal(115)), (("1150", "USD"), Decimal(-105)), (("4001", "USD"), 0)):
        assert after.get(place, Decimal(0)) - before.get(place, Decimal(0)) == grown  # revenue is not credited again
    changed = replace(posting, description="other")
    assert adapter.submit([changed], "c") == [Conflict(outcome.number, posting.digest)]


def test_a_batch_of_journals_and_invoices_keeps_its_order(tryton: TrytonErp) -> None:
    adapter = tryton.adapter(timeout_s=60)
    bad = invoice(tryton, line("5.00", "unknown"))
    nobody = invoice(tryton, line("5.00"))
    nobody = replace(nobody, invoice=Invoice("NOBODY", "R", (line("5.00"),)))
    batch = [tryton.posting(), invoice(tryton, line("7.00")), bad, nobody, tryton.posting()]
    outcomes = adapter.submit(batch, "a")
    assert [getattr(one, "reason", type(one).__name__) for one in outcomes] == [
        "Posted", "Posted", "missing_tax_mapping", "unknown_customer", "Posted",
    ]  # fmt: skip
    assert isinstance(outcomes[2], Rejected)
    assert "erp.mappings.taxes" in outcomes[2].text
    assert {issue.key: issue.reason for issue in adapter.preflight(batch)} == {
        bad.key: "missing_tax_mapping",
        nobody.key: "unknown_customer",
    }


def test_mapped_tax_codes_go_before_the_adapters_option(tryton: TrytonErp) -> None:
    adapter = tryton.adapter(timeout_s=60, taxes={"saas": "Wrong", "exempt": "Wrong"})
    plain = invoice(tryton, line("60.00"), line("5.00", "exempt"))
    assert plain.invoice is not None
    coded = replace(plain, invoice=replace(plain.invoice, tax_codes=("Tax 0.10", "")))
    gone = replace(coded, key=tryton.posting().key, invoice=replace(plain.invoice, tax_codes=("Tax 0.99", "")))
    missing = replace(coded, key=tryton.posting().key, invoice=replace(plain.invoice, tax_codes=("Tax 0.10", None)))
    issues = {issue.key: issue for issue in adapter.preflight([coded, gone, missing])}
    assert {key: issue.reason for key, issue in issues.items()} == {
        gone.key: "unknown_tax",
        missing.key: "missing_tax_mapping",
    }
    assert "no one tax named 'Tax 0.99'" in issues[gone.key].text
    (outcome,) = adapter.submit([coded], "a")
    assert isinstance(outcome, Posted), outcome
    assert outcome.tax == Decimal("6.00")


def test_a_credit_note_gives_back_with_its_tax_and_names_the_invoice(tryton: TrytonErp) -> None:
    adapter = tryton.adapter(timeout_s=60)
    original = invoice(tryton, line("50.00"))
    (first,) = adapter.submit([original], "a")
    assert isinstance(first, Posted), first
    posting = invoice(tryton, line("-20.00"))
    assert posting.invoice is not None
    posting = replace(posting, invoice=replace(posting.invoice, credits=original.key))
    (outcome,) = adapter.submit([posting], "a")
    assert isinstance(outcome, Posted), outcome
    found = tryton.sql("SELECT description FROM account_invoice WHERE external_id = %s", posting.key)
    assert found == [(f"{posting.description}; credits invoice {first.number}",)]
    assert outcome.tax == Decimal("-2.00")
    (entry,) = adapter.lookup([posting.key])[posting.key]
    assert (by_account(entry.lines)["1200"], by_account(entry.lines)["1150"]) == (Decimal(-22), Decimal(20))


def test_a_draft_is_left_to_a_person_and_keeps_its_name(tryton: TrytonErp) -> None:
    adapter = tryton.adapter(timeout_s=60)
    posting = invoice(tryton, line("30.00"), extra={"state": "draft"})
    (outcome,) = adapter.submit([posting], "a")
    assert isinstance(outcome, Posted), outcome
    found = "SELECT id, state, move FROM account_invoice WHERE external_id = %s"
    ((number, state, move),) = tryton.sql(found, posting.key)
    assert (state, move, outcome.number) == ("draft", None, f"draft {number}")
    status, body = tryton.call("POST", f"account.invoice/{number}/post", {})
    assert status == 200, body
    assert tryton.sql(found, posting.key)[0][1] == "posted"
    (entry,) = adapter.lookup([posting.key])[posting.key]
    assert (entry.number, entry.tax) == (outcome.number, Decimal("3.00"))


def test_a_lost_answer_makes_no_second_invoice(tryton: TrytonErp) -> None:
    posting = invoice(tryton, line("12.00"))
    tryton.faults("lose_answer")
    tryton.adapter(timeout_s=60).submit([posting], "a")
    (outcome,) = tryton.adapter(timeout_s=60).submit([posting], "b")
    assert isinstance(outcome, Posted)
    assert outcome.replayed
    assert tryton.sql("SELECT count(*) FROM account_invoice WHERE external_id = %s", posting.key) == [(1,)]
