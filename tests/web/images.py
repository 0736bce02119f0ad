"""Takes the pictures of docs/images from a running demo; look at every one before it is committed.

`make demo KEEP=1`, then `python -m tests.web.images http://127.0.0.1:9480 TOKEN`.
"""

import sys
from pathlib import Path
from typing import Final

import httpx
from playwright.sync_api import Browser, Page, sync_playwright

from tests.web.conftest import chromium

IMAGES: Final = Path(__file__).parents[2] / "docs" / "images"
SHOTS: Final = {
    "light": {
        "usage": "/usage?meter=input_tokens&by=model",
        "spend": "/spend?customer={customer}",
        "document": "/documents/{document}",
        "reconciliation": "/reconciliation",
        "trace": "/documents/{document}",
        "overview": "/",  # last: it shows the reconciliation that another page ran
    },
    "dark": {"exceptions": "/exceptions", "closing": "/closing/{entity}/{period}"},
}
_SIZE: Final = {"width": 1280, "height": 860}
_QUALITY: Final = 70


def names_of(address: str, token: str) -> dict[str, str]:
    """Return what addresses need: a document that a page can hold, and a month that is over."""
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=f"{address}/api/v1", headers=headers, timeout=120) as client:
        documents = client.get("/documents", params={"limit": 1000, "kind": "accrual"}).json()["items"]
        document = max((one for one in documents if float(one["total"]) < 1000), key=lambda one: float(one["total"]))
        period = client.get("/periods", params={"state": "closed"}).json()["items"][0]
    return {
        "customer": document["customer"],
        "document": document["key"],
        "entity": period["entity"],
        "period": period["accounting_period"],
    }


def take(page: Page, address: str, names: dict[str, str], theme: str) -> None:
    """Take the pictures of one theme."""
    for name, path in SHOTS[theme].items():
        page.goto(address + path.format(**names))
        if name == "closing":
            page.get_by_role("button", name="Check", exact=True).click()
            page.locator("#findings").wait_for()
        if name == "trace":
            page.get_by_role("link", name="Events", exact=True).first.click()
            page.locator("#events tbody a").first.click()
            page.locator(".timeline").wait_for()
        page.wait_for_timeout(700)  # charts are drawn
        page.screenshot(path=IMAGES / f"console-{name}.jpg", type="jpeg", quality=_QUALITY)


def log_in(browser: Browser, address: str, token: str, theme: str) -> Page:
    """Return a page that is logged in, in that theme."""
    context = browser.new_context(viewport=_SIZE, color_scheme="dark" if theme == "dark" else "light")  # type: ignore[arg-type]
    context.set_default_timeout(120_000)
    page = context.new_page()
    page.goto(f"{address}/login")
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_load_state()
    return page


def main(address: str, token: str) -> None:
    """Take all pictures."""
    names = names_of(address, token)
    with sync_playwright() as playwright:
        browser = chromium(playwright)
        for theme in SHOTS:
            take(log_in(browser, address, token, theme), address, names, theme)
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:3])
