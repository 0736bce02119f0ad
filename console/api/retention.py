"""What is kept how long, and legal holds: `GET /api/v1/retention` and `/holds`."""

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Literal

import msgspec
from sqlalchemy import Engine
from starlette.responses import Response

from console import scope
from console.answers import rows_answer
from console.api.lists import CACHED, list_answers
from console.endpoint import API, Call, Endpoint
from console.keeping import HOLD_COLUMNS, POLICY_COLUMNS, plain_policy
from console.paging import cursor_of, position_of
from console.parameters import Cursor, Limit
from flows.retention import policies
from sinks.ledger import retention
from sinks.ledger.retention import Hold
from sinks.ledger.times import to_ms


class PolicyRow(msgspec.Struct):
    """The policy of one table.

    `months`: whole months kept, null for ever. `kept_from`: rows from before it are older than the policy says.
    `due_months` (such as 202410) go with the next `meterbridge retention --apply`; `expired_months` went before.
    """

    table: str
    goes_by: str
    months: int | None
    kept_from: datetime | None
    due_months: list[int]
    rows_to_remove: int
    rows_on_hold: int
    expired_months: list[int]
    removed_rows: int


class PolicyList(msgspec.Struct):
    """The policy, table by table."""

    items: list[PolicyRow]
    next: str | None


class HoldRow(msgspec.Struct):
    """A legal hold: rows of this customer (with all its tenants) or tenant stay."""

    kind: Literal["customer", "tenant"]
    name: str
    placed_at: datetime
    actor: str
    reason: str
    released_at: datetime | None


class HoldList(msgspec.Struct):
    """A page of legal holds."""

    items: list[HoldRow]
    next: str | None


class PolicyParameters(msgspec.Struct, forbid_unknown_fields=True):
    """The policy has a row for each table."""

    limit: Limit = 1000
    cursor: Cursor = ""


class HoldsParameters(msgspec.Struct, forbid_unknown_fields=True):
    """Which holds."""

    ended: Annotated[bool, msgspec.Meta(description="Ended ones too.")] = False
    limit: Limit = 1000
    cursor: Cursor = ""


async def list_retention(call: Call) -> Response:
    """List what the policy says of each table, what of it is due, and what went before."""
    scope.check_unscoped(call.token)
    asked: PolicyParameters = call.parameters
    after = position_of(asked.cursor, (str,))
    now = call.services.clock.now()
    found = await call.services.pool.ask(lambda stores: policies(stores, now))
    names = [one.table for one in found]
    first = 0 if after is None or after[0] not in names else names.index(after[0]) + 1
    shown = found[first : first + asked.limit]
    following = (shown[-1].table,) if first + asked.limit < len(found) else None
    return rows_answer(call.request, [plain_policy(one) for one in shown], POLICY_COLUMNS, cursor_of(following))


async def list_holds(call: Call) -> Response:
    """List legal holds, by kind and name, the oldest of each first."""
    scope.check_unscoped(call.token)
    asked: HoldsParameters = call.parameters
    after = position_of(asked.cursor, (str, str, int))

    def ask(engine: Engine) -> list[Hold]:
        return sorted(retention.holds(engine, released=asked.ended), key=_place)

    found = [one for one in await call.services.pool.ask_ledger(ask) if after is None or _place(one) > after]
    shown = found[: asked.limit]
    following = _place(shown[-1]) if len(found) > asked.limit else None
    return rows_answer(call.request, [asdict(one) for one in shown], HOLD_COLUMNS, cursor_of(following))


def _place(one: Hold) -> tuple[str, str, int]:
    return one.kind, one.name, to_ms(one.placed_at)


ENDPOINTS = (
    Endpoint(
        "GET", f"{API}/retention", "read", list_retention, list_answers(PolicyList, "The policy."),
        parameters=PolicyParameters, headers=CACHED,
    ),
    Endpoint(
        "GET", f"{API}/holds", "read", list_holds, list_answers(HoldList, "A page of legal holds."),
        parameters=HoldsParameters, headers=CACHED,
    ),
)  # fmt: skip
