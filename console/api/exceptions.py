"""What needs a person: `GET /api/v1/exceptions` and `/exceptions/{key}`."""

from dataclasses import asdict
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

import msgspec
from starlette.responses import Response

from console import scope
from console.answers import json_answer, rows_answer
from console.api.lists import CACHED, list_answers, one_answers
from console.endpoint import API, Call, Endpoint
from console.paging import cursor_of, position_of
from console.parameters import Cursor, Limit, Name, Time, decimal_of, time_of
from console.problems import Problem
from core.errors import InvalidRequest
from queries.exceptions import Group, find, groups
from queries.stores import Row, Stores

COLUMNS = (
    "key", "kind", "cause", "origin", "count", "first", "last", "tenants", "samples", "resolved_until", "identities",
    "at_stake", "open",
)  # fmt: skip


class CauseGroup(msgspec.Struct):
    """Exceptions of one kind with one cause.

    `identities`: the postings or documents it stands for, where it is of those; `at_stake`: by currency what waits.
    """

    key: str
    kind: str
    cause: str
    origin: str
    count: int
    first: datetime
    last: datetime
    tenants: list[str]
    samples: list[dict[str, Any]]
    resolved_until: datetime | None
    identities: list[str]
    at_stake: dict[str, Decimal]
    open: bool


class CauseList(msgspec.Struct):
    """A page of groups."""

    items: list[CauseGroup]
    next: str | None


class ExceptionsParameters(msgspec.Struct, forbid_unknown_fields=True):
    """Which groups."""

    kind: Annotated[str, msgspec.Meta(max_length=64, description="Such as invalid_quantity or posting_held.")] = ""
    tenant: Name = ""
    since: Time = ""
    amount_min: Annotated[
        str,
        msgspec.Meta(max_length=40, description="Only groups behind which at least that much waits in some currency."),
    ] = ""
    resolved: Annotated[bool, msgspec.Meta(description="Resolved ones too.")] = False
    limit: Limit = 1000
    cursor: Cursor = ""


async def list_exceptions(call: Call) -> Response:
    """List what needs a person, grouped by cause, the largest group first.

    A token of single tenants sees their part of each group.
    """
    asked: ExceptionsParameters = call.parameters
    after = position_of(asked.cursor, (int, str))
    if asked.tenant:
        scope.check_tenant(call.token, asked.tenant)

    def ask(stores: Stores) -> list[Group]:
        return groups(
            stores,
            kind=asked.kind,
            tenant=asked.tenant,
            tenants=call.token.tenants or None,
            since=time_of("since", asked.since),
            amount_min=decimal_of("amount_min", asked.amount_min),
            everything=asked.resolved,
        )

    found = [
        group
        for group in await call.services.pool.ask(ask)
        if after is None or (-group.count, group.key) > (-after[0], after[1])
    ]
    rows = [plain_group(group) for group in found[: asked.limit]]
    following = (rows[-1]["count"], rows[-1]["key"]) if len(found) > asked.limit else None
    return rows_answer(call.request, rows, COLUMNS, cursor_of(following))


async def get_exception(call: Call) -> Response:
    """Return one group with samples."""

    def ask(stores: Stores) -> Group:
        return visible_group(call, stores, call.path["key"])

    return json_answer(call.request, plain_group(await call.services.pool.ask(ask)))


def visible_group(call: Call, stores: Stores, key: str) -> Group:
    """Return the group of that whole key, as far as the token may see it.

    :raises Problem: 404 if there is none.
    """
    try:
        (group,) = find(stores, [key], call.token.tenants or None)
    except InvalidRequest as error:
        raise Problem("not_found", f"there is no group {key[:64]!r}") from error
    if group.key != key:
        raise Problem("not_found", f"there is no group {key[:64]!r}: give the whole key")
    return group


def plain_group(group: Group) -> Row:
    """Return a group as plain values."""
    known = asdict(group) | {"open": group.is_open}
    return {name: known[name] for name in COLUMNS}


ENDPOINTS = (
    Endpoint(
        "GET", f"{API}/exceptions", "read", list_exceptions, list_answers(CauseList, "A page of groups."),
        parameters=ExceptionsParameters, headers=CACHED,
    ),
    Endpoint(
        "GET", f"{API}/exceptions/{{key}}", "read", get_exception, one_answers(CauseGroup, "The group."),
        headers=CACHED,
    ),
)  # fmt: skip
