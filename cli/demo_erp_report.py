"""What the ERP demo shows: Tryton's trial balance, invoices and unbilled accounts, and whether they agree."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from rich.console import Console

from cli.demo_erp_books import ErpInvoice, MoveLine, Unbilled
from cli.demo_report import Check, Report, checks_table, rows_table

ZERO = Decimal("0.00")


@dataclass(slots=True)
class ErpNumbers:
    """What was read at the end, from Tryton and from the commands that compare our ledger with it."""

    currency: str
    revenue_accounts: frozenset[str]
    receivable_account: str
    lines: Sequence[MoveLine]
    invoices: Sequence[ErpInvoice]
    unbilled: Mapping[str, Unbilled]
    """By party."""
    customers: Mapping[str, str]
    """Party by customer."""
    run: Sequence[Mapping[str, Any]]
    """What `meterbridge erp invoice` made."""
    not_invoiced: Mapping[str, Decimal]
    """By customer: what is unbilled in our ledger."""
    reconciled: Sequence[Mapping[str, Any]]
    """The checks of `meterbridge reconcile --erp`."""


@dataclass(slots=True)
class ErpReport:
    """Everything `meterbridge demo-erp` prints, as plain values."""

    month: str
    usage: Report
    customers: list[dict[str, Any]] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)

    @property
    def agrees(self) -> bool:
        """Tell whether every check holds."""
        return self.usage.agrees and all(check.holds for check in self.checks)

    @property
    def broken(self) -> list[Check]:
        """Return the checks that do not hold."""
        return [check for check in (*self.usage.checks, *self.checks) if not check.holds]


def customer_rows(numbers: ErpNumbers) -> list[dict[str, Any]]:
    """Return one row per customer with usage, cut at the invoice, with the invoice's tax and total."""
    rows = []
    for customer, party in numbers.customers.items():
        one = numbers.unbilled.get(party)
        if one is None:
            continue
        bills = [bill for bill in numbers.invoices if bill.party == party]
        rows.append(
            {
                "customer": customer,
                "accrued": one.accrued,
                "invoiced": one.invoiced,
                "unbilled": one.open_of_invoiced,
                "tax": _sum(bill.tax for bill in bills),
                "to pay": _sum(bill.total for bill in bills),
                "later": one.later,
                "currency": numbers.currency,
            }
        )
    return rows


def checks(numbers: ErpNumbers) -> list[Check]:
    """Compare Tryton's trial balance, invoices and unbilled accounts with each other and with our ledger."""
    lines, bills = numbers.lines, numbers.invoices
    posted = [bill for bill in bills if bill.state in {"posted", "paid"} and bill.number]
    receivable = _sum(line.amount for line in lines if line.account == numbers.receivable_account)
    again = [line for line in lines if line.day is None and line.account in numbers.revenue_accounts]
    found = [
        _check("trial balance: debits = credits", _sum(one.debit for one in lines), _sum(one.credit for one in lines)),
        Check("invoices made by the run = posted in Tryton", f"{len(numbers.run)}", f"{len(posted)}"),
        _check(
            "net of the run's invoices = net in Tryton",
            _sum(Decimal(one["net"]) for one in numbers.run),
            _sum(bill.net for bill in posted),
        ),
        _check("net and tax of the invoices = receivable", _sum(bill.net + bill.tax for bill in posted), receivable),
        _check("revenue that invoices credited again = none", ZERO, _sum(-line.amount for line in again)),
    ]
    for customer, party in numbers.customers.items():
        one = numbers.unbilled.get(party)
        if one is None:
            continue
        name = f"{customer}: unbilled of what was invoiced"
        found.append(_check(name, ZERO, one.open_of_invoiced))
        name = f"{customer}: unbilled in our ledger = in Tryton"
        found.append(_check(name, numbers.not_invoiced.get(customer, ZERO), one.balance))
    accrued = sorted(party for party, one in numbers.unbilled.items() if one.accrued)
    billed = sorted({bill.party for bill in posted})
    found.append(Check("customers with something due = customers invoiced", f"{len(accrued)}", f"{len(billed)}"))
    holding = [one for one in numbers.reconciled if not one["broken"]]
    name = "checks of `reconcile --erp` = those that hold"
    found.append(Check(name, f"{len(numbers.reconciled)}", f"{len(holding)}"))
    return found


def _sum(amounts: Iterable[Decimal]) -> Decimal:
    return sum(amounts, ZERO)


def _check(name: str, left: Decimal, right: Decimal) -> Check:
    # Nothing is rounded, so that what is apart by a thousandth is apart; adding zero takes the sign from -0.00.
    return Check(name, f"{left + ZERO:,f}", f"{right + ZERO:,f}")


def show(console: Console, report: ErpReport) -> None:
    """Print the report for a person."""
    usage = report.usage
    console.print(rows_table("Usage nobody pays for yet", usage.unrated))
    console.print(rows_table("Amounts per customer, rated (both months)", usage.amounts))
    currency = report.customers[0]["currency"] if report.customers else ""
    title = f"Unbilled of {report.month} in Tryton, invoiced, and left for later ({currency})"
    console.print(rows_table(title, report.customers, hidden=("currency",)))
    console.print(rows_table(usage.books_title, usage.books))
    console.print(checks_table((*usage.checks, *report.checks)))
