"""Roles that accounts have in the books: eight of ours, and revenue roles of a company's own.

A role whose name ends with `_revenue` is revenue, everywhere: reports, reconciliation and approvals go by it.
"""

import re
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, WithJsonSchema

UNBILLED: Final = "unbilled_receivable"
USAGE_REVENUE: Final = "usage_revenue"
SUBSCRIPTION_REVENUE: Final = "subscription_revenue"
SHORTFALL_REVENUE: Final = "shortfall_revenue"
CONTRACT_LIABILITY: Final = "contract_liability"
CONTRACT_ASSET: Final = "contract_asset"
RECEIVABLE: Final = "accounts_receivable"
TAX_PAYABLE: Final = "tax_payable"

ROLES: Final = (
    *(UNBILLED, CONTRACT_ASSET, RECEIVABLE, TAX_PAYABLE, CONTRACT_LIABILITY),
    *(USAGE_REVENUE, SUBSCRIPTION_REVENUE, SHORTFALL_REVENUE),
)
SUFFIX: Final = "_revenue"
_OWN: Final = re.compile(r"[a-z][a-z0-9_]{0,60}_revenue")
_BALANCE_SHEET: Final = {
    **dict.fromkeys(("deferred", "unearned", "prepaid"), CONTRACT_LIABILITY),
    **dict.fromkeys(("unbilled", "accrued", "contract"), f"{UNBILLED} or {CONTRACT_ASSET}"),
}
"""What accountants call revenue too, and is none: the first word, and our role for it."""


def is_revenue(role: str) -> bool:
    """Tell whether the role is revenue."""
    return role.endswith(SUFFIX)


def _role(name: str) -> str:
    if name in ROLES:
        return name
    if not _OWN.fullmatch(name):
        message = f"unknown account role: use one of {', '.join(ROLES)}, or a name of your own that ends with {SUFFIX}"
        raise ValueError(message)
    meant = _BALANCE_SHEET.get(name.partition("_")[0])
    if meant is not None:
        message = f"is no revenue, but an account of the balance sheet: its role is {meant}"
        raise ValueError(message)
    return name


def _revenue_role(name: str) -> str:
    if not is_revenue(name):
        message = f"is not a revenue role: its name ends with {SUFFIX}"
        raise ValueError(message)
    return _role(name)


AccountRole = Annotated[
    str,
    AfterValidator(_role),
    WithJsonSchema({"anyOf": [{"enum": list(ROLES)}, {"type": "string", "pattern": f"^{_OWN.pattern}$"}]}),
]
RevenueRole = Annotated[
    str, AfterValidator(_revenue_role), WithJsonSchema({"type": "string", "pattern": f"^{_OWN.pattern}$"})
]

Unbilled = Literal["unbilled_receivable", "contract_asset"]
"""What a contract may call its unbilled usage."""
