"""Customers, and what they have spent: `GET /api/v1/customers`, `/customers/{customer}` and its `/spend`."""

from dataclasses import asdict
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

import msgspec
from starlette.responses import Response

from config.customers import Customer
from config.revision import History
from console import scope
from console.answers import json_answer, report_answer, rows_answer
from console.api.lists import CACHED, list_answers, one_answers, report_answers
from console.endpoint import API, Call, Endpoint
from console.paging import cursor_of, position_of
from console.parameters import Cursor, Limit, Time, time_of
from console.problems import Problem
from console.spending import SPEND_COLUMNS, spend_rows
from queries.spend import ContractSpend, spend
from queries.stores import Stores

COLUMNS = ("id", "subjects", "contracts")


class ContractInfo(msgspec.Struct):
    """A contract as configured now."""

    id: str
    plan: str
    entity: str
    from_: datetime = msgspec.field(name="from")
    to: datetime | None


class CustomerInfo(msgspec.Struct):
    """A customer as configured now; `subjects` are its tenants."""

    id: str
    subjects: list[str]
    contracts: list[ContractInfo]


class CustomerList(msgspec.Struct):
    """A page of customers."""

    items: list[CustomerInfo]
    next: str | None


class Tier(msgspec.Struct):
    """Where a quantity stands: over `over`, up to `up_to` (none: the last tier), `left` until the next one."""

    tier: int
    tiers: int
    quantity: Decimal
    over: Decimal
    up_to: Decimal | None
    left: Decimal | None
    price: Decimal
    next_price: Decimal | None


class SpentCharge(msgspec.Struct):
    """One charge to date, exact and unrounded; `forecast_*` if usage goes on like this to the period's end."""

    charge: str
    price_row: str
    meter: str
    model: str
    plan_version: int
    quantity: Decimal
    unit: str
    events: int
    amount: Decimal
    revenue: Decimal
    provisional: bool
    forecast_quantity: Decimal | None
    forecast_amount: Decimal | None
    tier: Tier | None
    explanation: dict[str, Any] | None


class Spend(msgspec.Struct):
    """A contract's billing period. Amounts are in `currency`, exact and unrounded."""

    customer: str
    contract: str
    entity: str
    plan: str
    currency: str
    period_start: datetime
    period_end: datetime
    elapsed_percent: Decimal
    amount: Decimal
    forecast_amount: Decimal
    charges: list[SpentCharge]


class SpendAnswer(msgspec.Struct):
    """The spend of all contracts in force."""

    customer: str
    at: datetime
    contracts: list[Spend]


class CustomersParameters(msgspec.Struct, forbid_unknown_fields=True):
    """Which page."""

    limit: Limit = 1000
    cursor: Cursor = ""


class SpendParameters(msgspec.Struct, forbid_unknown_fields=True):
    """When, and how much of it is explained."""

    at: Time = ""
    as_of: Annotated[str, msgspec.Meta(max_length=64, description="Only what was booked before that time.")] = ""
    explain: Annotated[bool, msgspec.Meta(description="Add the calculation of every charge.")] = False


async def list_customers(call: Call) -> Response:
    """List customers with their subjects and contracts, by id."""
    asked: CustomersParameters = call.parameters
    after = position_of(asked.cursor, (str,))
    history: History = await call.services.pool.ask_history()
    allowed = scope.customers_of(call.token, history)
    found = sorted(
        (
            customer
            for customer in history.latest.configuration.customers
            if (allowed is None or customer.id in allowed) and (after is None or customer.id > after[0])
        ),
        key=lambda customer: customer.id,
    )
    rows = [_info(customer) for customer in found[: asked.limit]]
    following = (rows[-1]["id"],) if len(found) > asked.limit else None
    return rows_answer(call.request, rows, COLUMNS, cursor_of(following))


async def get_customer(call: Call) -> Response:
    """Return one customer with its subjects and contracts."""
    history: History = await call.services.pool.ask_history()
    check_customer(call, history, call.path["customer"])
    return json_answer(call.request, _info(history.latest.customers[call.path["customer"]]))


async def get_spend(call: Call) -> Response:
    """Return what a customer's contracts come to in their billing period, and the forecast of its end.

    The period is the one that holds `at`, now if not given. The forecast lets usage go on at the same rate. As CSV or
    Parquet it is a row for each charge.
    """
    asked: SpendParameters = call.parameters
    customer = call.path["customer"]
    now = call.services.clock.now()
    at = time_of("at", asked.at) or now
    as_of = time_of("as_of", asked.as_of)

    def ask(stores: Stores) -> list[ContractSpend]:
        check_customer(call, stores.history, customer)
        return spend(stores, customer, at, now=now, as_of=as_of, explained=asked.explain)

    found = await call.services.pool.ask(ask)
    contracts = [asdict(one) for one in found]
    data = {"customer": customer, "at": at.replace(microsecond=0), "contracts": contracts}
    return report_answer(call.request, data, spend_rows(found), SPEND_COLUMNS)


def check_customer(call: Call, history: History, customer: str) -> None:
    """Make sure the customer exists and the token may see it.

    :raises Problem: 404 in both cases: a token does not learn what others there are.
    """
    if customer not in history.latest.customers or not scope.sees_customer(call.token, history, customer):
        raise Problem("not_found", f"there is no customer {customer[:64]!r}")


def _info(customer: Customer) -> dict[str, Any]:
    return {
        "id": customer.id,
        "subjects": sorted({subject.id for subject in customer.subjects}),
        "contracts": [
            {"id": one.id, "plan": one.plan, "entity": one.entity, "from": one.from_, "to": one.to}
            for one in customer.contracts
        ],
    }


ENDPOINTS = (
    Endpoint(
        "GET", f"{API}/customers", "read", list_customers, list_answers(CustomerList, "A page of customers."),
        parameters=CustomersParameters, headers=CACHED,
    ),
    Endpoint(
        "GET", f"{API}/customers/{{customer}}", "read", get_customer, one_answers(CustomerInfo, "The customer."),
        headers=CACHED,
    ),
    Endpoint(
        "GET", f"{API}/customers/{{customer}}/spend", "read", get_spend, report_answers(SpendAnswer, "The spend."),
        parameters=SpendParameters, headers=CACHED,
    ),
)  # fmt: skip
