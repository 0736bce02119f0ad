"""What is configured: `GET /api/v1/meters` and `/api/v1/plans`."""

from datetime import datetime
from typing import Any, Final

import msgspec
from starlette.responses import Response

from config.revision import History
from console import scope
from console.answers import report_answer
from console.api.lists import CACHED, report_answers
from console.endpoint import API, Call, Endpoint

METER_COLUMNS: Final = ("id", "event_type", "aggregation", "value", "dimensions")
PLAN_COLUMNS: Final = ("plan", "version", "effective_from", "currency", "charges")


class MeterInfo(msgspec.Struct):
    """A meter. `dimensions` are what usage can be grouped by."""

    id: str
    event_type: str
    aggregation: str
    value: str | None
    dimensions: list[str]


class MeterList(msgspec.Struct):
    """All meters."""

    items: list[MeterInfo]


class PlanVersionInfo(msgspec.Struct):
    """A version of a plan; `charges` as configured."""

    version: int
    effective_from: datetime
    currency: str
    charges: list[dict[str, Any]]


class PlanInfo(msgspec.Struct):
    """A plan and its versions."""

    id: str
    versions: list[PlanVersionInfo]


class PlanList(msgspec.Struct):
    """Plans."""

    items: list[PlanInfo]


async def list_meters(call: Call) -> Response:
    """List the meters as configured now."""
    history: History = await call.services.pool.ask_history()
    items = [
        {
            "id": meter.id,
            "event_type": meter.event_type,
            "aggregation": meter.aggregation,
            "value": meter.value,
            "dimensions": sorted(meter.group_by),
        }
        for meter in history.latest.configuration.meters
    ]
    return report_answer(call.request, {"items": items}, items, METER_COLUMNS)


async def list_plans(call: Call) -> Response:
    """List the plans as configured now; a token of single tenants sees those of its customers.

    As CSV or Parquet it is a row for each version.
    """
    history: History = await call.services.pool.ask_history()
    allowed = scope.customers_of(call.token, history)
    plans = history.latest.configuration.plans
    if allowed is not None:
        own = {
            contract.plan for name in allowed if name in history.latest.customers
            for contract in history.latest.customers[name].contracts
        }  # fmt: skip
        plans = tuple(plan for plan in plans if plan.id in own)
    items: list[dict[str, Any]] = [
        {
            "id": plan.id,
            "versions": [
                {
                    "version": number,
                    "effective_from": version.effective_from,
                    "currency": version.currency,
                    "charges": list(version.charges),
                }
                for number, version in enumerate(plan.versions, 1)
            ],
        }
        for plan in plans
    ]
    rows = [{"plan": plan["id"], **version} for plan in items for version in plan["versions"]]
    return report_answer(call.request, {"items": items}, rows, PLAN_COLUMNS)


ENDPOINTS = (
    Endpoint(
        "GET", f"{API}/meters", "read", list_meters,
        report_answers(MeterList, "The meters.", named=False), headers=CACHED,
    ),
    Endpoint(
        "GET", f"{API}/plans", "read", list_plans,
        report_answers(PlanList, "The plans.", named=False), headers=CACHED,
    ),
)  # fmt: skip
