"""Every page in a real browser: it draws, is accessible in light and dark, on a wide and a narrow screen."""

from collections.abc import Callable
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.queries.conftest import Finished
from tests.web.conftest import Viewer

pytestmark = pytest.mark.web

MakeViewer = Callable[..., Viewer]
PAGES = (
    "/",
    "/usage?meter=input_tokens&by=model&tenant=acme",
    "/spend?at=2026-11-20T12:00Z",
    "/spend?customer=globex&at=2026-11-20T12:00Z",
    "/corrections?from=2026-11-20T00:00Z&to=2026-11-21T00:00Z",
    "/documents",
    "/documents/{key}",
    "/explain?document={key}",
    "/exceptions",
    "/reconciliation",
    "/closing",
    "/closing/US01/2026-10",
    "/retention",
    "/trace?q={event}",
    "/events?meter=input_tokens&from=2026-11-20T07:00Z",
    "/events?tenant=acme&meter=requests&from=2026-11-20T07:00Z",
    "/plans",
)


@pytest.fixture
def places(finished: Finished, document_key: str) -> dict[str, str]:
    """What the addresses of pages need."""
    event = finished.stores.rows(
        "SELECT id FROM @usage_events_current WHERE type = 'llm.completion' ORDER BY id LIMIT 1"
    )[0]["id"]
    return {"key": document_key, "event": event}


def serious(page: Any) -> list[str]:
    """Return the serious and critical findings of axe-core."""
    response = Axe().run(page).response
    assert len(response["passes"]) > 10  # it looked
    found = response["violations"]
    return [
        f"{one['id']}: {one['help']}: {one['nodes'][0]['html'][:200]}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("address", PAGES)
def test_each_page_draws_and_is_accessible(view: MakeViewer, places: dict[str, str], address: str, theme: str) -> None:
    page = view(color_scheme=theme).open(address.format(**places))
    assert page.locator("h1").count() == 1
    assert page.locator("html").get_attribute("data-theme") == theme
    charts = page.locator("figure[data-chart]")
    assert page.locator("figure[data-chart] canvas").count() == charts.count()
    assert charts.count() == (
        address.split("?", maxsplit=1)[0] in ("/", "/usage", "/corrections") or "customer=" in address
    )
    assert serious(page) == []


@pytest.mark.parametrize("address", ["/", "/documents", "/usage", "/exceptions", "/closing", "/retention"])
def test_a_narrow_screen_shows_everything_without_scrolling_aside(view: MakeViewer, address: str) -> None:
    page = view().open(address)
    page.set_viewport_size({"width": 400, "height": 800})
    page.wait_for_function("document.documentElement.scrollWidth <= 400")  # charts are drawn anew for the new width
    assert page.evaluate("document.documentElement.scrollWidth") <= 400


def test_the_login_is_accessible_and_says_what_is_wrong(view: MakeViewer) -> None:
    viewer = view()
    viewer.context.clear_cookies()
    page = viewer.open("/documents")
    assert page.url.endswith("/login?next=%2Fdocuments")
    assert serious(page) == []
    page.get_by_label("Token").fill("mb_wrong")
    page.get_by_role("button", name="Log in").click()
    assert "unknown, expired or revoked" in page.get_by_role("alert").inner_text()
    viewer.complaints = [text for text in viewer.complaints if "401" not in text]  # the answer it is meant to give
