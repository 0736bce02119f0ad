"""Postings for tests of the adapters."""

from datetime import date
from decimal import Decimal
from typing import Any

from sinks.erp.port import Posting, PostingLine
from tests.sinks.ledger.samples import HOUR, key


def lines(amount: str = "12.34", count: int = 1) -> tuple[PostingLine, ...]:
    """Return `count` debits of that amount and one credit of their sum."""
    debits = tuple(
        PostingLine("unbilled_receivable", "1150", "debit", Decimal(amount), dimensions=(("charge", f"c{number}"),))
        for number in range(count)
    )
    return (*debits, PostingLine("usage_revenue", "4001", "credit", Decimal(amount) * count))


def posting(number: int = 1, amount: str = "12.34", **changes: Any) -> Posting:
    """Return a balanced posting."""
    values: dict[str, Any] = {
        "key": key(number),
        "entity": "US01",
        "company": "US01",
        "currency": "USD",
        "accounting_period": "2025-11",
        "posting_date": date(2025, 11, 24),
        "booked_hour": HOUR,
        "kind": "journal",
        "description": f"Usage {number}",
        "lines": lines(amount),
        "document_keys": (key(number + 1000),),
    }
    return Posting(**(values | changes))
