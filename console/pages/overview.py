"""The first page: what flows in, how fresh it is, how far the books are, what waits for somebody."""

from collections import Counter
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from starlette.responses import RedirectResponse, Response

from console.pages import live
from console.pages.base import Page, Values, Visit
from console.reconciling import LastReport
from queries import exceptions
from queries.standing import OUTCOMES, Intake, chart_of, intake, last_arrival
from queries.standing import books as books_of
from queries.stores import Stores
from sinks.ledger.amounts import exact

_DAY: Final = timedelta(days=1)
_STEP_MINUTES: Final = 15
_NAMES: Final = {
    "accepted": ("accepted", "good"),
    "duplicate": ("duplicates, counted once", ""),
    "conflicting_duplicate": ("conflicting duplicates", "warn"),
    "rejected": ("rejected", "bad"),
}


async def show(visit: Visit) -> Values | Response:
    """Return what the page shows; whoever sees single tenants only begins with their usage."""
    if visit.token.tenants:
        return RedirectResponse("/usage", status_code=303)
    now = visit.services.clock.now()
    values = await visit.services.pool.ask(lambda stores: _values(stores, now))
    reports = LastReport.of(visit.services)
    reports.renew(visit.services)
    return values | {
        "live": live.PATH,
        "reconciliation": LastReport.known(visit.services),
        "is_reconciling": reports.is_under_way,
    }


def _values(stores: Stores, now: datetime) -> dict[str, Any]:
    newest = last_arrival(stores)
    # A demo's or a backfill's events lie in the past: show the day that has something in it.
    ends = now if newest is None or now - newest < _DAY else newest + timedelta(minutes=_STEP_MINUTES)
    arrived = intake(stores, ends - _DAY, ends, _STEP_MINUTES)
    waits = exceptions.groups(stores)
    kinds: Counter[str] = Counter()
    at_stake: dict[str, dict[str, Decimal]] = {}
    with exact():
        for group in waits:
            kinds[group.kind] += group.count
            known = at_stake.setdefault(group.kind, {})
            for currency, amount in group.at_stake.items():
                known[currency] = known.get(currency, Decimal(0)) + amount
    return {
        "figures": live.figures(stores, now),
        "arrived": arrived,
        "chart": chart_of(arrived),
        "funnel": _funnel(arrived),
        "books": books_of(stores),
        "kinds": kinds.most_common(8),
        "at_stake": at_stake,
        "groups": len(waits),
        "now": now,
    }


def _funnel(arrived: Intake) -> list[dict[str, Any]]:
    whole = arrived.read
    steps = [{"name": "read", "events": whole, "state": "", "width": 100 if whole else 0}]
    for outcome in OUTCOMES:
        name, state = _NAMES[outcome]
        events = arrived.totals[outcome]
        # A step that is not empty stays visible, however small.
        width = round(max(events * 100 / whole, 0.6), 2) if events else 0
        steps.append({"name": name, "events": events, "state": state, "width": width})
    return steps


PAGE = Page("/", "overview", "Overview", "overview.html", show)
