"""Spend as rows, one for each charge of a billing period: for files of the page and of the API."""

from typing import Any, Final

from queries.spend import ContractSpend

SPEND_COLUMNS: Final = (
    "customer", "contract", "plan", "charge", "price_row", "meter", "quantity", "unit", "events", "amount",
    "forecast_quantity", "forecast_amount", "currency", "period_start", "period_end",
)  # fmt: skip


def spend_rows(contracts: list[ContractSpend]) -> list[dict[str, Any]]:
    """Return the charges of all contracts, each with its contract and billing period."""
    rows = []
    for one in contracts:
        head = {name: getattr(one, name) for name in ("customer", "contract", "plan", "currency")}
        head |= {"period_start": one.period_start, "period_end": one.period_end}
        rows += [
            {name: getattr(charge, name) for name in SPEND_COLUMNS if hasattr(charge, name)} | head
            for charge in one.charges
        ]
    return rows
