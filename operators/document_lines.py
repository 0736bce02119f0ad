"""Lines of a document: runs of a charge's rows, each as a debit and a credit in cents."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import timedelta
from decimal import Decimal
from functools import lru_cache
from itertools import groupby
from typing import Any, Final

from config.account_roles import UNBILLED
from config.posting_rules import rules_of
from core.errors import InvariantViolation
from core.frames import RATED_SCHEMA
from operators.cents import cents
from operators.posting_rules import DEFERRAL, RECOGNITION, Entry, Roles, entries
from operators.rate_periods import COMMITMENT
from operators.rate_terms import TermsIndex, moment
from operators.rating.schema import Flat

_KINDS: Final = (
    *("usage", "late_usage", "void", "tier_repricing", "price_change", "fee", "true_up", "breakage"),
    *("recognition", "drawdown"),
)
_KIND_ORDER: Final = {kind: place for place, kind in enumerate(_KINDS)}


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
    revenue_after: Decimal
    currency: str
    config_version: str
    status: str
    version: int
    tenant: str

    def plain(self) -> list[Any]:
        """Return the values in the order of RATED_SCHEMA."""
        return [getattr(self, name) for name in _ROW_FIELDS]

    @property
    def covered(self) -> Decimal:
        """Return which part of the difference a `drawdown` row books in its place."""
        return self.amount_after - self.amount_before - self.amount

    @property
    def revenue_before(self) -> Decimal:
        """Return the revenue to date before this row."""
        return self.revenue_after - self.revenue_amount - self.covered

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
    text: str = ""
    """That of the posting rule; a line without one has no such field, as before there were any."""

    def plain(self) -> dict[str, Any]:
        """Return the line as a mapping."""
        return {name: getattr(self, name) for name in (_LINE_FIELDS if self.text else _FIELDS_WITHOUT_TEXT)}

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> "DocumentLine":
        """Read a line back from its JSON."""
        return cls(**plain | {name: Decimal(plain[name]) for name in _DECIMALS})


_LINE_FIELDS: Final = tuple(field.name for field in fields(DocumentLine))
_FIELDS_WITHOUT_TEXT: Final = tuple(name for name in _LINE_FIELDS if name != "text")
_DECIMALS: Final = (
    "amount",
    "amount_exact",
    "cumulative_before",
    "cumulative_after",
    "rounded_before",
    "rounded_after",
    "quantity",
)


@dataclass(frozen=True, slots=True)
class _Book:
    """How a chain is booked: what its charge or commitment says, and the roles of its contract."""

    unit: str
    dimensions: dict[str, str]
    tax_category: str
    roles: Roles


def lines_of(rows: list[Row], index: TermsIndex) -> Iterator[DocumentLine]:
    """Yield a debit and a credit per run of a chain's rows: same line kind and original period, no gap between.

    Where revenue is not the amount a run has more than one pair; only its first one carries quantity and events.
    """
    for _, chain in groupby(rows, key=Row.chain):
        members = list(chain)
        book = _book(members[0], index)
        run: list[Row] = []
        for row in members:
            if run and not _continues(run[-1], row):
                yield from _lines(run, book)
                run = []
            run.append(row)
        yield from _lines(run, book)


def _continues(last: Row, row: Row) -> bool:
    same = (last.line_kind, last.original_period) == (row.line_kind, row.original_period)
    return same and (last.amount_after, last.revenue_after) == (row.amount_before, row.revenue_before)


def _book(row: Row, index: TermsIndex) -> _Book:
    timeline = index.timelines.get((row.customer, row.contract))
    if timeline is not None:
        accounts, rules = timeline.entity.accounts, rules_of(timeline.entity.posting_rules)
        unbilled = timeline.contract.unbilled_kind
        ahead = rules[RECOGNITION].debit
        asset = ahead if ahead != UNBILLED and ahead in accounts else unbilled
        one = timeline.commitments.get(row.charge.removeprefix(COMMITMENT))
        if row.charge.startswith(COMMITMENT) and one is not None:
            shortfall = rules["breakage" if row.line_kind == "breakage" else "true_up"].credit
            revenue = shortfall if shortfall in accounts else rules["usage"].credit
            return _Book("", {}, "", Roles(unbilled, asset, revenue, rules))
        start = moment(0) + timedelta(microseconds=row.period_start_us)
        charge = index.pricings.of(timeline.contract, row.plan_version, start).price(row.charge, row.price_row)
        if charge is not None:
            accounting = charge.accounting
            role: str = accounting.revenue_role or ""
            if row.line_kind == RECOGNITION and not role and isinstance(charge, Flat):
                role = rules["fee"].credit
            dimensions = {name: values[0] for name, values in charge.filter.items() if len(values) == 1}
            roles = Roles(unbilled, asset, role, rules)
            return _Book(charge.unit, dimensions, accounting.tax_category, roles)
    message = (
        f"rated row of customer {row.customer}, contract {row.contract}, charge {row.charge}: "
        f"not in the revision known at booked hour {row.booked_hour}"
    )
    raise InvariantViolation(message)


def _lines(run: list[Row], book: _Book) -> Iterator[DocumentLine]:
    first, last = run[0], run[-1]
    billed = _Position.of(first.amount_before, last.amount_after, first.currency)
    earned = _Position.of(first.revenue_before, last.revenue_after, first.currency)
    covered = cents(sum((row.covered for row in run), Decimal(0)), first.currency)
    amount, revenue = billed.change - covered, earned.change - covered
    deferred = billed.rounded_before - earned.rounded_before
    quantity = sum((row.quantity for row in run), Decimal(0))
    events = sum(row.events for row in run)
    if not (amount or revenue or quantity or events or billed.moves or earned.moves):
        return
    exact = {first.line_kind: sum((row.amount for row in run), Decimal(0))}
    exact[RECOGNITION] = sum((row.revenue_amount for row in run), Decimal(0))
    for entry in entries(first.line_kind, amount, revenue, deferred, roles_of=book.roles):
        position = earned if entry.kind == RECOGNITION else billed
        yield from _pair(run, book, entry, position, exact.pop(entry.kind, Decimal(0)), quantity, events)
        quantity, events = Decimal(0), 0


@dataclass(frozen=True, slots=True)
class _Position:
    """A cumulative amount before and after a run, exact and rounded."""

    before: Decimal
    after: Decimal
    rounded_before: Decimal
    rounded_after: Decimal

    @classmethod
    def of(cls, before: Decimal, after: Decimal, currency: str) -> "_Position":
        return cls(before, after, cents(before, currency), cents(after, currency))

    @property
    def change(self) -> Decimal:
        return self.rounded_after - self.rounded_before

    @property
    def moves(self) -> bool:
        return self.before != self.after


def _pair(
    run: list[Row],
    book: _Book,
    entry: Entry,
    position: _Position,
    exact: Decimal,
    quantity: Decimal,
    events: int,
) -> Iterator[DocumentLine]:
    """Yield both sides of an entry; a negative one with its sides swapped."""
    first = run[0]
    rules = book.roles.rules
    near = (entry.debit, entry.kind, rules[entry.kind].text)
    far = (entry.credit, entry.credit_kind, rules[DEFERRAL if entry.is_deferred else entry.kind].text)
    sides = (near, far) if entry.amount >= 0 else (far, near)
    for side, (role, kind, text) in zip(("debit", "credit"), sides, strict=True):
        yield DocumentLine(
            kind=kind,
            account_role=role,
            side=side,
            amount=abs(entry.amount),
            amount_exact=exact,
            swapped=entry.amount < 0,
            cumulative_before=position.before,
            cumulative_after=position.after,
            rounded_before=position.rounded_before,
            rounded_after=position.rounded_after,
            quantity=quantity,
            unit=book.unit,
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
            dimensions=book.dimensions,
            tax_category=book.tax_category,
            text=text,
        )


@lru_cache(maxsize=65_536)
def _hour(hour: int) -> str:
    return f"{moment(hour * 60):%Y-%m-%dT%H:%M:%SZ}"


@lru_cache(maxsize=4096)
def _time(microseconds: int) -> str:
    return f"{moment(0) + timedelta(microseconds=microseconds):%Y-%m-%dT%H:%M:%SZ}"
