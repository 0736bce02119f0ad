"""Accounting periods: `GET /api/v1/periods` and `/periods/{entity}/{period}`."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
import orjson
from sqlalchemy import select
from starlette.responses import Response

from config.period_closes import PeriodClose
from console import scope
from console.answers import json_answer, rows_answer
from console.api.lists import CACHED, list_answers, one_answers
from console.closing import period_named
from console.endpoint import API, Call, Endpoint
from console.paging import cursor_of, position_of
from console.parameters import Cursor, Limit, Name
from queries.periods import PERIOD_COLUMNS, periods, plain_periods
from queries.stores import Stores
from sinks.ledger import tables
from sinks.ledger.database import read
from sinks.ledger.times import to_datetime

State = Literal["open", "closing", "closed", "sealed"]


class PeriodRow(msgspec.Struct):
    """An entity's accounting period.

    `state`: `open` until it has ended, `closing` while it still takes late usage of its own, `closed`, or `sealed` by a
    signed summary. `state_by`: its `cut-off`, or the recorded `close` or `reopen`. `takes_until`: when it takes nothing
    more, as far as is known now. `undelivered`: postings that are not in the ERP. `blocks`: what is known to stand
    against sealing it; a check (`close` with `dry_run`) may find more.
    """

    entity: str
    accounting_period: str
    state: State
    state_by: str
    begins: datetime
    ends: datetime
    takes_until: datetime | None
    documents: int
    without_posting: int
    postings: int
    undelivered: int
    blocks: list[str]
    seal_number: int | None
    sealed_at: datetime | None
    sealed_by: str
    sha256: str


class PeriodList(msgspec.Struct):
    """A page of accounting periods."""

    items: list[PeriodRow]
    next: str | None


class Recorded(msgspec.Struct):
    """A close or reopen that somebody recorded; hours from `known_from` on know it."""

    action: Literal["close", "reopen"]
    known_from: datetime


class PeriodDetail(PeriodRow):
    """A period with what was recorded about it, its postings by state, and its signed summary if it is sealed."""

    recorded: list[Recorded] = []
    postings_by_state: dict[str, int] = {}
    summary: dict[str, Any] | None = None
    signature: str = ""
    key_id: str = ""


class PeriodsParameters(msgspec.Struct, forbid_unknown_fields=True):
    """Which periods."""

    entity: Name = ""
    state: Annotated[
        Literal["", "open", "closing", "closed", "sealed"], msgspec.Meta(description="Only those in that state.")
    ] = ""
    since: Annotated[
        str, msgspec.Meta(pattern=r"^([0-9]{4}-[0-9]{2})?$", description="None before that one, such as 2025-11.")
    ] = ""
    limit: Limit = 1000
    cursor: Cursor = ""


async def list_periods(call: Call) -> Response:
    """List the running period of each entity and all that have documents, the newest first."""
    scope.check_unscoped(call.token)
    asked: PeriodsParameters = call.parameters
    after = position_of(asked.cursor, (str, str))
    now = call.services.clock.now()
    found = await call.services.pool.ask_books(
        lambda stores: periods(stores, now, since=asked.since, entity=asked.entity)
    )
    wanted = [
        one
        for one in found
        if asked.state in ("", one.state) and (after is None or (one.accounting.name, one.entity) < after)
    ]
    rows = list(plain_periods(wanted[: asked.limit]))
    last = (rows[-1]["accounting_period"], rows[-1]["entity"]) if len(wanted) > asked.limit else None
    return rows_answer(call.request, rows, PERIOD_COLUMNS, cursor_of(last))


async def get_period(call: Call) -> Response:
    """Return one period with what was recorded about it, and its signed summary if it is sealed."""
    scope.check_unscoped(call.token)
    entity, name, now = call.path["entity"], call.path["period"], call.services.clock.now()

    def ask(stores: Stores) -> dict[str, Any]:
        one = period_named(stores, entity, name, now)
        return next(plain_periods([one])) | {
            "recorded": _recorded(one.recorded),
            "postings_by_state": one.postings,
        } | _sealed(stores, entity, name)  # fmt: skip

    return json_answer(call.request, await call.services.pool.ask_books(ask))


def _recorded(facts: Sequence[PeriodClose]) -> list[dict[str, Any]]:
    return [{"action": one.action, "known_from": to_datetime(one.known_from_ms)} for one in facts]


def _sealed(stores: Stores, entity: str, name: str) -> dict[str, Any]:
    table = tables.period_seals.c
    query = select(table.json, table.signature, table.key_id)
    with read(stores.engine) as connection:
        row = connection.execute(query.where(table.entity == entity, table.accounting_period == name)).first()
    if row is None:
        return {"summary": None, "signature": "", "key_id": ""}
    return {"summary": orjson.loads(row.json), "signature": row.signature, "key_id": row.key_id}


ENDPOINTS = (
    Endpoint(
        "GET", f"{API}/periods", "read", list_periods, list_answers(PeriodList, "A page of periods."),
        parameters=PeriodsParameters, headers=CACHED,
    ),
    Endpoint(
        "GET", f"{API}/periods/{{entity}}/{{period}}", "read", get_period,
        one_answers(PeriodDetail, "The period."), headers=CACHED,
    ),
)  # fmt: skip
