"""What a line kind books by the entity's posting rules (contract, design 2.6): the entries of an amount.

Revenue is credited here once, when usage is accrued; an invoice moves unbilled to receivable and never credits
revenue again. A negative amount swaps the sides. The rules themselves are configuration: `config.posting_rules`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from config.account_roles import UNBILLED
from config.posting_rules import DEFAULTS, Rule
from core.errors import InvariantViolation

RECOGNITION: Final = "recognition"
DEFERRAL: Final = "deferral"


@dataclass(frozen=True, slots=True)
class Entry:
    """An amount from one account to another; a negative one goes the other way."""

    kind: str
    debit: str
    credit: str
    amount: Decimal
    is_deferred: bool = False
    """The credit role holds what is not revenue yet, or no longer has to be billable: that side is `recognition`."""

    @property
    def credit_kind(self) -> str:
        """Return the line kind of the credit role's side."""
        return RECOGNITION if self.is_deferred else self.kind


@dataclass(frozen=True, slots=True)
class Roles:
    """What a contract and a charge call the accounts that rules leave open."""

    unbilled: str
    """Earned but not invoiced: a receivable or a contract asset."""
    asset: str
    """Revenue that is not billable yet."""
    revenue: str = ""
    """In place of the rule's revenue; empty: the rule's."""
    rules: Mapping[str, Rule] = field(default_factory=lambda: DEFAULTS)


def entries(kind: str, amount: Decimal, revenue: Decimal, deferred: Decimal, *, roles_of: Roles) -> list[Entry]:
    """Return the entries that book an amount and the revenue that goes with it; the first one may be zero.

    What is billable but not revenue yet is a contract liability, what is revenue but not billable yet a contract
    asset. `deferred` is the amount to date less the revenue to date before this; the position is never both.
    """
    debit, credit = roles(kind, roles_of)
    deferred_role = roles_of.rules[DEFERRAL].credit
    nothing = amount - amount
    matched = min(amount, revenue, key=abs) if amount * revenue > 0 else nothing
    between = deferred + amount - matched
    after = deferred + amount - revenue

    def liability(before: Decimal, after: Decimal) -> Decimal:
        return max(after, nothing) - max(before, nothing)

    def asset(before: Decimal, after: Decimal) -> Decimal:
        return max(-after, nothing) - max(-before, nothing)

    found = [
        Entry(kind, debit, deferred_role, liability(deferred, between), is_deferred=True),
        Entry(kind, debit, roles_of.asset, -asset(deferred, between), is_deferred=True),
        Entry(RECOGNITION, deferred_role, credit, -liability(between, after)),
        Entry(RECOGNITION, roles_of.asset, credit, asset(between, after)),
    ]
    found = [entry for entry in found if entry.amount]
    # Whatever is booked of a charge has an entry of its kind, if need be of zero: it carries the quantity.
    if matched or all(entry.kind != kind for entry in found):
        found.insert(0, Entry(kind, debit, credit, matched))
    return found


def roles(line_kind: str, roles_of: Roles) -> tuple[str, str]:
    """Return the account roles that a positive amount debits and credits.

    The charge's own revenue role takes the place of the rule's for all but shortfalls.

    :raises InvariantViolation: no rule for the line kind.
    """
    rule = roles_of.rules.get(line_kind)
    if rule is None:
        message = f"no posting rule for line kind {line_kind!r}: add one before rows of this kind are booked"
        raise InvariantViolation(message)
    debit = roles_of.unbilled if rule.debit == UNBILLED else rule.debit
    return debit, roles_of.revenue if roles_of.revenue and line_kind != "true_up" else rule.credit
