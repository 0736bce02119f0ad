"""A real browser on a finished run. Needs a Chromium on PATH: Debian's package `chromium` has one."""

import os
import shutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, sync_playwright

from console.auth import COOKIE
from console.services import Services
from sinks.ledger import tokens
from sinks.ledger.tokens import Token
from tests.console.pages.conftest import shown
from tests.queries.conftest import Finished, finished

__all__ = ["finished", "shown"]

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
Open = Callable[..., Page]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless Chromium."""
    with sync_playwright() as playwright:
        started = chromium(playwright)
        yield started
        started.close()


def chromium(playwright: Playwright) -> Browser:
    """Start the Chromium that is on PATH, or where CHROMIUM says."""
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)
    if path is None:
        pytest.fail("no Chromium on PATH: install Debian's package `chromium`, or set CHROMIUM to its path")
    # Without a sandbox of its own, because tests may run as root, where Chromium refuses to make one.
    return playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])


class Viewer:
    """Somebody at a browser: pages opened with one token, and all that the browser complained about."""

    def __init__(self, context: BrowserContext, address: str, token: Token) -> None:
        self.context, self.address, self.token = context, address, token
        self.complaints: list[str] = []

    def open(self, path: str) -> Page:
        """Open a page and wait until it is there."""
        page = self.context.new_page()
        page.on("console", lambda message: self._hear(message.type, message.text))
        page.on("pageerror", lambda error: self._hear("error", str(error)))
        page.goto(self.address + path, wait_until="load")
        return page

    def _hear(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.complaints.append(f"{kind}: {text}")


@pytest.fixture
def view(browser: Browser, shown: tuple[Services, str]) -> Iterator[Callable[..., Viewer]]:
    """Make a viewer of a role and tenants; what the browser complained about fails the test."""
    services, address = shown
    made: list[Viewer] = []

    def viewer(role: str = "admin", *tenants: str, **options: Any) -> Viewer:
        now, engine = services.clock.now(), services.pool.engine
        token, _ = tokens.create(engine, f"a {role}", role, tenants=tenants, actor="test", now=now)
        secret = tokens.open_session(engine, token, now, timedelta(hours=1))
        context = browser.new_context(viewport={"width": 1440, "height": 1000}, **options)
        context.set_default_timeout(60_000)
        context.add_cookies([{"name": COOKIE, "value": secret, "url": address}])
        made.append(Viewer(context, address, token))
        return made[-1]

    yield viewer
    complaints = [text for one in made for text in one.complaints]
    for one in made:
        one.context.close()
    assert complaints == []


@pytest.fixture
def document_key(finished: Finished) -> str:
    """The key of the largest document."""
    rows = finished.stores.rows("SELECT key FROM @financial_documents_current ORDER BY total DESC, key LIMIT 1")
    return str(rows[0]["key"])
