"""Account balances read from the journal's files: what the books say, independent of the ledger database."""

from collections import defaultdict
from collections.abc import Collection
from datetime import date
from decimal import Decimal, localcontext
from pathlib import Path

from sinks.erp.journal_format import read_entries, read_legs

DIGITS = 60


def balances(books: Path) -> dict[tuple[str, str], Decimal]:
    """Return the balance by (account, currency) over all day files below `books`; debits are positive."""
    totals: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    with localcontext(prec=DIGITS):
        for path in sorted(books.rglob("[0-9]*.beancount")):
            with path.open(encoding="utf-8") as file:
                for entry in read_entries(file):
                    for account, amount in entry.lines:
                        totals[account, entry.currency] += amount
    return dict(totals)


def all_balances(books: Path) -> dict[tuple[str, str], Decimal]:
    """Return the balance by (account, currency) of every transaction in the day files, whoever wrote it."""
    totals: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    with localcontext(prec=DIGITS):
        for path in sorted(books.rglob("[0-9]*.beancount")):
            with path.open(encoding="utf-8") as file:
                for leg in read_legs(file):
                    totals[leg.account, leg.currency] += leg.amount
    return dict(totals)


def customer_balances(
    books: Path, accounts: Collection[str], until: date | None
) -> dict[tuple[str, str, str], Decimal]:
    """Return the balance of these accounts by (account, currency, customer), of transactions until that day."""
    totals: dict[tuple[str, str, str], Decimal] = defaultdict(Decimal)
    with localcontext(prec=DIGITS):
        for path in sorted(books.rglob("[0-9]*.beancount")):
            with path.open(encoding="utf-8") as file:
                for leg in read_legs(file):
                    if leg.account in accounts and (until is None or leg.posting_date <= until):
                        totals[leg.account, leg.currency, leg.customer] += leg.amount
    return dict(totals)
