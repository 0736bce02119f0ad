"""Which documents wait for a person before they are posted: pure, by the entity's policy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from config.entities import Entity
from operators.posting_rules import RECOGNITION
from sinks.ledger.amounts import exact

REVENUE_SUFFIX = "_revenue"
Line = Mapping[str, Any]


def signed(line: Line) -> Decimal:
    """Return a document line's amount, debit positive."""
    amount = Decimal(line["amount"])
    return amount if line["side"] == "debit" else -amount


def net(lines: Sequence[Line]) -> Decimal:
    """Return what the lines earn: debits less credits of all accounts but revenue."""
    with exact():
        return sum((signed(line) for line in lines if not line["account_role"].endswith(REVENUE_SUFFIX)), Decimal(0))


def charged(lines: Sequence[Line]) -> Decimal:
    """Return what the lines charge the customer: the near side of each entry; revenue that only moves in time does not.

    Lines that do not say which entry is swapped are taken by their accounts.
    """
    if not all("swapped" in line for line in lines):
        return net(lines)
    with exact():
        near = (line for line in lines if line["kind"] != RECOGNITION and line["side"] == _near_side(line))
        return sum(
            (-Decimal(line["amount"]) if line["swapped"] else Decimal(line["amount"]) for line in near), Decimal(0)
        )


def _near_side(line: Line) -> str:
    return "credit" if line["swapped"] else "debit"


def corrected_periods(lines: Sequence[Line], accounting_period: str) -> dict[str, Decimal]:
    """Return the net by original period of lines that belong to an earlier, closed period."""
    found: dict[str, Decimal] = {}
    with exact():
        for line in lines:
            original = line.get("original_period") or accounting_period
            if original != accounting_period and not line["account_role"].endswith(REVENUE_SUFFIX):
                found[original] = found.get(original, Decimal(0)) + signed(line)
    return found


def wanted_by_amount(entity: Entity, lines: Sequence[Line], accounting_period: str) -> str:
    """Return why the policy on amounts and credits wants an approval, or an empty text."""
    policy = entity.approval
    if policy.every:
        return "every document of this entity waits for approval"
    amount = charged(lines)
    if policy.above is not None and abs(amount) > policy.above:
        return f"its amount {amount:f} is above {policy.above:f}"
    if policy.credits:
        # A volume tier that got cheaper is right by the end of its period: no concession to anybody.
        others = [line for line in lines if not _repriced(line, accounting_period)]
        if (left := charged(others)) < 0:
            return f"it is a credit of {-left:f}"
    return ""


def _repriced(line: Line, accounting_period: str) -> bool:
    original = line.get("original_period") or accounting_period
    return bool(line["kind"] == "tier_repricing" and original == accounting_period)


@dataclass(frozen=True, slots=True)
class CorrectedSoFar:
    """Corrections of one customer and original period, this document included, and what the entity charged then."""

    original_period: str
    cumulative: Decimal
    entity_total: Decimal


def wanted_by_corrections(entity: Entity, found: Sequence[CorrectedSoFar]) -> str:
    """Return why corrections of closed periods want an approval, or an empty text.

    The cumulative counts, or many small corrections would pass under any limit.
    """
    above, share = entity.close.correction_above, entity.close.correction_share_percent
    for one in found:
        amount = abs(one.cumulative)
        if above is not None and amount > above:
            return f"corrections of {one.original_period} come to {_shown(one.cumulative)}, above {above:f}"
        if share is not None and amount * 100 > share * abs(one.entity_total):
            return (
                f"corrections of {one.original_period} come to {_shown(one.cumulative)}, more than {share:f} % of the"
                f" {_shown(one.entity_total)} earned in it"
            )
    return ""


def _shown(amount: Decimal) -> str:
    """Return an amount without the zeros that a database fills up with, but for two places."""
    whole, _, places = format(amount, "f").partition(".")
    return f"{whole}.{places.rstrip('0').ljust(2, '0')}"
