"""Spend: what customers have come to in their billing periods, what they will come to, and where in their tiers."""

from collections import defaultdict
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from starlette.responses import Response

from console.pages import asked, exporting
from console.pages.base import Page, Values, Visit
from console.problems import Problem
from console.scope import customers_of
from console.spending import SPEND_COLUMNS, spend_rows
from queries.spend import ContractSpend, spend, spend_of
from queries.stores import Row, Stores

_CUSTOMERS_MAX: Final = 200
_NEVER: Final = datetime(2100, 1, 1, tzinfo=UTC)


async def show(visit: Visit) -> Values | Response:
    """Return all customers with their amounts to date, or one customer charge by charge."""
    kind = exporting.wanted(visit.request)
    return await visit.services.pool.ask(lambda stores: _answer(visit, stores, kind))


def _answer(visit: Visit, stores: Stores, kind: str) -> Values | Response:
    request, now = visit.request, visit.services.clock.now()
    allowed = customers_of(visit.token, stores.history)
    known = sorted(one.id for one in stores.history.latest.configuration.customers)
    customers = [name for name in known if allowed is None or name in allowed]
    customer, as_of = asked.text(request, "customer"), asked.moment(request, "as_of")
    at = min(asked.moment(request, "at") or now, now)
    if customer:
        if customer not in customers:
            raise Problem("not_found", f"no customer {customer!r}")
        contracts = spend(stores, customer, at, now=now, as_of=as_of)
        if kind:
            return exporting.file_of(f"spend-{customer}", kind, SPEND_COLUMNS, spend_rows(contracts))
        return {
            "customer": customer,
            "customers": customers,
            "contracts": contracts,
            "daily": daily(stores, customer, contracts, as_of),
            "at": at,
            "as_of": as_of,
            "now": now,
        }
    chosen = customers if kind else customers[:_CUSTOMERS_MAX]
    contracts = spend_of(stores, chosen, at, now=now, as_of=as_of)
    if kind:
        return exporting.file_of("spend", kind, SPEND_COLUMNS, spend_rows(contracts))
    return {
        "customer": "",
        "customers": customers,
        "contracts": sorted(contracts, key=lambda one: (one.currency, -one.amount, one.customer)),
        "totals": totals(contracts),
        "more": len(customers) - len(chosen),
        "at": at,
        "as_of": as_of,
        "now": now,
    }


def totals(contracts: list[ContractSpend]) -> dict[str, tuple[Decimal, Decimal, int]]:
    """Return amount to date, forecast and count of contracts, by currency."""
    found: dict[str, tuple[Decimal, Decimal, int]] = defaultdict(lambda: (Decimal(0), Decimal(0), 0))
    for one in contracts:
        amount, forecast, count = found[one.currency]
        found[one.currency] = (amount + one.amount, forecast + one.forecast_amount, count + 1)
    return dict(sorted(found.items()))


def daily(
    stores: Stores, customer: str, contracts: list[ContractSpend], as_of: datetime | None = None
) -> dict[str, Any]:
    """Return the chart of amounts by day of booking, one series for each charge, since the oldest period began.

    Currencies do not add up: a customer with contracts in two has a series for each.
    """
    if not contracts:
        return {"times": [], "series": []}
    rows: list[Row] = stores.rows(
        "SELECT toUnixTimestamp(toStartOfDay(booked_hour, 'UTC')) AS day, charge, toString(r.currency) AS money,"
        " sum(r.amount) AS total"
        " FROM @rated_usage_current AS r WHERE customer = {customer:String} AND booked_hour >= {from:DateTime}"
        " AND booked_hour < {as_of:DateTime} AND status IN ('sealed', 'provisional')"
        " GROUP BY day, charge, money ORDER BY day",
        {
            "customer": customer,
            "from": _midnight(min(one.period_start for one in contracts)),
            "as_of": as_of or _NEVER,
        },
    )
    days = sorted({int(row["day"]) for row in rows})
    sums: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    for row in rows:
        sums[row["charge"], row["money"]] += abs(row["total"])
    currencies = {currency for _, currency in sums}
    shown = sorted(sums, key=lambda one: -sums[one])[:6]
    found = {(row["charge"], row["money"], int(row["day"])): float(row["total"]) for row in rows}
    return {
        "times": days,
        "step": 86_400,
        "unit": next(iter(currencies)) if len(currencies) == 1 else "",
        "series": [
            {
                "name": (charge or "without charge") + (f", {currency}" if len(currencies) > 1 else ""),
                "kind": "line",
                "values": [found.get((charge, currency, day), 0) for day in days],
            }
            for charge, currency in shown
        ],
    }


def _midnight(when: datetime) -> datetime:
    return when.replace(hour=0, minute=0, second=0, microsecond=0)


PAGE = Page("/spend", "spend", "Spend", "spend.html", show)
