"""Reconciliation: the chain from stream to ERP, green or red, down to the groups that differ."""

from typing import Any, Final

from starlette.responses import Response

from console.pages import asked, exporting
from console.pages.base import Page, Values, Visit
from console.reconciling import COLUMNS, DAY, LastReport, rows_of
from queries.reconcile import Check, Report, sealed_until

_SHOWN_MAX: Final = 50

_LINKS: Final = (
    ("Stream", "what producers say they sent"),
    ("Accepted", "what was read is stored"),
    ("Facts", "events are in usage"),
    ("Rated", "usage is priced"),
    ("Documents", "amounts are in documents"),
    ("ERP", "documents are in the books"),
)
_RULES: Final = (
    ("posting", "ERP"),
    ("erp", "ERP"),
    ("document", "Documents"),
    ("in facts", "Facts"),
    ("rated", "Rated"),
    ("price", "Rated"),
    ("control", "Stream"),
    ("producer", "Stream"),
)
"""The first word that a check's name holds decides where in the chain it stands; else it is about accepted events."""


async def show(visit: Visit) -> Values | Response:
    """Return the report over the span asked for: the last day that is sealed, if none is."""
    kind = exporting.wanted(visit.request)
    ends = asked.moment(visit.request, "to")
    begins = asked.moment(visit.request, "from")
    if begins is None and ends is None:
        sealed = await visit.services.pool.ask(sealed_until)
        begins, ends = sealed - DAY, sealed
    again = asked.choice(visit.request, "again", ("1",)) == "1"
    known = await LastReport.of(visit.services).ask(visit.services, begins, ends, again=again)
    if kind:
        return exporting.file_of("reconciliation", kind, COLUMNS, list(rows_of(known.report)))
    return {
        "known": known,
        "report": known.report,
        "chain": chain(known.report),
        "shown_max": _SHOWN_MAX,
        "now": visit.services.clock.now(),
        "again": visit.request.url.include_query_params(again="1"),
    }


def chain(report: Report) -> list[dict[str, Any]]:
    """Return the links of the chain with their state; every check belongs to one link."""
    of_link: dict[str, list[Check]] = {name: [] for name, _ in _LINKS}
    for check in report.checks:
        of_link[_link_of(check.name)].append(check)
    found = []
    for name, what in _LINKS:
        checks = of_link[name]
        broken = sum(check.broken for check in checks)
        state = "none" if not any(check.groups for check in checks) else "bad" if broken else "good"
        found.append({"name": name, "what": what, "state": state, "checks": len(checks), "broken": broken})
    return found


def _link_of(name: str) -> str:
    lowered = name.lower()
    return next((link for word, link in _RULES if word in lowered), "Accepted")


PAGE = Page("/reconciliation", "reconciliation", "Reconciliation", "reconciliation.html", show, whole=True)
