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

RULES: Final[dict[str, PostingRule]] = {
    "usage": PostingRule(UNBILLED, USAGE_REVENUE),
    "late_usage": PostingRule(UNBILLED, USAGE_REVENUE),
    "void": PostingRule(UNBILLED, USAGE_REVENUE),
    "tier_repricing": PostingRule(UNBILLED, USAGE_REVENUE),
    "fee": PostingRule(UNBILLED, "subscription_revenue"),
    "true_up": PostingRule(UNBILLED, "shortfall_revenue"),
    "drawdown": PostingRule("contract_liability", USAGE_REVENUE),
}


def roles(line_kind: str, amount: Decimal, *, unbilled_role: str = UNBILLED, revenue_role: str = "") -> tuple[str, str]:
    """Return the account roles to debit and to credit for that amount.

    :param unbilled_role: what the contract calls earned but unbilled: a receivable or a contract asset.
    :param revenue_role: the charge's own revenue role, in place of the rule's for usage and fees.
    :raises InvariantViolation: no rule for the line kind.
    """
    rule = RULES.get(line_kind)
    if rule is None:
        message = f"no posting rule for line kind {line_kind!r}: add one before rows of this kind are booked"
        raise InvariantViolation(message)
    debit = unbilled_role if rule.debit == UNBILLED else rule.debit
    credit = revenue_role if revenue_role and line_kind != "true_up" else rule.credit
    return (debit, credit) if amount >= 0 else (credit, debit)
