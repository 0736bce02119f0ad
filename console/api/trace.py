"""`GET /api/v1/trace/event`: the life of one event, from its arrival to the ERP's number."""

from dataclasses import asdict
from typing import Annotated, Any

import msgspec
import orjson
from starlette.responses import Response

from console import scope
from console.answers import report_answer
from console.api.lists import CACHED, report_answers
from console.endpoint import API, Call, Endpoint
from console.problems import Problem
from console.timeline import STEP_COLUMNS, step_rows, steps_of
from queries.event_trace import EventTrace, trace_event
from queries.stores import Row, Stores


class EventParameters(msgspec.Struct, forbid_unknown_fields=True):
    """An event's identity."""

    source: Annotated[str, msgspec.Meta(min_length=1, max_length=1024, description="The event's CloudEvents source.")]
    id: Annotated[str, msgspec.Meta(min_length=1, max_length=1024, description="The event's id.")]


class EventLife(msgspec.Struct):
    """What became of an event: `accepted`, `voided` or `rejected`; its facts, rated rows, documents and postings.

    `request`: the id of the API request that brought it, while its stream entry is there to be asked.
    """

    source: str
    id: str
    outcome: str
    accepted: dict[str, Any] | None
    refused: list[dict[str, Any]]
    voids: list[dict[str, Any]]
    meters: list[dict[str, Any]]
    request: str | None


async def get_event_trace(call: Call) -> Response:
    """Follow an event: arrival, outcome, facts, rated rows, documents, posting, ERP number.

    As CSV or Parquet it is a row for each step, in order.
    """
    asked: EventParameters = call.parameters

    def ask(stores: Stores) -> EventTrace:
        return _cut(call, stores, trace_event(stores, asked.source, asked.id))

    trace = await call.services.pool.ask(ask)
    if trace.outcome == "unknown":
        detail = "no such event is stored, neither accepted nor refused: it never arrived, or its raw row has expired"
        raise Problem("not_found", detail)
    data = asdict(trace) | {"outcome": trace.outcome}
    return report_answer(call.request, data, step_rows(steps_of(trace)), STEP_COLUMNS)


def _cut(call: Call, stores: Stores, trace: EventTrace) -> EventTrace:
    """Leave out what the token may not see: other tenants' events, and amounts of customers it may not see."""
    own = set(call.token.tenants)
    if not own:
        return trace
    if trace.accepted is not None and trace.accepted["tenant"] not in own:
        trace.accepted, trace.voids, trace.meters, trace.request = None, [], [], None
    trace.refused = [row for row in trace.refused if _subject(row) in own]
    for meter in trace.meters:
        meter.rated = [row for row in meter.rated if scope.sees_customer(call.token, stores.history, row["customer"])]
        meter.documents = [
            row for row in meter.documents if scope.sees_customer(call.token, stores.history, row["customer"])
        ]
    return trace


def _subject(row: Row) -> Any:
    try:
        event = orjson.loads(row["raw"])
    except orjson.JSONDecodeError:
        return None
    return event.get("subject") if isinstance(event, dict) else None


ENDPOINTS = (
    Endpoint(
        "GET", f"{API}/trace/event", "read", get_event_trace, report_answers(EventLife, "The life of the event."),
        parameters=EventParameters, headers=CACHED,
    ),
)  # fmt: skip
