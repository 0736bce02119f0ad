"""Lines of a document: runs of a charge's rows, each as a debit and a credit in cents."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import timedelta
from decimal import ROUND_HALF_UP, Context, Decimal
from functools import lru_cache
from itertools import groupby
from typing import Any, Final

from core.currencies import exponent
from core.errors import InvariantViolation
from core.frames import RATED_SCHEMA
from operators.posting_rules import roles
from operators.rate_terms import TermsIndex, moment
from operators.rating.charges import Charge

_KIND_ORDER: Final = {
    kind: place for place, kind in enumerate(("usage", "late_usage", "void", "tier_repricing", "fee", "true_up"))
}


@dataclass(frozen=True, slots=True)
class Row:
    """One rated row, by the columns of RATED_SCHEMA."""

    customer: str
    contract: str
    entity: str
    plan: str
    plan_version: int
    charge: str
    price_row: str
    meter: str
    period_start_us: int
    usage_hour: int
    booked_hour: int
    accounting_period: str
    original_period: str
    line_kind: str
    quantity: Decimal
    events: int
    amount: Decimal
    revenue_amount: Decimal
    amount_before: Decimal
    amount_after: Decimal
    currency: str
    config_version: str
    status: str
    version: int
    tenant: str

    def plain(self) -> list[Any]:
        """Return the values in the order of RATED_SCHEMA."""
        return [getattr(self, name) for name in _ROW_FIELDS]

    def chain(self) -> tuple[str, int, str, str, int]:
        """Return what is rounded together, within one contract."""
        return self.plan, self.plan_version, self.charge, self.price_row, self.period_start_us

    def chain_order(self) -> tuple[Any, ...]:
        """Return the order in which rows were rated, within one contract and booked hour."""
        return (*self.chain(), self.usage_hour, _KIND_ORDER[self.line_kind], self.original_period)


_ROW_FIELDS: Final = tuple(RATED_SCHEMA)


@dataclass(frozen=True, slots=True)
class DocumentLine:
    """One side of an entry. `amount` is not negative; `swapped` says that the entry as a whole is a credit note.

    Both sides of an entry carry the same quantity and cumulatives: count them on one side only.
    """

    kind: str
    account_role: str
    side: str
    amount: Decimal
    amount_exact: Decimal
    swapped: bool
    cumulative_before: Decimal
    cumulative_after: Decimal
    rounded_before: Decimal
    rounded_after: Decimal
    quantity: Decimal
    unit: str
    events: int
    customer: str
    contract: str
    plan: str
    plan_version: int
    charge: str
    price_row: str
    meter: str
    period_start: str
    service_from: str
    service_to: str
    original_period: str
    dimensions: dict[str, str]
    tax_category: str

    def plain(self) -> dict[str, Any]:
        """Return the line as a mapping."""
        return {name: getattr(self, name) for name in _LINE_FIELDS}

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> "DocumentLine":
        """Read a line back from its JSON."""
        return cls(**plain | {name: Decimal(plain[name]) for name in _DECIMALS})


_LINE_FIELDS: Final = tuple(field.name for field in fields(DocumentLine))
_DECIMALS: Final = (
    "amount",
    "amount_exact",
    "cumulative_before",
    "cumulative_after",
    "rounded_before",
    "rounded_after",
    "quantity",
)


def cents(amount: Decimal, currency: str) -> Decimal:
    """Round an amount half-up, ties away from zero, to the currency's exponent."""
    return amount.quantize(_unit(currency), ROUND_HALF_UP, _WIDE)


_WIDE: Final = Context(prec=60)


@lru_cache(maxsize=1024)
def _unit(currency: str) -> Decimal:
    return Decimal(1).scaleb(-exponent(currency))


def lines_of(rows: list[Row], index: TermsIndex) -> Iterator[DocumentLine]:
    """Yield a debit and a credit per run of a chain's rows: same line kind and original period, no gap between."""
    for _, chain in groupby(rows, key=Row.chain):
        members = list(chain)
        charge, unbilled_role = _terms(members[0], index)
        run: list[Row] = []
        for row in members:
            if run and not _continues(run[-1], row):
                yield from _entry(run, charge, unbilled_role)
                run = []
            run.append(row)
        yield from _entry(run, charge, unbilled_role)


def _continues(last: Row, row: Row) -> bool:
    same = (last.line_kind, last.original_period) == (row.line_kind, row.original_period)
    return same and last.amount_after == row.amount_before


def _terms(row: Row, index: TermsIndex) -> tuple[Charge, str]:
    timeline = index.timelines.get((row.customer, row.contract))
    if timeline is not None:
        contract = timeline.contract
        for charge in index.pricings.of(contract, row.plan_version).charges:
            if charge.id == row.charge:
                return charge, contract.unbilled_kind
    message = (
        f"rated row of customer {row.customer}, contract {row.contract}, charge {row.charge}: "
        f"not in the revision known at booked hour {row.booked_hour}"
    )
    raise InvariantViolation(message)


def _entry(run: list[Row], charge: Charge, unbilled_role: str) -> Iterator[DocumentLine]:
    first, last = run[0], run[-1]
    before, after = cents(first.amount_before, first.currency), cents(last.amount_after, first.currency)
    amount = after - before
    quantity = sum((row.quantity for row in run), Decimal(0))
    events = sum(row.events for row in run)
    if not (amount or quantity or events or first.amount_before != last.amount_after):
        return
    revenue_role = charge.accounting.revenue_role or ""
    debit, credit = roles(first.line_kind, amount, unbilled_role=unbilled_role, revenue_role=revenue_role)
    for side, role in (("debit", debit), ("credit", credit)):
        yield DocumentLine(
            kind=first.line_kind,
            account_role=role,
            side=side,
            amount=abs(amount),
            amount_exact=last.amount_after - first.amount_before,
            swapped=amount < 0,
            cumulative_before=first.amount_before,
            cumulative_after=last.amount_after,
            rounded_before=before,
            rounded_after=after,
            quantity=quantity,
            unit=charge.unit,
            events=events,
            customer=first.customer,
            contract=first.contract,
            plan=first.plan,
            plan_version=first.plan_version,
            charge=first.charge,
            price_row=first.price_row,
            meter=first.meter,
            period_start=_time(first.period_start_us),
            service_from=_hour(min(row.usage_hour for row in run)),
            service_to=_hour(max(row.usage_hour for row in run) + 1),
            original_period=first.original_period,
            dimensions={name: values[0] for name, values in charge.filter.items() if len(values) == 1},
            tax_category=charge.accounting.tax_category,
        )


@lru_cache(maxsize=65_536)
def _hour(hour: int) -> str:
    return f"{moment(hour * 60):%Y-%m-%dT%H:%M:%SZ}"


@lru_cache(maxsize=4096)
def _time(microseconds: int) -> str:
    return f"{moment(0) + timedelta(microseconds=microseconds):%Y-%m-%dT%H:%M:%SZ}"
