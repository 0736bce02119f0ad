"""What the ERP demo reads from Tryton: move lines and invoices as they stand there, summed here.

Nothing of our own module is asked for but the external id and day, which tell journals from invoices.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any, Final

from cli.demo_report import Books
from sinks.erp.tryton_client import TrytonClient

_LINE_FIELDS: Final = [
    "account.code",
    "account.name",
    "party.code",
    "debit",
    "credit",
    "move.external_day",
    "move.period.start_date",
]
_INVOICE_FIELDS: Final = ["number", "state", "party.code", "untaxed_amount", "tax_amount", "total_amount"]


@dataclass(frozen=True, slots=True)
class MoveLine:
    """One posted line. `day` is the booked day of a journal of ours; an invoice's move has none."""

    account: str
    name: str
    party: str
    debit: Decimal
    credit: Decimal
    period_start: date
    day: date | None

    @property
    def amount(self) -> Decimal:
        """Return the amount, debit positive."""
        return self.debit - self.credit


@dataclass(frozen=True, slots=True)
class ErpInvoice:
    """One customer invoice as Tryton computed it."""

    number: str
    state: str
    party: str
    net: Decimal
    tax: Decimal
    total: Decimal


def move_lines(client: TrytonClient) -> list[MoveLine]:
    """Read every posted line of the company.

    :raises Unreachable: Tryton does not answer.
    """
    rows = client.search("account.move.line", [["move_state", "=", "posted"]], _LINE_FIELDS)
    return [
        MoveLine(
            account=row["account"]["code"] or "",
            name=row["account"]["name"],
            party=(row["party"] or {}).get("code") or "",
            debit=_decimal(row["debit"]),
            credit=_decimal(row["credit"]),
            period_start=_day(row["move"]["period"]["start_date"]),
            day=_day(row["move"]["external_day"]) if row["move"]["external_day"] else None,
        )
        for row in rows
    ]


def invoices(client: TrytonClient) -> list[ErpInvoice]:
    """Read every customer invoice of the company.

    :raises Unreachable: Tryton does not answer.
    """
    rows = client.search("account.invoice", [["type", "=", "out"]], _INVOICE_FIELDS)
    return [
        ErpInvoice(
            number=row["number"] or "",
            state=row["state"],
            party=row["party"]["code"],
            net=_decimal(row["untaxed_amount"]),
            tax=_decimal(row["tax_amount"]),
            total=_decimal(row["total_amount"]),
        )
        for row in rows
    ]


def _decimal(value: Mapping[str, str]) -> Decimal:
    return Decimal(value["decimal"])


def _day(value: Mapping[str, int]) -> date:
    return date(value["year"], value["month"], value["day"])


def trial_balance(lines: Iterable[MoveLine], currency: str, revenue_accounts: frozenset[str]) -> Books:
    """Return every account with its debits, credits and balance."""
    rows: dict[str, dict[str, Any]] = {}
    for line in sorted(lines, key=lambda one: one.account):
        empty = {"account": line.account, "name": line.name, "currency": currency}
        row = rows.setdefault(line.account, empty | dict.fromkeys(("debit", "credit", "balance"), Decimal(0)))
        row["debit"] += line.debit
        row["credit"] += line.credit
        row["balance"] += line.amount
    return Books("Trial balance (Tryton)", list(rows.values()), revenue_accounts)


@dataclass(slots=True)
class Unbilled:
    """One customer's unbilled account in Tryton, cut at the invoice."""

    accrued: Decimal = Decimal(0)
    """Usage of the invoiced period that was booked before the cut-off."""
    invoiced: Decimal = Decimal(0)
    """What the invoices' moves credited."""
    later: Decimal = Decimal(0)
    """Everything else: the next invoice's."""

    @property
    def open_of_invoiced(self) -> Decimal:
        """Return what is left of what was invoiced."""
        return self.accrued - self.invoiced

    @property
    def balance(self) -> Decimal:
        """Return the balance of the account."""
        return self.open_of_invoiced + self.later


def unbilled_by_party(lines: Iterable[MoveLine], account: str, period_start: date, cutoff: date) -> dict[str, Unbilled]:
    """Return the unbilled account by party; `cutoff` is the first day whose bookings the invoices did not take."""
    found: dict[str, Unbilled] = {}
    for line in lines:
        if line.account != account:
            continue
        one = found.setdefault(line.party, Unbilled())
        if line.day is None:
            one.invoiced -= line.amount
        elif line.period_start == period_start and line.day < cutoff:
            one.accrued += line.amount
        else:
            one.later += line.amount
    return found
