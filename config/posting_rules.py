"""Posting rules: line kind to debit role and credit role (contract, design 2.6).

The defaults are here; an entity may replace single sides. They are part of the revision, so a document is always
explained by the rules known at its booked hour, and a new rule never changes a document that was made.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import StringConstraints

from config.account_roles import (
    CONTRACT_ASSET,
    CONTRACT_LIABILITY,
    RECEIVABLE,
    SHORTFALL_REVENUE,
    SUBSCRIPTION_REVENUE,
    UNBILLED,
    USAGE_REVENUE,
    AccountRole,
)
from config.base import Model

LineKind = Literal[
    "usage",
    "late_usage",
    "void",
    "tier_repricing",
    "price_change",
    "fee",
    "true_up",
    "drawdown",
    "breakage",
    "recognition",
    "deferral",
    "invoice",
]
RuleText = Annotated[str, StringConstraints(max_length=120, pattern=r"^[^\x00-\x1f\x7f]*$")]


class PostingRule(Model):
    """What an entity changes of one line kind's rule; a side that is not named stays as it is."""

    debit: AccountRole | None = None
    credit: AccountRole | None = None
    text: RuleText = ""
    """Stands on the lines of documents; `text` in `posting.line_grain` brings it into the ERP."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A whole rule: the roles to debit and to credit. A negative amount swaps the sides.

    `unbilled_receivable` stands for what the contract calls its unbilled usage (`unbilled_kind`).
    """

    debit: str
    credit: str
    text: str = ""


DEFAULTS: Final[Mapping[str, Rule]] = {
    "usage": Rule(UNBILLED, USAGE_REVENUE),
    "late_usage": Rule(UNBILLED, USAGE_REVENUE),
    "void": Rule(UNBILLED, USAGE_REVENUE),
    "tier_repricing": Rule(UNBILLED, USAGE_REVENUE),
    "price_change": Rule(UNBILLED, USAGE_REVENUE),
    "fee": Rule(UNBILLED, SUBSCRIPTION_REVENUE),
    "true_up": Rule(UNBILLED, SHORTFALL_REVENUE),
    "drawdown": Rule(CONTRACT_LIABILITY, USAGE_REVENUE),
    "breakage": Rule(CONTRACT_LIABILITY, SHORTFALL_REVENUE),
    "recognition": Rule(CONTRACT_ASSET, USAGE_REVENUE),
    "deferral": Rule(UNBILLED, CONTRACT_LIABILITY),
    "invoice": Rule(RECEIVABLE, UNBILLED),
}
"""`recognition`: revenue that is not billable yet. `deferral`: billable and not revenue yet; what releases it debits
the role it credits. `invoice`: moves the unbilled to the receivable; a credit note is the reverse."""

ACCRUALS: Final = ("usage", "late_usage", "void", "tier_repricing", "price_change", "fee", "true_up")
"""Kinds that put an amount on the unbilled account, for the invoice to take."""
PREPAID: Final = ("drawdown", "breakage")
"""Kinds that take from what was paid before."""

_DEBIT_FOLLOWS: Final = (*ACCRUALS[1:], "deferral")
_CREDIT_FOLLOWS: Final = ("late_usage", "void", "tier_repricing", "price_change", "drawdown", "recognition")


def rules_of(overrides: Mapping[LineKind, PostingRule]) -> Mapping[str, Rule]:
    """Return all rules of an entity: its overrides on the defaults.

    Kinds that book the same usage follow `usage` where they say nothing themselves: what was put on an account by
    usage is taken from it by a void, and invoiced from it.
    """
    if not overrides:
        return DEFAULTS
    usage = overrides.get("usage") or PostingRule()
    found: dict[str, Rule] = {}
    for kind, default in DEFAULTS.items():
        own = overrides.get(kind) or PostingRule()  # type: ignore[call-overload]  # the keys are line kinds
        debit = own.debit or (usage.debit if kind in _DEBIT_FOLLOWS else None) or default.debit
        credit = own.credit or (usage.credit if kind in _CREDIT_FOLLOWS else None) or default.credit
        if kind == "invoice":
            credit = own.credit or usage.debit or default.credit
        found[kind] = Rule(debit, credit, own.text)
    return found
