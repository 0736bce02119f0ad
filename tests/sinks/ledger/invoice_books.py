"""Books of usage and fees that are invoiced: documents, an entity that makes invoices, a run."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import orjson

from config.revision import History
from sinks.ledger import invoicing, revisions
from sinks.ledger.times import MS_PER_HOUR, hour_text, to_ms
from tests.flows.poster_world import World
from tests.sinks.ledger.samples import SampleDocument, entity, key

NOVEMBER = datetime(2025, 11, 1, tzinfo=UTC)
FIRST_HOUR = to_ms(NOVEMBER) // MS_PER_HOUR
PLANS = [{"id": "p", "versions": [{"effective_from": "2023-01-01T00:00:00Z", "currency": "USD", "charges": []}]}]
ACCOUNTS = {
    "unbilled_receivable": "1150",
    "usage_revenue": "4001",
    "accounts_receivable": "1200",
    "shortfall_revenue": "4003",
}


def usage(
    number: int,
    amount: str,
    hours: int,
    *,
    period: str = "2025-11-01T00:00:00Z",
    charge: str = "input",
    customer: str = "acme",
    kind: str = "usage",
    quantity: str = "10",
    accounting_period: str = "2025-11",
) -> SampleDocument:
    """Return a document booked that many hours after November began."""
    value = Decimal(amount)
    sides = ("debit", "credit") if value >= 0 else ("credit", "debit")
    hour = FIRST_HOUR + hours
    common = {
        "kind": kind,
        "amount": format(abs(value), "f"),
        "charge": charge,
        "plan": "p",
        "plan_version": 1,
        "price_row": "",
        "period_start": period,
        "quantity": quantity,
        "unit": "token",
        "tax_category": "saas",
        "service_from": hour_text(hour).replace("Z", ":00Z"),
        "service_to": hour_text(hour + 1).replace("Z", ":00Z"),
    }
    lines = [
        common | {"account_role": role, "side": side}
        for role, side in zip(("unbilled_receivable", "usage_revenue"), sides, strict=True)
    ]
    return SampleDocument(
        key(number),
        customer=customer,
        contract=f"{customer}-1",
        booked_hour=hour,
        accounting_period=accounting_period,
        kind="accrual",
        extra={"lines": lines},
    )


def fee(number: int, hours: int, *entries: tuple[str, str, str, str, str]) -> SampleDocument:
    """Return a document of (kind of the debit, kind of the credit, debit role, credit role, amount)."""
    made = usage(number, "0.00", hours)
    common = orjson.loads(made.to_json())["lines"][0] | {"charge": "platform", "swapped": False}
    lines = []
    for debit_kind, credit_kind, debit, credit, amount in entries:
        for kind, role, side in ((debit_kind, debit, "debit"), (credit_kind, credit, "credit")):
            lines.append(common | {"kind": kind, "account_role": role, "side": side, "amount": amount})
    return SampleDocument(
        key(number), customer="acme", contract="acme-1", booked_hour=made.booked_hour, kind="accrual",
        extra={"lines": lines},
    )  # fmt: skip


def configured(**invoicing_: Any) -> dict[str, Any]:
    plain = entity(accounts=ACCOUNTS) | {"timezone": "UTC", "invoicing": {"enabled": True, **invoicing_}}
    customers = [
        {
            "id": name,
            "subjects": [name],
            "erp": {"customer": f"CUST-{name}"},
            "contracts": [
                {"id": f"{name}-1", "plan": "p", "entity": "US01", "from": "2025-10-15T00:00:00Z",
                 "billing_period": {"unit": "month", "count": 1, "anchor": "2020-01-01", "timezone": "UTC"}}
            ],
        }
        for name in ("acme", "globex")
    ]  # fmt: skip
    return {"entities": [plain], "plans": PLANS, "customers": customers}


def configure(world: World, known_from_ms: int = 0, **invoicing_: Any) -> History:
    plain = configured(**invoicing_)
    entities = plain.pop("entities")
    world.configure(*entities, known_from_ms=known_from_ms, **plain)
    return History(revisions.load_history(world.engine))


def run(world: World, history: History, **more: Any) -> list[invoicing.Line]:
    return list(invoicing.run(world.engine, history, {}, actor="ann", now=world.clock.now(), **more))
