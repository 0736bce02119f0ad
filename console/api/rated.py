"""Rated rows and their explanations: `GET /api/v1/rated-rows` and `/rated-rows/explained`."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

import msgspec
from starlette.responses import Response

from console.answers import JSON, json_answer, rows_answer
from console.api.customers import check_customer
from console.api.documents import visible_document
from console.api.lists import CACHED, NOT_CHANGED, list_answers
from console.api.openapi import problem_answer
from console.endpoint import API, Answer, Call, Endpoint
from console.paging import cursor_of, position_of
from console.parameters import Cursor, Limit, Name, Time, time_of
from console.problems import Problem
from operators.rate_explain import RowExplanation
from operators.rating.explain_text import difference_to_plain, to_plain
from queries.rated_rows import Selection, explained, of_document, page
from queries.stores import Row, Stores

COLUMNS = (
    "customer", "contract", "plan", "plan_version", "charge", "price_row", "meter", "period_start", "usage_hour",
    "booked_hour", "accounting_period", "original_period", "line_kind", "quantity", "events", "amount",
    "amount_before", "amount_after", "currency", "config_version",
)  # fmt: skip
EXPLAINED_MAX = 200


class RatedRow(msgspec.Struct):
    """A sealed rated row: the step of a charge from one quantity to date to the next, exact and unrounded."""

    customer: str
    contract: str
    plan: str
    plan_version: int
    charge: str
    price_row: str
    meter: str
    period_start: datetime
    usage_hour: datetime
    booked_hour: datetime
    accounting_period: str
    original_period: str
    line_kind: str
    quantity: Decimal
    events: int
    amount: Decimal
    amount_before: Decimal
    amount_after: Decimal
    currency: str
    config_version: str


class RatedList(msgspec.Struct):
    """A page of rated rows."""

    items: list[RatedRow]
    next: str | None


class ExplainedRow(msgspec.Struct):
    """A row, the calculation before and after it (`step`) or of the whole period (`final`), and whether it ties."""

    row: RatedRow
    step: dict[str, Any] | None
    final: dict[str, Any] | None
    amount_expected: Decimal | None
    ties: bool
    notes: list[str]


class ExplainedList(msgspec.Struct):
    """Explained rows, the oldest first; `rows_in_all` is how many fit."""

    items: list[ExplainedRow]
    rows_in_all: int


class RowsParameters(msgspec.Struct, forbid_unknown_fields=True):
    """Which rows: give a document or a customer."""

    customer: Name = ""
    document: Annotated[str, msgspec.Meta(max_length=64, description="Key of a document: the rows it is made of.")] = ""
    contract: Name = ""
    charge: Name = ""
    kind: Annotated[str, msgspec.Meta(max_length=64, description="Such as usage, late_usage, void or true_up.")] = ""
    booked_hour: Time = ""
    usage_hour: Time = ""
    limit: Limit = 1000
    cursor: Cursor = ""


class ExplainParameters(msgspec.Struct, forbid_unknown_fields=True):
    """Which rows: give a document or a customer."""

    customer: Name = ""
    document: Annotated[str, msgspec.Meta(max_length=64, description="Key of a document: the rows it is made of.")] = ""
    contract: Name = ""
    charge: Name = ""
    kind: Annotated[str, msgspec.Meta(max_length=64, description="Such as usage, late_usage, void or true_up.")] = ""
    booked_hour: Time = ""
    usage_hour: Time = ""
    limit: Annotated[int, msgspec.Meta(ge=1, le=EXPLAINED_MAX, description="Rows explained.")] = 10


def _selection(call: Call, stores: Stores) -> Selection:
    asked: RowsParameters | ExplainParameters = call.parameters
    if bool(asked.customer) == bool(asked.document):
        raise Problem("invalid_request", "which rows? Give either `customer` or `document`")
    if asked.document:
        visible_document(call, stores, asked.document)
        return of_document(stores, asked.document, asked.charge or None)
    check_customer(call, stores.history, asked.customer)
    return Selection(
        customer=asked.customer,
        contract=asked.contract or None,
        charge=asked.charge or None,
        line_kind=asked.kind or None,
        booked_hour=time_of("booked_hour", asked.booked_hour),
        usage_hour=time_of("usage_hour", asked.usage_hour),
    )


async def list_rated_rows(call: Call) -> Response:
    """List sealed rated rows of a customer or a document, the oldest booked hour first."""
    asked: RowsParameters = call.parameters
    after = position_of(asked.cursor, (int, str))

    def ask(stores: Stores) -> tuple[list[Row], tuple[Any, ...] | None]:
        return page(stores, _selection(call, stores), asked.limit, after)

    rows, following = await call.services.pool.ask(ask)
    return rows_answer(call.request, rows, COLUMNS, cursor_of(following))


async def explain_rated_rows(call: Call) -> Response:
    """Explain rated rows: quantities to date, tier by tier, before and after, and that they tie with what is stored."""
    asked: ExplainParameters = call.parameters

    def ask(stores: Stores) -> tuple[list[RowExplanation], int]:
        return explained(stores, _selection(call, stores), asked.limit)

    rows, total = await call.services.pool.ask(ask)
    return json_answer(call.request, {"items": [_plain(row) for row in rows], "rows_in_all": total})


def _plain(found: RowExplanation) -> dict[str, Any]:
    return {
        "row": dict(found.row),
        "step": None if found.step is None else difference_to_plain(found.step),
        "final": None if found.final is None else to_plain(found.final),
        "amount_expected": found.expected,
        "ties": found.ties,
        "notes": list(found.notes),
    }


ENDPOINTS = (
    Endpoint(
        "GET", f"{API}/rated-rows", "read", list_rated_rows,
        {**list_answers(RatedList, "A page of rated rows."), 404: problem_answer(404)},
        parameters=RowsParameters, headers=CACHED,
    ),
    Endpoint(
        "GET", f"{API}/rated-rows/explained", "read", explain_rated_rows,
        {200: Answer("Explained rows.", {JSON: ExplainedList}, ("ETag",)), 304: NOT_CHANGED, 404: problem_answer(404),
         422: problem_answer(422)},
        parameters=ExplainParameters, headers=CACHED,
    ),
)  # fmt: skip
