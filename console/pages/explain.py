"""Explain: what an amount is made of, tier by tier, priced again from the journaled configuration."""

from datetime import datetime
from typing import Final

from console.pages import asked
from console.pages.base import Page, Values, Visit
from console.problems import Problem
from console.scope import sees_customer
from queries.explained_text import lines_of
from queries.rated_rows import Selection, explained, of_document
from queries.stores import Stores

_LIMIT: Final = 12


async def show(visit: Visit) -> Values:
    """Return the explanations of a document's rows, or of a customer's charge in a booked or usage hour."""
    request = visit.request
    document, charge = asked.text(request, "document", 40), asked.text(request, "charge")
    customer, contract = asked.text(request, "customer"), asked.text(request, "contract")
    booked, usage = _hour(asked.moment(request, "booked")), _hour(asked.moment(request, "usage"))
    kind = asked.text(request, "kind", 40)
    if bool(document) == bool(customer):
        raise Problem("invalid_request", "give a document or a customer to explain")

    def work(stores: Stores) -> Values:
        if document:
            selection = of_document(stores, document, charge or None)
        else:
            selection = Selection(customer, contract or None, charge or None, None, None, booked, usage, kind or None)
        if not sees_customer(visit.token, stores.history, selection.customer):
            raise Problem("not_found", "there is nothing to explain under this key")
        rows, total = explained(stores, selection, _LIMIT)
        return {
            "rows": [(row, lines_of(row)) for row in rows],
            "total": total,
            "limit": _LIMIT,
            "document": document,
            "customer": selection.customer,
            "charge": charge,
        }

    return await visit.services.pool.ask(work)


def _hour(when: datetime | None) -> datetime | None:
    return None if when is None else when.replace(minute=0, second=0, microsecond=0)


PAGE = Page("/explain", "explain", "", "explain.html", show)
