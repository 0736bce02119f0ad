"""Closing: the accounting periods of every entity, what still takes usage, what waits, what is sealed."""

from datetime import datetime
from typing import Final

from starlette.responses import Response

from console.closing import Closings
from console.pages import asked, exporting
from console.pages.base import Page, Values, Visit
from queries.periods import PERIOD_COLUMNS, STATES, periods, plain_periods
from queries.stores import Stores

_MONTHS_SHOWN: Final = 13


async def show(visit: Visit) -> Values | Response:
    """Return the periods of the last year, or all that were asked for."""
    kind = exporting.wanted(visit.request)
    return await visit.services.pool.ask_books(lambda stores: _answer(visit, stores, kind))


def _answer(visit: Visit, stores: Stores, kind: str) -> Values | Response:
    request, now = visit.request, visit.services.clock.now()
    entity = asked.text(request, "entity")
    state = asked.choice(request, "state", STATES)
    span = asked.choice(request, "span", ("year", "all"), "year")
    found = periods(stores, now, since="" if span == "all" else _month(now, _MONTHS_SHOWN - 1), entity=entity)
    shown = [one for one in found if state in ("", one.state)]
    if kind:
        return exporting.file_of("periods", kind, PERIOD_COLUMNS, list(plain_periods(shown)))
    closings = Closings.of(visit.services)
    return {
        "periods": [(one, closings.known(one.entity, one.accounting.name)) for one in shown],
        "counts": {name: sum(one.state == name for one in found) for name in STATES},
        "waiting": sum(one.state == "closed" for one in found),
        "undelivered": sum(one.undelivered for one in found),
        "entities": sorted(one.id for one in stores.history.latest.configuration.entities),
        "entity": entity,
        "state": state,
        "states": STATES,
        "span": span,
        "now": now,
    }


def _month(now: datetime, months_before: int) -> str:
    """Return the name of the month so many before this one, such as 2025-11."""
    number = now.year * 12 + now.month - 1 - months_before
    return f"{number // 12:04d}-{number % 12 + 1:02d}"


PAGE = Page("/closing", "closing", "Closing", "closing.html", show, whole=True)
