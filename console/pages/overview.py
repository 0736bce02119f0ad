"""The first page: what runs, and how far the books are."""

from console.pages.base import Page, Values, Visit


async def show(visit: Visit) -> Values:
    """Return what the page shows."""
    return {"environment": visit.services.settings.environment}


PAGE = Page("/", "overview", "Overview", "overview.html", show)
