"""One accounting period: is it complete, what stands against sealing it, its signed summary; check, close, reopen."""

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Engine
from starlette.responses import Response

from console import book_acts
from console.acts import REASON_CHARACTERS_MAX, Acting
from console.closing import Closings, period_named
from console.pages import exporting
from console.pages.base import Page, Values, Visit
from console.problems import Problem, of_error
from core.errors import MeterbridgeError
from queries.stores import Row, Stores
from sinks.ledger import audit, seals
from sinks.ledger.database import read
from sinks.ledger.times import to_datetime

_ITEMS_SHOWN_MAX: Final = 5
_ACTS: Final = ("check", "seal", "close", "reopen")
_COLUMNS: Final = ("check", "holds", "may_be_accepted", "detail", "items")


async def show(visit: Visit) -> Values | Response:
    """Return the period; a format gives what the last check found as a file."""
    return await visit.services.pool.ask_books(lambda stores: _values(visit, stores, None))


def _values(visit: Visit, stores: Stores, result: Mapping[str, Any] | None) -> Values | Response:
    entity, name = _named(visit)
    now = visit.services.clock.now()
    period = period_named(stores, entity, name, now)
    closings = Closings.of(visit.services)
    known = closings.known(entity, name)
    if file := exporting.wanted(visit.request):
        if known is None:
            raise Problem("not_found", f"{name} of {entity} was not checked since this service started: check it first")
        return exporting.file_of(f"closing-{entity}-{name}", file, _COLUMNS, _findings(known.outcome.findings))
    with read(stores.engine) as connection:
        seal = seals.find(connection, entity, name)
    may_close = "approve" in visit.permissions
    return {
        "period": period,
        "known": known,
        "under_way": closings.under_way,
        "seal": seal,
        "summary": None if seal is None else seal.summary,
        "digests": seal.summary["digests"] if seal else known.outcome.parts if known else {},
        "history": _history(stores.engine, entity, name),
        "items_max": _ITEMS_SHOWN_MAX,
        "may_seal": may_close and seal is None,
        "may_close": may_close and period.state in ("open", "closing"),
        "may_reopen": may_close and period.state == "closed",
        "can_sign": stores.settings.closing.key_file is not None,
        "now": now,
        "result": result,
    }


def _named(visit: Visit) -> tuple[str, str]:
    return str(visit.request.path_params["entity"]), str(visit.request.path_params["period"])


def _findings(findings: Any) -> list[Row]:
    return [
        {
            "check": one.name,
            "holds": one.holds,
            "may_be_accepted": one.acceptable,
            "detail": one.detail,
            "items": "; ".join(", ".join(f"{name} {value}" for name, value in item.items()) for item in one.items),
        }
        for one in findings
    ]


def _history(engine: Engine, entity: str, name: str) -> list[Row]:
    with read(engine) as connection:
        rows = audit.entries(connection, f"{entity}/{name}", 100)
    return [row | {"at": to_datetime(row["at_ms"])} for row in rows]


async def act(visit: Visit) -> Values | Response:
    """Check the period, seal it, or record that it is closed or open again; a preview changes nothing."""
    form = await visit.form()
    wanted, reason = str(form.get("act", "")), str(form.get("reason", "")).strip()
    if wanted not in _ACTS:
        raise Problem("invalid_request", f"act: one of {', '.join(_ACTS)}")
    dry_run = form.get("dry_run") == "1" or wanted == "check"
    if wanted != "check":
        if "approve" not in visit.permissions:
            raise Problem("forbidden", f"the role {visit.token.role} may not close or reopen periods")
        if not reason or len(reason) > REASON_CHARACTERS_MAX:
            raise Problem("invalid_request", f"reason: needed, at most {REASON_CHARACTERS_MAX} characters")
    accept = form.get("accept") == "1"

    def work(stores: Stores) -> dict[str, Any]:
        acting = Acting(stores, visit.token, visit.services.clock, reason, dry_run)
        return _do(visit, acting, wanted, accept=accept)

    try:
        result = await visit.services.pool.ask_books(work)
    except (Problem, MeterbridgeError) as error:
        problem = of_error(error)
        if problem.code in ("not_found", "forbidden"):
            raise
        result = _refused(problem)
    return await visit.services.pool.ask_books(lambda stores: _values(visit, stores, result))


def _do(visit: Visit, acting: Acting, wanted: str, *, accept: bool) -> dict[str, Any]:
    entity, name = _named(visit)
    if wanted in ("check", "seal"):
        done = book_acts.seal(acting, Closings.of(visit.services), entity, name, accept=accept)
    else:
        done = book_acts.record(acting, entity, name, "close" if wanted == "close" else "reopen")
    if not acting.dry_run:
        return _said("good", "Done", done["said"])
    if wanted == "check":
        return _said("good" if done["changed"] or done.get("sealed") else "warn", "Checked", done["said"])
    return _said("warn", "Preview: nothing was changed", done["said"])


def _refused(problem: Problem) -> dict[str, Any]:
    if problem.code == "timed_out":
        text = "It takes longer than a page may, and goes on: look again in a moment."
        return {"state": "warn", "title": "Under way", "text": text, "lines": []}
    return {"state": "bad", "title": "Nothing was changed", "text": problem.detail, "lines": []}


def _said(state: str, title: str, text: str) -> dict[str, Any]:
    return {"state": state, "title": title, "text": f"{text}.", "lines": []}


PAGE = Page("/closing/{entity}/{period}", "period", "", "period.html", show, act=act, whole=True)
