"""Exceptions: everything that needs a person, grouped by cause, with samples, bulk acts and a preview of each."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

import orjson
from starlette.responses import Response

from console.acts import REASON_CHARACTERS_MAX, actor_of
from console.pages import asked, exporting
from console.pages.base import Page, Values, Visit
from console.problems import Problem
from core.errors import MeterbridgeError
from queries import exception_acts
from queries.exception_acts import Person
from queries.exceptions import Group, find, groups
from queries.stores import Stores

_SHOWN_MAX: Final = 200
_CHOSEN_MAX: Final = 100
_AGES: Final[Mapping[str, timedelta | None]] = {
    "all": None,
    "hour": timedelta(hours=1),
    "day": timedelta(days=1),
    "week": timedelta(days=7),
    "month": timedelta(days=31),
}
_COLUMNS: Final = ("key", "kind", "cause", "origin", "count", "first", "last", "tenants", "at_stake", "is_open")


async def show(visit: Visit) -> Values | Response:
    """Return the groups that fit the filters, open ones unless all are asked for."""
    kind = exporting.wanted(visit.request)
    return await visit.services.pool.ask(lambda stores: _answer(visit, stores, kind, None))


def _answer(visit: Visit, stores: Stores, file: str, result: Mapping[str, Any] | None) -> Values | Response:
    request, now = visit.request, visit.services.clock.now()
    kind, tenant = asked.text(request, "kind", 60), asked.text(request, "tenant")
    age = asked.choice(request, "age", tuple(_AGES), "all")
    everything = asked.choice(request, "state", ("open", "all"), "open") == "all"
    since = _AGES[age]
    found = groups(stores, tenant=tenant, since=None if since is None else now - since, everything=everything)
    kinds: Counter[str] = Counter()
    for group in found:
        kinds[group.kind] += group.count
    shown = [group for group in found if not kind or group.kind == kind]
    if file:
        rows = [{name: getattr(group, name) for name in _COLUMNS} for group in shown]
        return exporting.file_of("exceptions", file, _COLUMNS, rows)
    return {
        "groups": shown[:_SHOWN_MAX],
        "more": max(0, len(shown) - _SHOWN_MAX),
        "kinds": kinds.most_common(),
        "kind": kind,
        "tenant": tenant,
        "age": age,
        "ages": list(_AGES),
        "everything": everything,
        "now": now,
        "may_act": "operate" in visit.permissions,
        "result": result,
    }


async def show_one(visit: Visit) -> Values | Response:
    """Return one group with its samples."""
    return await visit.services.pool.ask(lambda stores: _one(visit, stores, None))


def _one(visit: Visit, stores: Stores, result: Mapping[str, Any] | None) -> Values:
    group = _find(stores, [str(visit.request.path_params["key"])])[0]
    return {
        "group": group,
        "samples": [_sample(one) for one in group.samples],
        "may_act": "operate" in visit.permissions,
        "may_send": group.origin == "rejects" or group.kind == "posting_held",
        "now": visit.services.clock.now(),
        "result": result,
    }


def _sample(plain: Mapping[str, Any]) -> dict[str, Any]:
    shown = dict(plain)
    raw = shown.pop("raw", None)
    if raw is not None:
        try:
            shown["event"] = orjson.dumps(orjson.loads(raw), option=orjson.OPT_INDENT_2).decode()
        except orjson.JSONDecodeError:
            shown["event"] = raw
    return shown


def _find(stores: Stores, keys: Sequence[str]) -> list[Group]:
    try:
        return find(stores, keys)
    except MeterbridgeError as error:
        raise Problem("not_found", str(error)) from error


async def act(visit: Visit) -> Values | Response:
    """Resolve the chosen groups, or send them again; a preview says what would be done and changes nothing."""
    result, keys = await _acted(visit)
    if "key" in visit.request.path_params and len(keys) == 1:
        return await visit.services.pool.ask(lambda stores: _one(visit, stores, result))
    return await visit.services.pool.ask(lambda stores: _answer(visit, stores, "", result))


async def _acted(visit: Visit) -> tuple[dict[str, Any], list[str]]:
    if "operate" not in visit.permissions:
        raise Problem("forbidden", f"the role {visit.token.role} may not act on exceptions")
    form = await visit.form()
    keys = list(dict.fromkeys(str(key) for key in form.getlist("key")))
    wanted, reason = str(form.get("act", "")), str(form.get("reason", "")).strip()
    if wanted not in ("retry", "resolve"):
        raise Problem("invalid_request", "act: retry or resolve")
    if not keys or len(keys) > _CHOSEN_MAX:
        return _said("bad", "Nothing was done", f"Choose 1 to {_CHOSEN_MAX} groups first.", []), keys
    if not reason or len(reason) > REASON_CHARACTERS_MAX:
        raise Problem("invalid_request", f"reason: needed, at most {REASON_CHARACTERS_MAX} characters")
    dry_run = form.get("dry_run") == "1"
    person, now = Person(actor_of(visit.token), reason), visit.services.clock.now()

    def work(stores: Stores) -> dict[str, Any]:
        lines, failed = [], 0
        for group in _find(stores, keys):
            try:
                lines.append(f"{group.kind}, {group.cause}: {_do(stores, group, wanted, person, now, dry_run=dry_run)}")
            except MeterbridgeError as error:
                failed += 1
                lines.append(f"{group.kind}, {group.cause}: not done, {error}")
        if dry_run:
            return _said("warn", "Preview: nothing was changed", "", lines)
        return _said("bad" if failed else "good", "Not all was done" if failed else "Done", "", lines)

    return await visit.services.pool.ask(work), keys


def _do(stores: Stores, group: Group, wanted: str, person: Person, now: Any, *, dry_run: bool) -> str:
    if wanted == "resolve":
        if not dry_run:
            exception_acts.resolve(stores, group, person, now)
        return f"{group.count:,} would be marked as seen to" if dry_run else f"{group.count:,} marked as seen to"
    if group.origin != "rejects":
        if dry_run:
            exception_acts.check_releasable(group)
            return f"the poster would try again: {', '.join(group.identities)}"
        return f"tried again: {exception_acts.release(stores, group, person, now)}"
    if dry_run:
        exception_acts.check_sendable(group)
        return f"{group.count:,} events would be sent again as they were"
    lines = [exception_acts.export_line(row) for row in exception_acts.refused_events(stores, group)]
    return f"{exception_acts.send_again(stores, group, lines, person, now):,} events were sent again"


def _said(state: str, title: str, text: str, lines: list[str]) -> dict[str, Any]:
    return {"state": state, "title": title, "text": text, "lines": lines}


PAGE = Page("/exceptions", "exceptions", "Exceptions", "exceptions.html", show, act=act, whole=True)
ONE = Page("/exceptions/{key}", "exception", "", "exception.html", show_one, act=act, whole=True)
