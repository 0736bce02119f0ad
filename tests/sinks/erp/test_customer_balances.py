"""Balances by customer, as each ERP names customers: they grow by what is booked, and a day ends them."""

from datetime import timedelta
from decimal import Decimal

import pytest

from sinks.erp.port import Posted, PostingLine
from tests.sinks.erp.conftest import Erps
from tests.sinks.erp.contract.harness import ErpUnderTest

NAMES = {"journal": "acme", "rest-plain": "CUST-0001", "tryton": "CUST-0001", "tryton-vanilla": "CUST-0001"}
CHARGE = (("charge", "input"),)


def receivable(amount: str) -> tuple[PostingLine, PostingLine]:
    """Return a debit that names the customer, and a credit that does not."""
    role, code, value = "accounts_receivable", "1200", Decimal(amount)
    return (
        PostingLine(role, code, "debit", value, customer="acme", party="CUST-0001", dimensions=CHARGE),
        PostingLine("usage_revenue", "4001", "credit", value, dimensions=CHARGE),
    )


def check(erp: ErpUnderTest, name: str) -> None:
    adapter = erp.adapter(timeout_s=60)
    posting = erp.posting(lines=receivable("12.34"))
    (debit, _), (credit, _) = adapter.expected(posting)
    before, earlier = posting.posting_date, posting.posting_date - timedelta(days=1)
    was = {until: adapter.customer_balances({debit}, until) or {} for until in (None, before, earlier)}
    (outcome,) = adapter.submit([posting], "a")
    assert isinstance(outcome, Posted), outcome
    named = adapter.named_customer(posting, posting.lines[0])
    assert named == name
    place = (debit, "USD", named)
    for until, grown in ((None, "12.34"), (before, "12.34"), (earlier, "0")):
        found = adapter.customer_balances({debit}, until)
        assert found is not None
        assert {account for account, _, _ in found} <= {debit}
        assert found.get(place, Decimal(0)) - was[until].get(place, Decimal(0)) == Decimal(grown)
    everyone = adapter.customer_balances({debit, credit}, None)
    assert everyone is not None
    totals: dict[tuple[str, str], Decimal] = {}
    for (account, currency, _), amount in everyone.items():
        totals[account, currency] = totals.get((account, currency), Decimal(0)) + amount
    balances = adapter.balances()
    assert totals == {place: balances[place] for place in totals}


@pytest.mark.parametrize("name", ["journal", "rest-plain"])
def test_they_grow_by_what_is_booked(erps: Erps, name: str) -> None:
    check(erps(name), NAMES[name])


@pytest.mark.timeout(900)  # the first test that needs Tryton installs and sets it up
@pytest.mark.parametrize("name", ["tryton", pytest.param("tryton-vanilla", marks=pytest.mark.slow)])
def test_tryton_has_the_party_where_the_account_requires_one(erps: Erps, name: str) -> None:
    erp = erps(name)
    check(erp, NAMES[name])
    posting = erp.posting()
    line = posting.lines[0]
    assert erp.adapter(timeout_s=60).named_customer(posting, line) == ""


def test_an_erp_without_the_option_cannot_be_asked(erps: Erps) -> None:
    adapter = erps("rest-xero").adapter()
    posting = erps("rest-xero").posting(lines=receivable("1.00"))
    assert adapter.customer_balances({"1200"}, None) is None
    assert adapter.named_customer(posting, posting.lines[0]) == ""  # its lines have no customer
