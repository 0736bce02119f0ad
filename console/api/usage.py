"""`GET /api/v1/usage`: a meter's usage by window, tenant and dimensions, as known now or then."""

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal

import msgspec
from starlette.responses import Response

from console import scope
from console.answers import CSV, JSON, PARQUET, rows_answer
from console.api.openapi import problem_answer
from console.endpoint import API, Answer, Call, Endpoint
from console.paging import cursor_of, position_of
from console.parameters import Cursor, Limit, Time, pairs, time_of
from console.problems import Problem
from queries.usage import TENANT, UsagePage, UsageQuestion, usage

COLUMNS = ("window_start", "window_end", "tenant", "dimensions", "value", "events", "late_events", "open")
GROUPS_MAX = 8


class UsageParameters(msgspec.Struct, forbid_unknown_fields=True, rename={"from_": "from"}):
    """What to ask for."""

    meter: Annotated[str, msgspec.Meta(min_length=1, max_length=256, description="The meter's id.")]
    from_: Time = ""
    to: Time = ""
    window: Annotated[
        Literal["minute", "hour", "day", "month", "total"], msgspec.Meta(description="Size of a window.")
    ] = "hour"
    timezone: Annotated[
        str, msgspec.Meta(max_length=64, description="IANA time zone in which hours, days and months begin.")
    ] = "UTC"
    tenant: Annotated[list[str], msgspec.Meta(description="Only these tenants (subjects).", max_length=100)] = []
    dimension: Annotated[
        list[str],
        msgspec.Meta(
            description="Only this dimension value, as `name:value`; values of one name add up.", max_length=100
        ),
    ] = []
    group_by: Annotated[
        list[str], msgspec.Meta(description="`tenant` or the name of a dimension.", max_length=GROUPS_MAX)
    ] = []
    as_of: Annotated[
        str, msgspec.Meta(max_length=64, description="As the books stood then: only what was booked before that time.")
    ] = ""
    limit: Limit = 1000
    cursor: Cursor = ""


class UsageRow(msgspec.Struct):
    """Usage of one window and group.

    `value` merges facts of a series by the meter's own function and adds up series, as charges do. `late_events` were
    booked after the minute they were used in. `open`: later events may still change it.
    """

    window_start: datetime
    window_end: datetime
    tenant: str | None
    dimensions: dict[str, str]
    value: Decimal
    events: int
    late_events: int
    open: bool


class UsageRows(msgspec.Struct):
    """A page of usage."""

    items: list[UsageRow]
    next: str | None


async def get_usage(call: Call) -> Response:
    """Return a meter's usage by window, tenant and dimensions.

    The span is the last 24 hours if none is given; windows at its edges hold what lies in it. Late usage counts in the
    window in which it was used.
    """
    asked: UsageParameters = call.parameters
    now = call.services.clock.now()
    ends = time_of("to", asked.to) or now
    begins = time_of("from", asked.from_) or ends - timedelta(days=1)
    group_by = tuple(dict.fromkeys(asked.group_by))
    kinds: tuple[type, ...] = (int, *([str] * len(group_by)))
    question = UsageQuestion(
        meter=asked.meter,
        window=asked.window,
        begins=begins.replace(second=0, microsecond=0),
        ends=ends,
        zone=asked.timezone,
        tenants=scope.tenants_of(call.token, asked.tenant),
        dimensions=pairs("dimension", asked.dimension),
        group_by=group_by,
        as_of=time_of("as_of", asked.as_of),
        after=position_of(asked.cursor, kinds),
        limit=asked.limit,
    )
    if TENANT in question.dimensions:
        raise Problem("invalid_request", "the tenant is no dimension: use the parameter `tenant`")
    page: UsagePage = await call.services.pool.ask(lambda stores: usage(stores, question))
    rows: list[dict[str, Any]] = page.rows
    return rows_answer(call.request, rows, COLUMNS, cursor_of(page.next))


ENDPOINTS = (
    Endpoint(
        "GET",
        f"{API}/usage",
        "read",
        get_usage,
        {
            200: Answer("A page of usage.", {JSON: UsageRows, CSV: None, PARQUET: None}, ("ETag", "Link")),
            304: Answer("The answer is what the caller has.", headers=("ETag",)),
            406: problem_answer(406),
            422: problem_answer(422),
        },
        parameters=UsageParameters,
        headers={"If-None-Match": "ETag of an answer the caller has."},
    ),
)
