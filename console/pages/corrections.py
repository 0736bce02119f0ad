"""Corrections: usage that came late or was taken back. When it happened, when it was booked, what it changed, where."""

from collections import defaultdict
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

from starlette.responses import Response

from console.pages import asked, exporting
from console.pages.base import Page, Values, Visit
from console.scope import customers_of
from queries.corrections import KINDS, ROWS_MAX, Corrections, Wanted, corrections
from queries.reconcile import sealed_until
from queries.stores import Stores

_DEFAULT: Final = timedelta(days=7)
_LONGEST: Final = timedelta(days=93)
_COLUMNS: Final = (
    "customer", "contract", "entity", "charge", "price_row", "meter", "usage_hour", "booked_hour", "original_period",
    "accounting_period", "line_kind", "quantity", "events", "amount", "currency", "document", "posting_state",
)  # fmt: skip


async def show(visit: Visit) -> Values | Response:
    """Return the corrections booked in the span asked for: the last week that is sealed, if none is."""
    kind = exporting.wanted(visit.request)
    return await visit.services.pool.ask(lambda stores: _answer(visit, stores, kind))


def _answer(visit: Visit, stores: Stores, kind: str) -> Values | Response:
    request = visit.request
    begins, ends = asked.span(request, sealed_until(stores), _DEFAULT, _LONGEST)
    allowed = customers_of(visit.token, stores.history)
    wanted = Wanted(
        begins,
        ends,
        None if allowed is None else tuple(sorted(allowed)),
        asked.text(request, "customer"),
        asked.text(request, "meter"),
        asked.choice(request, "kind", KINDS),
    )
    found = corrections(stores, wanted)
    if kind:
        return exporting.file_of("corrections", kind, _COLUMNS, found.rows)
    latest = stores.history.latest
    customers = sorted(one.id for one in latest.configuration.customers)
    return {
        "found": found,
        "wanted": wanted,
        "chart": chart_of(found),
        "kinds": KINDS,
        "rows_max": ROWS_MAX,
        "customers": [name for name in customers if allowed is None or name in allowed],
        "meters": sorted(latest.meters),
    }


def chart_of(found: Corrections) -> dict[str, Any]:
    """Return what each booked hour corrected, one series for each kind; currencies are not mixed where there is one."""
    by_hour: dict[Any, dict[str, Decimal]] = defaultdict(dict)
    for row in found.by_hour:
        by_hour[row["hour"]][row["kind"]] = row["amount"]
    kinds = [kind for kind in KINDS if any(kind in amounts for amounts in by_hour.values())]
    return {
        "times": [int(hour.timestamp()) for hour in by_hour],
        "step": 3600,
        "unit": "",
        "series": [
            {
                "name": kind.replace("_", " "),
                "kind": "bars",
                "values": [float(one.get(kind, 0)) for one in by_hour.values()],
            }
            for kind in kinds
        ],
    }


PAGE = Page("/corrections", "corrections", "Corrections", "corrections.html", show)
