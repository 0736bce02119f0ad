"""Documents: states, ERP numbers, and the way down from each one: lines, rated rows, facts, events."""

import re
from datetime import timedelta
from typing import Any, Final

from starlette.responses import Response

from console.pages import asked, exporting
from console.pages.base import Page, Values, Visit
from console.problems import Problem
from console.scope import customers_of
from queries.document_list import DocumentFilter, DocumentPage, counts, document_list
from queries.stores import Stores

_LIMIT: Final = 100
_EXPORT_MAX: Final = 50_000
_LONGEST: Final = timedelta(days=400)
_KINDS: Final = ("accrual", "invoice", "credit_note", "reversal", "adjustment")
_AFTER: Final = re.compile(r"([0-9]{1,9})\.([A-Z2-7]{16})")
"""An hour since 1970, and a document's key."""
_COLUMNS: Final = (
    "key", "entity", "customer", "contract", "currency", "booked_hour", "accounting_period", "kind", "total", "revenue",
    "state", "reason", "posting_key", "erp_number", "attempts", "changed_at",
)  # fmt: skip


async def show(visit: Visit) -> Values | Response:
    """Return a page of documents, or all that were asked for as a file."""
    after = _after(asked.text(visit.request, "after", 40))
    kind = exporting.wanted(visit.request)
    return await visit.services.pool.ask(lambda stores: _answer(visit, stores, after, kind))


def _answer(visit: Visit, stores: Stores, after: tuple[int, str] | None, kind: str) -> Values | Response:
    wanted = _filter(visit, stores)
    if kind:
        rows: list[dict[str, Any]] = []
        page: DocumentPage | None = None
        while (page is None or page.next_after) and len(rows) < _EXPORT_MAX:
            page = document_list(stores.engine, wanted, page.next_after if page else None, 500)
            rows += page.rows
        return exporting.file_of("documents", kind, _COLUMNS, rows)
    page = document_list(stores.engine, wanted, after, _LIMIT)
    by_state = counts(stores.engine, wanted)
    customers = sorted({one.id for one in stores.history.latest.configuration.customers})
    allowed = wanted.customers
    return {
        "rows": page.rows,
        "by_state": by_state,
        "total": sum(by_state.values()),
        "wanted": wanted,
        "older": _next(visit, page),
        "is_first": after is None,
        "customers": [name for name in customers if allowed is None or name in allowed],
        "entities": sorted(one.id for one in stores.history.latest.configuration.entities),
        "kinds": _KINDS,
        "export_max": _EXPORT_MAX,
    }


def _filter(visit: Visit, stores: Stores) -> DocumentFilter:
    request = visit.request
    allowed = customers_of(visit.token, stores.history)
    begins, ends = asked.moment(request, "from"), asked.moment(request, "to")
    if begins and ends and ends - begins > _LONGEST:
        raise Problem("invalid_request", f"from: at most {_LONGEST.days} days before to")
    return DocumentFilter(
        customers=None if allowed is None else sorted(allowed),
        customer=asked.text(request, "customer"),
        entity=asked.text(request, "entity"),
        state=asked.text(request, "state", 40),
        kind=asked.choice(request, "kind", _KINDS),
        period=asked.text(request, "period", 20),
        begins=begins,
        ends=ends,
    )


def _after(text: str) -> tuple[int, str] | None:
    if not text:
        return None
    found = _AFTER.fullmatch(text)
    if found is None:
        raise Problem("invalid_request", "after: take the address of `Next page`")
    return int(found[1]), found[2]


def _next(visit: Visit, page: DocumentPage) -> str:
    if page.next_after is None:
        return ""
    hour, key = page.next_after
    url = visit.request.url.include_query_params(after=f"{hour}.{key}")
    return f"{url.path}?{url.query}"


PAGE = Page("/documents", "documents", "Documents", "documents.html", show)
