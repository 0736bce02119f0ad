"""The pages of the console, one file each. `PAGES` lists them in the order of the navigation."""

from typing import Final

from console.pages import overview
from console.pages.base import Page, page_route
from console.pages.login import session_routes

PAGES: Final[tuple[Page, ...]] = (overview.PAGE,)

__all__ = ["PAGES", "Page", "page_route", "session_routes"]
