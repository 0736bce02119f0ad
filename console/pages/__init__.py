"""The pages of the console, one file each. `PAGES` lists them in the order of the navigation."""

from typing import Final

from console.pages import (
    closing,
    corrections,
    document,
    documents,
    events,
    exceptions,
    explain,
    overview,
    period,
    plans,
    reconciliation,
    retention,
    spend,
    trace,
    usage,
)
from console.pages.base import Page, page_route
from console.pages.login import session_routes

PAGES: Final[tuple[Page, ...]] = (
    overview.PAGE,
    usage.PAGE,
    spend.PAGE,
    corrections.PAGE,
    documents.PAGE,
    exceptions.PAGE,
    reconciliation.PAGE,
    closing.PAGE,
    trace.PAGE,
    plans.PAGE,
    retention.PAGE,
    document.PAGE,
    document.EVENTS,
    events.PAGE,
    explain.PAGE,
    exceptions.ONE,
    period.PAGE,
)

__all__ = ["PAGES", "Page", "page_route", "session_routes"]
