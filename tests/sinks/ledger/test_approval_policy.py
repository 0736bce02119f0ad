"""What a document charges, by entries, against what it earns."""

from decimal import Decimal
from typing import Any

from config.entities import Entity
from sinks.ledger.approval_policy import charged, net, wanted_by_amount
from tests.sinks.ledger.samples import entity


def lines(*entries: tuple[str, str, str, str, str, bool]) -> list[dict[str, Any]]:
    made = []
    for debit_kind, credit_kind, debit, credit, amount, swapped in entries:
        for kind, role, side in ((debit_kind, debit, "debit"), (credit_kind, credit, "credit")):
            made.append({"kind": kind, "account_role": role, "side": side, "amount": amount, "swapped": swapped})
    return made


FEE_AHEAD = ("fee", "recognition", "unbilled_receivable", "contract_liability", "2500.00", False)
EARNED = ("recognition", "recognition", "contract_liability", "subscription_revenue", "80.00", False)
CREDIT = ("void", "void", "usage_revenue", "unbilled_receivable", "3.00", True)


def test_a_fee_in_advance_charges_all_and_earns_none() -> None:
    assert (charged(lines(FEE_AHEAD)), net(lines(FEE_AHEAD))) == (Decimal("2500.00"), Decimal(0))
    assert (charged(lines(EARNED)), net(lines(EARNED))) == (Decimal(0), Decimal("80.00"))
    assert charged(lines(FEE_AHEAD, EARNED, CREDIT)) == Decimal("2497.00")
    policy = Entity.model_validate(entity() | {"approval": {"above": "1000", "credits": True}})
    assert wanted_by_amount(policy, lines(FEE_AHEAD), "2025-11") == "its amount 2500.00 is above 1000"
    assert wanted_by_amount(policy, lines(CREDIT, EARNED), "2025-11") == "it is a credit of 3.00"
    assert wanted_by_amount(policy, lines(EARNED), "2025-11") == ""
