"""How everything does: `GET /api/v1/status`, the same live as `/api/v1/live`, and `/api/v1/reconciliation`."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any, Final

import msgspec
from starlette.responses import Response, StreamingResponse

from console import scope
from console.answers import JSON, json_answer, report_answer
from console.api.lists import CACHED, NOT_CHANGED, report_answers
from console.endpoint import API, Answer, Call, Endpoint
from console.live import ENDED, read_overview
from console.parameters import Time, time_of
from console.problems import Problem
from console.reconciling import COLUMNS as RECONCILIATION_COLUMNS
from console.reconciling import LastReport, rows_of
from queries.reconcile import report_to_plain

EVENT_STREAM: Final = "text/event-stream"
HEARTBEAT_S: Final = 15.0
"""Proxies close what says nothing; also how often a stream looks whether its token is still in force."""


class Status(msgspec.Struct):
    """The state of everything; a part whose server is away is null, and `errors` says why."""

    at: datetime
    books: dict[str, Any] | None
    streams: dict[str, Any] | None
    intake: dict[str, Any] | None
    exceptions: dict[str, Any] | None
    errors: dict[str, str]


class ReconciliationCheck(msgspec.Struct):
    """One identity: how many groups were compared, how many differ, and the first 100 that do."""

    name: str
    left: str
    right: str
    groups: int
    broken: int
    note: str
    breaks: list[dict[str, Any]]


class Reconciliation(msgspec.Struct):
    """Every identity between events, facts, rated rows, documents and postings, over a span of booked hours."""

    holds: bool
    from_: datetime = msgspec.field(name="from")
    to: datetime
    made_at: datetime
    checks: list[ReconciliationCheck]


class SpanParameters(msgspec.Struct, forbid_unknown_fields=True, rename={"from_": "from"}):
    """Booked hours; all that is sealed if not given."""

    from_: Time = ""
    to: Time = ""
    again: Annotated[bool, msgspec.Meta(description="Make a new report, however young the last one is.")] = False


async def get_status(call: Call) -> Response:
    """Tell how intake, streams, books, postings, ERPs and exceptions do."""
    scope.check_unscoped(call.token)
    return json_answer(call.request, await read_overview(call.services.pool, call.services.clock))


async def get_live(call: Call) -> Response:
    """Stream the status as server-sent events, one every few seconds."""
    scope.check_unscoped(call.token)
    broadcast = call.services.live
    broadcast.check_room()

    async def events() -> AsyncIterator[bytes]:
        async with broadcast.listen() as queue:
            while True:
                try:
                    message = await asyncio.wait_for(queue.get(), HEARTBEAT_S)
                    if message == ENDED:
                        return
                    yield b"event: overview\ndata: " + message + b"\n\n"
                except TimeoutError:
                    yield b": still here\n\n"
                if await _ended(call):
                    return

    return StreamingResponse(events(), media_type=EVENT_STREAM, headers={"Cache-Control": "no-store"})


async def _ended(call: Call) -> bool:
    try:
        await call.services.authenticator.token_of(call.request)
    except Problem:
        return True
    return False


async def get_reconciliation(call: Call) -> Response:
    """Compare every account of the same thing, to the last digit, over a span of sealed booked hours.

    A report is at most five minutes old; `again` makes a new one. As CSV or Parquet it has a row for each check that
    holds, and one for each group in which another does not.
    """
    scope.check_unscoped(call.token)
    asked: SpanParameters = call.parameters
    reports = LastReport.of(call.services)
    known = await reports.ask(call.services, time_of("from", asked.from_), time_of("to", asked.to), again=asked.again)
    plain = report_to_plain(known.report) | {"made_at": known.made_at.replace(microsecond=0)}
    return report_answer(call.request, plain, rows_of(known.report), RECONCILIATION_COLUMNS)


ENDPOINTS = (
    Endpoint(
        "GET", f"{API}/status", "read", get_status,
        {200: Answer("The status.", {JSON: Status}, ("ETag",)), 304: NOT_CHANGED}, headers=CACHED,
    ),
    Endpoint(
        "GET", f"{API}/live", "read", get_live,
        {200: Answer("The status, again and again, as the event `overview`.", {EVENT_STREAM: None})},
    ),
    Endpoint(
        "GET", f"{API}/reconciliation", "read", get_reconciliation,
        report_answers(Reconciliation, "The report.", named=False),
        parameters=SpanParameters, headers=CACHED,
    ),
)  # fmt: skip
