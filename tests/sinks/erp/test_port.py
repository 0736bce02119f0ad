"""Postings as text and back."""

from datetime import date
from decimal import Decimal

from sinks.erp.port import Invoice, InvoiceLine, Posting
from tests.sinks.erp.samples import posting


def test_a_posting_comes_back_from_its_json_with_its_invoice() -> None:
    line = InvoiceLine("Input, 1,200 tokens", Decimal("12.34"), "1150", "saas", date(2025, 11, 1), date(2025, 11, 30))
    invoice = Invoice("CUST-1", "REF", (line, line), credits="KEY")
    for one in (posting(1), posting(2, kind="credit_note", invoice=invoice)):
        back = Posting.from_json(one.to_json())
        assert (back, back.digest) == (one, one.digest)
    assert invoice.net == Decimal("24.68")
    assert posting(2, invoice=invoice).digest != posting(2).digest
