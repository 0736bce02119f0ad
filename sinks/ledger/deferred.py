"""The deferred revenue roll-forward: what stands on the contract liability, per customer. A liability is positive.

opening + deferred - recognised + reversed = closing. `deferred` was billable before it was revenue, `recognised` is
what became revenue since. Prepaid balances are bought in the ERP, not here: of them the subledger only knows what was
drawn and what nobody drew until it expired, so closing - drawn - expired + what the ERP sold is the account's balance.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from sinks.ledger.amounts import exact
from sinks.ledger.approval_policy import signed
from sinks.ledger.movements import Booked

LIABILITY: Final = "contract_liability"
DRAWN: Final = {"drawdown": "drawn", "breakage": "expired"}


@dataclass(slots=True)
class DeferredRoll:
    """One customer's deferred revenue over a span of accounting periods."""

    entity: str
    customer: str
    currency: str
    opening: Decimal = Decimal(0)
    deferred: Decimal = Decimal(0)
    recognised: Decimal = Decimal(0)
    reversed: Decimal = Decimal(0)
    drawn: Decimal = Decimal(0)
    """Of prepaid balances used to date, at the end of the span."""
    expired: Decimal = Decimal(0)
    """Of prepaid balances nobody used, to date."""
    not_in_erp: Decimal = Decimal(0)
    """Part of the balance that the ERP has not got yet."""
    erp: Decimal | None = None
    """The ERP's balance of the customer; None: not asked, or its entries do not name one."""

    @property
    def closing(self) -> Decimal:
        """Return the deferred revenue at the end of the span, without prepaid balances."""
        with exact():
            return self.opening + self.deferred - self.recognised + self.reversed

    @property
    def balance(self) -> Decimal:
        """Return what our documents leave on the account."""
        with exact():
            return self.closing - self.drawn - self.expired


def roll_forward(found: Iterable[Booked], first: str, last: str) -> list[DeferredRoll]:
    """Return the roll-forward from the accounting period `first` to `last`, both included, by customer."""
    rolls: dict[tuple[str, str, str], DeferredRoll] = {}
    with exact():
        for document in found:
            if document.period > last:
                continue
            for line in document.lines:
                if line["account_role"] == LIABILITY:
                    roll = rolls.setdefault(document.place, DeferredRoll(*document.place))
                    _take(roll, document, line, is_opening=document.period < first)
    return [rolls[place] for place in sorted(rolls)]


def _take(roll: DeferredRoll, document: Booked, line: Mapping[str, Any], *, is_opening: bool) -> None:
    grown = -signed(line)
    if not document.in_erp:
        roll.not_in_erp += grown
    kind = DRAWN.get(line["kind"])
    if kind is not None:
        setattr(roll, kind, getattr(roll, kind) - grown)
    elif is_opening:
        roll.opening += grown
    elif document.kind == "reversal":
        roll.reversed += grown
    elif (line["side"] == "credit") != bool(line.get("swapped")):
        roll.deferred += grown  # the entry's own side is the credit: something was billable
    else:
        roll.recognised -= grown
