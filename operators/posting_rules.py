"""Which accounts a line kind moves (contract, design 2.6): line kind to debit role and credit role.

Revenue is credited here once, when usage is accrued; an invoice moves unbilled to receivable and never credits
revenue again. A negative amount swaps the sides.
"""

from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from core.errors import InvariantViolation


@dataclass(frozen=True, slots=True)
class PostingRule:
    """Debit and credit account roles of one line kind."""

    debit: str
    credit: str


UNBILLED: Final = "unbilled_receivable"
USAGE_REVENUE: Final = "usage_revenue"
SUBSCRIPTION_REVENUE: Final = "subscription_revenue"
SHORTFALL_REVENUE: Final = "shortfall_revenue"
CONTRACT_LIABILITY: Final = "contract_liability"
CONTRACT_ASSET: Final = "contract_asset"
RECOGNITION: Final = "recognition"

RULES: Final[dict[str, PostingRule]] = {
    "usage": PostingRule(UNBILLED, USAGE_REVENUE),
    "late_usage": PostingRule(UNBILLED, USAGE_REVENUE),
    "void": PostingRule(UNBILLED, USAGE_REVENUE),
    "tier_repricing": PostingRule(UNBILLED, USAGE_REVENUE),
    "price_change": PostingRule(UNBILLED, USAGE_REVENUE),
    "fee": PostingRule(UNBILLED, SUBSCRIPTION_REVENUE),
    "true_up": PostingRule(UNBILLED, SHORTFALL_REVENUE),
    "drawdown": PostingRule(CONTRACT_LIABILITY, USAGE_REVENUE),
    "breakage": PostingRule(CONTRACT_LIABILITY, SHORTFALL_REVENUE),
    RECOGNITION: PostingRule(CONTRACT_ASSET, USAGE_REVENUE),
}


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


def entries(kind: str, amount: Decimal, revenue: Decimal, deferred: Decimal, *, roles_of: Roles) -> list[Entry]:
    """Return the entries that book an amount and the revenue that goes with it; the first one may be zero.

    What is billable but not revenue yet is a contract liability, what is revenue but not billable yet a contract
    asset. `deferred` is the amount to date less the revenue to date before this; the position is never both.
    """
    debit, credit = roles(kind, Decimal(1), unbilled_role=roles_of.unbilled, revenue_role=roles_of.revenue)
    nothing = amount - amount
    matched = min(amount, revenue, key=abs) if amount * revenue > 0 else nothing
    between = deferred + amount - matched
    after = deferred + amount - revenue

    def liability(before: Decimal, after: Decimal) -> Decimal:
        return max(after, nothing) - max(before, nothing)

    def asset(before: Decimal, after: Decimal) -> Decimal:
        return max(-after, nothing) - max(-before, nothing)

    found = [
        Entry(kind, debit, CONTRACT_LIABILITY, liability(deferred, between), is_deferred=True),
        Entry(kind, debit, roles_of.asset, -asset(deferred, between), is_deferred=True),
        Entry(RECOGNITION, CONTRACT_LIABILITY, credit, -liability(between, after)),
        Entry(RECOGNITION, roles_of.asset, credit, asset(between, after)),
    ]
    found = [entry for entry in found if entry.amount]
    # Whatever is booked of a charge has an entry of its kind, if need be of zero: it carries the quantity.
    if matched or all(entry.kind != kind for entry in found):
        found.insert(0, Entry(kind, debit, credit, matched))
    return found


def roles(line_kind: str, amount: Decimal, *, unbilled_role: str = UNBILLED, revenue_role: str = "") -> tuple[str, str]:
    """Return the account roles to debit and to credit for that amount.

    :param unbilled_role: what the contract calls earned but unbilled: a receivable or a contract asset.
    :param revenue_role: the charge's own revenue role, in place of the rule's for all but shortfalls.
    :raises InvariantViolation: no rule for the line kind.
    """
    rule = RULES.get(line_kind)
    if rule is None:
        message = f"no posting rule for line kind {line_kind!r}: add one before rows of this kind are booked"
        raise InvariantViolation(message)
    debit = unbilled_role if rule.debit == UNBILLED else rule.debit
    credit = revenue_role if revenue_role and line_kind != "true_up" else rule.credit
    return (debit, credit) if amount >= 0 else (credit, debit)
