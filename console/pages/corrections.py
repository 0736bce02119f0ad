"""Corrections: usage that came late or was taken back. When it happened, when it was booked, what it changed, where."""

from datetime import timedelta
from typing import Any, Final

from starlette.responses import Response

from console.pages import asked, exporting
from console.pages.base import Page, Values, Visit
from console.problems import Problem
from console.scope import customers_of
from queries.corrections import KINDS, ROWS_MAX, Corrections, Wanted, corrections
from queries.reconcile import sealed_until
from queries.stores import Stores

_DEFAULT: Final = timedelta(days=7)
_LONGEST: Final = timedelta(days=93)
_EXPORT_MAX: Final = 20_000
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
    found = corrections(stores, wanted, _EXPORT_MAX if kind else ROWS_MAX)
    if kind and found.total_rows > len(found.rows):
        detail = f"a file holds at most {_EXPORT_MAX:,} corrections, not {found.total_rows:,}: choose a shorter time"
        raise Problem("invalid_request", detail)
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
    """Return what each booked hour corrected, one series for each kind and currency: currencies do not add up."""
    amounts = {(row["kind"], row["currency"], row["hour"]): row["amount"] for row in found.by_hour}
    hours = sorted({row["hour"] for row in found.by_hour})
    series = sorted({(row["kind"], row["currency"]) for row in found.by_hour})
    currencies = {currency for _, currency in series}
    return {
        "times": [int(hour.timestamp()) for hour in hours],
        "step": 3600,
        "unit": next(iter(currencies)) if len(currencies) == 1 else "",
        "series": [
            {
                "name": kind.replace("_", " ") + (f", {currency}" if len(currencies) > 1 else ""),
                "kind": "bars",
                "values": [float(amounts.get((kind, currency, hour), 0)) for hour in hours],
            }
            for kind, currency in series
        ],
    }


PAGE = Page("/corrections", "corrections", "Corrections", "corrections.html", show)
