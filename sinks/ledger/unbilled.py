"""Control reports over the subledger: unbilled roll-forward and ageing, prior-period corrections. Exact.

Roll-forward per customer: opening + accrued + corrections + invoiced + adjusted + reversed = closing. All is taken from
document lines on the unbilled accounts, by the accounting period the document is booked in. Revenue that only moves in
time (`recognition`) is owed by nobody and is no part of it; where it stands on an unbilled account (a contract asset,
or unbilled itself if the entity has none) it is `ahead`, and closing + ahead is the balance of those accounts.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import orjson
from sqlalchemy import Connection, Engine, select

from sinks.ledger import documents, tables
from sinks.ledger.amounts import exact
from sinks.ledger.approval_policy import signed
from sinks.ledger.database import read
from sinks.ledger.invoice_lines import ADJUSTMENT, KIND, UNBILLED, is_unbilled
from sinks.ledger.movements import booked_documents
from sinks.ledger.times import MS_PER_HOUR, to_ms

AGES_DAYS: Final = (15, 30, 45)
ALARM_DAYS: Final = 45
HOURS_PER_DAY: Final = 24

_DOCUMENTS = tables.documents
AHEAD: Final = "ahead"


@dataclass(frozen=True, slots=True)
class Movement:
    """One document's effect on unbilled: of a kind, in a period, at an hour, and whether the ERP has it."""

    entity: str
    customer: str
    currency: str
    period: str
    kind: str
    """`accrued`, `corrections`, `invoiced`, `adjusted`, `reversed` or `ahead`."""
    booked_hour: int
    amount: Decimal
    is_booked: bool


@dataclass(slots=True)
class Roll:
    """One customer's roll-forward over a span of accounting periods."""

    entity: str
    customer: str
    currency: str
    opening: Decimal = Decimal(0)
    accrued: Decimal = Decimal(0)
    corrections: Decimal = Decimal(0)
    invoiced: Decimal = Decimal(0)
    adjusted: Decimal = Decimal(0)
    """What people changed in draft invoices, in the ERP."""
    reversed: Decimal = Decimal(0)
    ahead: Decimal = Decimal(0)
    """Revenue to date that is not billable yet (less billable that was not revenue), at the end of the span."""
    not_in_erp: Decimal = Decimal(0)
    """Part of the balance that the ERP has not got yet."""
    erp: Decimal | None = None
    """The ERP's balance of the customer on the unbilled accounts; None: not asked, or its entries do not name one."""
    ages: list[Decimal] = field(default_factory=lambda: [Decimal(0)] * (len(AGES_DAYS) + 1))
    """The closing by age of what is open, oldest usage settled first: up to 15, 30, 45 days, and older."""

    @property
    def closing(self) -> Decimal:
        """Return the balance at the end of the span."""
        with exact():
            return self.opening + self.accrued + self.corrections + self.invoiced + self.adjusted + self.reversed

    @property
    def balance(self) -> Decimal:
        """Return what stands on the unbilled accounts."""
        with exact():
            return self.closing + self.ahead

    @property
    def is_overdue(self) -> bool:
        """Tell whether something is older than 45 days."""
        return self.ages[-1] > 0


def movements(connection: Connection, entity: str = "", customer: str = "") -> Iterator[Movement]:
    """Yield every movement of unbilled, in order of the booked hour."""
    for document in booked_documents(connection, entity, customer):
        sums: dict[str, Decimal] = {}
        with exact():
            for line in document.lines:
                if line["account_role"] in UNBILLED:
                    kind = _kind(document.kind, line, document.period)
                    sums[kind] = sums.get(kind, Decimal(0)) + signed(line)
        for kind, amount in sums.items():
            yield Movement(*document.place, document.period, kind, document.booked_hour, amount, document.in_erp)


def _kind(document_kind: str, line: dict[str, Any], period: str) -> str:
    if not is_unbilled(line):
        return AHEAD
    if line["kind"] == KIND:
        return "invoiced"
    if document_kind == "reversal":
        return "reversed"
    if line["kind"] == ADJUSTMENT:
        return "adjusted"
    return "corrections" if (line.get("original_period") or period) != period else "accrued"


def roll_forward(found: Iterable[Movement], first: str, last: str, as_of: datetime) -> list[Roll]:
    """Return the roll-forward from the accounting period `first` to `last`, both included, by customer."""
    rolls: dict[tuple[str, str, str], Roll] = {}
    ages: dict[tuple[str, str, str], _Open] = {}
    with exact():
        for one in found:
            if one.period > last:
                continue
            key = (one.entity, one.customer, one.currency)
            roll = rolls.setdefault(key, Roll(*key))
            if not one.is_booked:
                roll.not_in_erp += one.amount
            if one.kind == AHEAD or one.period >= first:
                setattr(roll, one.kind, getattr(roll, one.kind) + one.amount)
            else:
                roll.opening += one.amount
            opened = ages.setdefault(key, _Open())
            if one.kind != AHEAD:
                opened.take(one)
        now_hour = to_ms(as_of) // MS_PER_HOUR
        for key, roll in rolls.items():
            roll.ages = ages[key].by_age(now_hour)
    return [rolls[key] for key in sorted(rolls)]


class _Open:
    """What is open of one customer: each credit settles the oldest debits first."""

    def __init__(self) -> None:
        self._debits: deque[tuple[int, Decimal]] = deque()
        self._credit = Decimal(0)

    def take(self, one: Movement) -> None:
        """Take a movement, in order of the booked hour."""
        if one.amount > 0:
            self._debits.append((one.booked_hour, one.amount))
        else:
            self._credit -= one.amount
        while self._credit and self._debits:
            hour, amount = self._debits.popleft()
            used = min(amount, self._credit)
            self._credit -= used
            if amount > used:
                self._debits.appendleft((hour, amount - used))

    def by_age(self, now_hour: int) -> list[Decimal]:
        """Return the open amounts by age; a credit nobody used is the newest."""
        found = [Decimal(0)] * (len(AGES_DAYS) + 1)
        found[0] -= self._credit
        for hour, amount in self._debits:
            days = (now_hour - hour) / HOURS_PER_DAY
            place = sum(days > limit for limit in AGES_DAYS)
            found[place] += amount
        return found


@dataclass(frozen=True, slots=True)
class PriorCorrection:
    """Corrections booked in one accounting period for another that was closed."""

    entity: str
    currency: str
    period: str
    original_period: str
    customer: str
    amount: Decimal
    documents: int


def prior_corrections(engine: Engine, entity: str = "") -> list[PriorCorrection]:
    """Return the corrections of closed periods, by customer."""
    table = _DOCUMENTS.c
    query = select(table.entity, table.currency, table.accounting_period, table.customer, table.json).where(
        table.kind == "correction", table.state != documents.STAGED
    )
    if entity:
        query = query.where(table.entity == entity)
    sums: dict[tuple[str, str, str, str, str], tuple[Decimal, int]] = {}
    with read(engine) as connection, exact():
        for row in connection.execute(query.execution_options(yield_per=1_000)):
            seen = set()
            for line in orjson.loads(row.json)["lines"]:
                original = line.get("original_period") or row.accounting_period
                if original == row.accounting_period or line["account_role"].endswith("_revenue"):
                    continue
                key = (row.entity, row.currency, row.accounting_period, original, row.customer)
                amount, count = sums.get(key, (Decimal(0), 0))
                sums[key] = (amount + signed(line), count + (key not in seen))
                seen.add(key)
    return [PriorCorrection(*key, *value) for key, value in sorted(sums.items())]
