"""Retention: what the policy says of each table, what of it is due, what went, and legal holds."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from starlette.responses import Response

from console import book_acts
from console.acts import REASON_CHARACTERS_MAX, Acting
from console.keeping import HOLD_COLUMNS, POLICY_COLUMNS, plain_policy
from console.pages import asked, exporting
from console.pages.base import Page, Values, Visit
from console.problems import Problem, of_error
from core.errors import MeterbridgeError
from flows.retention import policies
from queries.stores import Stores
from sinks.ledger import retention
from sinks.ledger.retention import HoldKind

_NAME_MAX: Final = 256
_KINDS: Final = ("customer", "tenant")
_EXPIRED_COLUMNS: Final = ("table", "month", "removed_rows", "kept_rows", "digest", "recorded_at")


async def show(visit: Visit) -> Values | Response:
    """Return policy and holds; a format gives one of them as a file."""
    return await visit.services.pool.ask(lambda stores: _values(visit, stores, None))


def _values(visit: Visit, stores: Stores, result: Mapping[str, Any] | None) -> Values | Response:
    request, now = visit.request, visit.services.clock.now()
    ended = asked.choice(request, "ended", ("1",)) == "1"
    found = policies(stores, now)
    holds = sorted(retention.holds(stores.engine, released=ended), key=lambda one: (one.kind, one.name, one.placed_at))
    expired = [gone for one in found for gone in one.expired]
    if file := exporting.wanted(request):
        what = asked.choice(request, "what", ("policy", "holds", "expired"), "policy")
        if what == "holds":
            return exporting.file_of("holds", file, HOLD_COLUMNS, [asdict(one) for one in holds])
        if what == "expired":
            return exporting.file_of("expired", file, _EXPIRED_COLUMNS, [asdict(one) for one in expired])
        return exporting.file_of("retention", file, POLICY_COLUMNS, [plain_policy(one) for one in found])
    return {
        "policies": found,
        "removes": sum(one.removes for one in found),
        "held": sum(one.held for one in found),
        "holds": holds,
        "in_force": sum(one.released_at is None for one in holds),
        "expired": sorted(expired, key=lambda one: (one.month, one.table), reverse=True),
        "ended": ended,
        "chosen": {"kind": asked.choice(request, "kind", _KINDS), "name": asked.text(request, "name", _NAME_MAX)},
        "customers": sorted(one.id for one in stores.history.latest.configuration.customers),
        "ttl_tables": sorted(stores.settings.clickhouse.retention_days),
        "may_hold": "administer" in visit.permissions,
        "now": now,
        "result": result,
    }


async def act(visit: Visit) -> Values | Response:
    """Place or lift a hold, for administrators; a preview changes nothing."""
    if "administer" not in visit.permissions:
        raise Problem("forbidden", f"the role {visit.token.role} may not place or lift legal holds")
    form = await visit.form()
    wanted, reason = str(form.get("act", "")), str(form.get("reason", "")).strip()
    kind, name = _kind(str(form.get("kind", ""))), str(form.get("name", "")).strip()
    if wanted not in ("place", "lift"):
        raise Problem("invalid_request", "act: place or lift")
    if not name or len(name) > _NAME_MAX or not name.isprintable():
        raise Problem("invalid_request", f"name: needed, at most {_NAME_MAX} printable characters")
    if not reason or len(reason) > REASON_CHARACTERS_MAX:
        raise Problem("invalid_request", f"reason: needed, at most {REASON_CHARACTERS_MAX} characters")
    dry_run = form.get("dry_run") == "1"
    do = book_acts.place_hold if wanted == "place" else book_acts.lift_hold

    def work(stores: Stores) -> Values | Response:
        acting = Acting(stores, visit.token, visit.services.clock, reason, dry_run)
        try:
            done = do(acting, kind, name)
        except MeterbridgeError as error:
            text = of_error(error).detail
            return _values(visit, stores, {"state": "bad", "title": "Nothing was changed", "text": text, "lines": []})
        state, title = ("warn", "Preview: nothing was changed") if dry_run else ("good", "Done")
        return _values(visit, stores, {"state": state, "title": title, "text": f"{done['said']}.", "lines": []})

    return await visit.services.pool.ask(work)


def _kind(text: str) -> HoldKind:
    if text == "customer":
        return "customer"
    if text == "tenant":
        return "tenant"
    raise Problem("invalid_request", "kind: customer or tenant")


PAGE = Page("/retention", "retention", "Retention", "retention.html", show, act=act, whole=True)
