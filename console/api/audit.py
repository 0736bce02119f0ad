"""`GET /api/v1/audit`: who did what, when and why. For administrators."""

from datetime import datetime
from typing import Annotated, Any

import msgspec
from sqlalchemy import Engine
from starlette.responses import Response

from console import scope
from console.answers import rows_answer
from console.api.lists import CACHED, list_answers
from console.endpoint import API, Call, Endpoint
from console.paging import cursor_of, position_of
from console.parameters import Cursor, Limit
from sinks.ledger import audit
from sinks.ledger.database import read
from sinks.ledger.times import to_datetime

COLUMNS = ("id", "at", "actor", "action", "subject", "reason", "detail")


class AuditRow(msgspec.Struct):
    """One act. Rows are only ever added."""

    id: int
    at: datetime
    actor: str
    action: str
    subject: str
    reason: str
    detail: str


class AuditList(msgspec.Struct):
    """A page of the audit log."""

    items: list[AuditRow]
    next: str | None


class AuditParameters(msgspec.Struct, forbid_unknown_fields=True):
    """Which rows."""

    action: Annotated[str, msgspec.Meta(max_length=64, description="Such as approve, reverse or create_token.")] = ""
    limit: Limit = 1000
    cursor: Cursor = ""


async def list_audit(call: Call) -> Response:
    """List the audit log, the newest act first."""
    scope.check_unscoped(call.token)
    asked: AuditParameters = call.parameters
    after = position_of(asked.cursor, (int,))

    def ask(engine: Engine) -> list[dict[str, Any]]:
        with read(engine) as connection:
            return audit.page(connection, None if after is None else after[0], asked.limit + 1, asked.action)

    found = await call.services.pool.ask_ledger(ask)
    rows = [row | {"at": to_datetime(row["at_ms"])} for row in found[: asked.limit]]
    shown = [{name: row[name] for name in COLUMNS} for row in rows]
    following = (rows[-1]["id"],) if len(found) > asked.limit else None
    return rows_answer(call.request, shown, COLUMNS, cursor_of(following))


ENDPOINTS = (
    Endpoint(
        "GET", f"{API}/audit", "administer", list_audit, list_answers(AuditList, "A page of the audit log."),
        parameters=AuditParameters, headers=CACHED,
    ),
)  # fmt: skip
