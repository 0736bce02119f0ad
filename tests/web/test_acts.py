"""What a person does in the console, in a real browser, with the mouse and the keyboard."""

import csv
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from playwright.sync_api import expect

from config.settings import ClickHouseSettings
from console.auth import COOKIE
from console.services import Services, open_services
from core.clock import SystemClock
from flows import runtime
from queries.exceptions import groups
from sinks.ledger import tokens
from sources.producer import Producer
from sources.workload import Workload
from tests.console.server import serving
from tests.queries.conftest import Finished
from tests.web.conftest import Viewer
from tests.web.test_pages import serious

pytestmark = pytest.mark.web

MakeViewer = Callable[..., Viewer]


def test_exceptions_are_chosen_previewed_and_resolved(view: MakeViewer, finished: Finished) -> None:
    page = view("operator").open("/exceptions")
    group = groups(finished.stores)[-1]
    row = page.locator("#groups tbody tr", has_text=group.key)
    row.get_by_role("checkbox").check()
    page.get_by_label("Reason, kept in the audit log").fill("a test of the release of Monday")
    page.get_by_role("button", name="Preview").click()
    expect(page.get_by_role("status").first).to_contain_text("nothing was changed")
    page.locator("#groups tbody tr", has_text=group.key).get_by_role("checkbox").check()
    page.get_by_label("Reason, kept in the audit log").fill("a test of the release of Monday")
    page.get_by_role("button", name="Do it").click()
    expect(page.get_by_role("status").first).to_contain_text("marked as seen to")
    assert page.locator("#groups tbody tr", has_text=group.key).count() == 0


def test_an_exception_shows_its_events_and_is_sent_again(view: MakeViewer, finished: Finished) -> None:
    group = next(one for one in groups(finished.stores) if one.kind == "missing_field")
    page = view("operator").open(f"/exceptions/{group.key}")
    assert "specversion" in page.locator("pre").first.inner_text()
    page.get_by_role("button", name="Send again").first.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Reason").fill("the producer was mended")
    dialog.get_by_role("button", name="Preview").click()
    expect(page.get_by_role("status").first).to_contain_text("would be sent again")
    page.get_by_role("button", name="Send again").first.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Reason").fill("the producer was mended")
    dialog.get_by_role("button", name="Send again").click()
    expect(page.get_by_role("status").first).to_contain_text("events were sent again")


def test_a_document_is_reversed_from_its_page(view: MakeViewer, document_key: str) -> None:
    page = view("approver").open(f"/documents/{document_key}")
    page.get_by_role("button", name="Reverse").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Reverse").click()
    expect(dialog).to_be_visible()  # no reason yet: the browser asks for it
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    page.get_by_role("button", name="Reverse").click()
    dialog.get_by_label("Reason").fill("billed to the wrong customer")
    dialog.get_by_role("button", name="Reverse").click()
    page.wait_for_url(re.compile(r"/documents/[A-Z2-7]{16}$"))
    assert not page.url.endswith(document_key)
    page.goto(page.url.rsplit("/", 1)[0] + f"/{document_key}")
    expect(page.locator("main")).to_contain_text("billed to the wrong customer")


def test_a_viewer_has_no_buttons_that_act(view: MakeViewer, document_key: str) -> None:
    page = view("viewer").open(f"/documents/{document_key}")
    assert page.get_by_role("button", name="Reverse").count() == 0
    page.goto(page.url.rsplit("/documents", 1)[0] + "/exceptions")
    assert page.get_by_role("button", name="Do it").count() == 0


def test_tables_sort_and_filter_by_keyboard(view: MakeViewer) -> None:
    page = view().open("/documents")
    header = page.locator("th", has_text="Total").first
    header.get_by_role("button").focus()
    page.keyboard.press("Enter")
    assert header.get_attribute("aria-sort") == "ascending"
    cells = page.locator("#documents tbody tr td:nth-child(5)")
    amounts = [float(value or 0) for value in cells.evaluate_all("all => all.map(one => one.dataset.value)")]
    assert amounts == sorted(amounts)
    page.keyboard.press("Enter")
    assert header.get_attribute("aria-sort") == "descending"
    page.get_by_placeholder("Filter these rows").fill("globex")
    shown = page.locator("#documents tbody tr:visible")
    assert 0 < shown.count() < cells.count()
    assert all("globex" in text for text in shown.all_inner_texts())


def test_the_first_key_leads_past_the_navigation(view: MakeViewer) -> None:
    page = view().open("/plans")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"


def test_the_booked_time_slider_shows_usage_as_it_was_known(view: MakeViewer) -> None:
    page = view().open("/usage?meter=requests&span=day")
    total = page.locator(".tile .value").first
    now = total.inner_text()
    slider = page.get_by_role("slider")
    slider.focus()
    page.keyboard.press("Home")
    page.wait_for_url(re.compile("as_of=2026"))
    assert total.inner_text() != now
    slider.focus()
    page.keyboard.press("End")
    page.wait_for_url(re.compile(r"as_of=(&|$)"))
    assert total.inner_text() == now


def test_a_click_on_a_point_leads_to_its_events(view: MakeViewer) -> None:
    page = view().open("/usage?meter=requests&tenant=acme")
    plot = page.locator("figure[data-chart] .u-over")
    box = plot.bounding_box()
    assert box is not None
    plot.click(position={"x": box["width"] / 2, "y": box["height"] / 2})
    page.wait_for_url(re.compile(r"/events\?"))
    assert page.locator("#events tbody tr").count() > 0
    page.locator("#events tbody a").first.click()
    expect(page.locator("main")).to_contain_text("Accepted and booked")


def test_a_point_of_a_split_over_all_tenants_leads_to_its_events(view: MakeViewer) -> None:
    page = view().open("/usage?meter=input_tokens&by=model")
    plot = page.locator("figure[data-chart] .u-over")
    box = plot.bounding_box()
    assert box is not None
    plot.click(position={"x": box["width"] / 2, "y": box["height"] - 5})
    page.wait_for_url(re.compile(r"/events\?.*dimension=model"))
    expect(page.get_by_role("heading", level=1)).to_have_text("Events of all tenants")
    assert page.locator("#events tbody tr").count() > 0
    page.go_back()
    page.locator("#usage tbody tr td a").first.focus()  # by keyboard: each row of the table leads there, too
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"/events\?"))
    assert page.locator("#events tbody tr").count() > 0


def test_a_document_leads_down_to_its_events(view: MakeViewer, document_key: str) -> None:
    page = view("viewer").open(f"/documents/{document_key}")
    page.locator("details summary", has_text="usage of a series").first.click()
    expect(page.get_by_role("columnheader", name="Usage minute").first).to_be_visible()
    page.get_by_role("link", name="Events", exact=True).first.click()
    page.wait_for_url(re.compile(rf"/documents/{document_key}/events\?"))
    assert serious(page) == []
    page.locator("#events tbody a").first.click()
    expect(page.locator("main")).to_contain_text(document_key)


def test_a_small_table_is_saved_as_it_stands(view: MakeViewer, document_key: str) -> None:
    page = view("viewer").open(f"/documents/{document_key}")
    table = page.locator("table[data-csv]").first
    with page.expect_download() as started:
        page.get_by_role("button", name="Save as CSV: lines").click()
    assert started.value.suggested_filename == f"lines-{document_key}.csv"
    rows = list(csv.reader(Path(started.value.path()).read_text().splitlines()))
    assert rows[0] == ["Account role", "What", "Quantity", "Debit", "Credit"]
    assert len(rows) == table.locator("tr").count()
    debits, credited = (sum(Decimal(row[place]) for row in rows[1:] if row[place]) for place in (3, 4))
    assert debits == credited > 0


def test_usage_of_any_span_is_shown(view: MakeViewer) -> None:
    page = view("viewer").open("/usage?meter=requests")
    page.get_by_label("From, UTC").fill("2026-11-20T08:00")
    page.get_by_label("to, exclusive").fill("2026-11-20T10:00")
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_role("heading", name="2026-11-20 08:00 UTC to 2026-11-20 10:00 UTC")).to_be_visible()
    page.locator("select[name=span]").select_option("week")
    page.wait_for_url(re.compile(r"span=week"))
    assert page.get_by_label("From, UTC").input_value() == ""


def test_what_if_compares_prices(view: MakeViewer) -> None:
    page = view("viewer").open("/plans?plan=payg")
    text = page.get_by_label("Plans, as in the configuration file")
    text.fill(text.input_value().replace("'0.06'", "'0.09'"))
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_role("heading", name="Change per customer")).to_be_visible()
    assert "+" in page.locator("#customers tbody").inner_text()


def test_a_period_is_checked_and_closing_it_early_previewed(view: MakeViewer) -> None:
    page = view("approver").open("/closing")
    page.locator("#periods tbody tr", has_text="open").first.get_by_role("link").click()
    expect(page.locator("main")).to_contain_text("Not checked since this service started")
    page.get_by_role("button", name="Check", exact=True).click()
    expect(page.get_by_role("status").first).to_contain_text("first mend: all its hours are sealed and booked")
    assert page.locator("#findings tbody tr").count() == 2
    page.get_by_role("button", name="Seal").focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("Accept what is open")).to_be_visible()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Close early").click()
    dialog.get_by_label("Reason").fill("the year ends sooner here")
    dialog.get_by_role("button", name="Preview").click()
    expect(page.get_by_role("status").first).to_contain_text("would count as closed from")
    expect(page.locator("main")).to_contain_text("Nobody did anything about it")


def test_a_hold_is_placed_and_lifted(view: MakeViewer) -> None:
    page = view().open("/retention")
    page.get_by_label("On whom").select_option("tenant")
    page.get_by_label("Name").fill("acme-labs")
    page.get_by_label("Reason, kept in the audit log").fill("case 7")
    page.get_by_role("button", name="Do it").click()
    expect(page.get_by_role("status").first).to_contain_text("tenant acme-labs is on hold")
    page.locator("#holds tbody tr", has_text="acme-labs").get_by_role("link", name="Lift").click()
    assert page.get_by_label("What to do").input_value() == "lift"
    assert page.get_by_label("On whom").input_value() == "tenant"
    page.get_by_label("Reason, kept in the audit log").fill("case closed")
    page.get_by_role("button", name="Do it").click()
    expect(page.get_by_role("status").first).to_contain_text("on hold no more")
    expect(page.locator("main")).to_contain_text("No holds")


def test_a_search_finds_events_and_documents(view: MakeViewer, document_key: str) -> None:
    page = view("viewer").open("/plans")
    page.get_by_role("search").get_by_role("searchbox").fill(document_key)
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(document_key))
    page.get_by_role("search").get_by_role("searchbox").fill("no such id")
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_contain_text("Nothing has this id or key")


def test_the_theme_is_remembered(view: MakeViewer) -> None:
    page = view("viewer", color_scheme="light").open("/plans")
    page.get_by_role("button", name="Dark theme").click()
    page.reload()
    assert page.locator("html").get_attribute("data-theme") == "dark"


def test_figures_arrive_while_one_looks(view: MakeViewer, finished: Finished) -> None:
    page = view().open("/")
    newest = page.locator('[data-figure="newest"]')
    before = newest.inner_text()
    deployed = finished.deployment
    now = datetime.now(UTC)
    live = Workload(seed=99, events=500, start=now - timedelta(seconds=20), end=now)
    Producer(deployed.settings.redis).send([(None, subject, event) for _, subject, event in live])
    runtime.run(deployed.settings, deployed.configuration, drain=True)
    expect(newest).not_to_have_text(before, timeout=30_000)
    assert page.locator("[data-live-light]").inner_text() == "Live"


def test_live_figures_come_again_after_an_answer_that_is_an_error(view: MakeViewer) -> None:
    viewer = view()
    viewer.context.route("**/live", lambda route: route.fulfill(status=503, body=""), times=1)
    light = viewer.open("/").locator("[data-live-light]")
    expect(light).to_have_text("Not live: trying again")
    expect(light).to_have_text("Live", timeout=30_000)
    viewer.complaints = [text for text in viewer.complaints if "503" not in text]


def test_a_revoked_token_ends_the_session(view: MakeViewer, shown: tuple[Services, str]) -> None:
    viewer = view("viewer")
    page = viewer.open("/documents")
    services, _ = shown
    tokens.revoke(services.pool.engine, viewer.token.id, actor="test", reason="left", now=services.clock.now())
    services.authenticator.forget()
    page.locator("nav a", has_text="Plans").click()
    page.wait_for_url(re.compile("/login"))
    assert page.get_by_label("Token").is_visible()


def test_an_expired_token_leads_to_the_login_and_back(view: MakeViewer, shown: tuple[Services, str]) -> None:
    services, address = shown
    viewer, now, engine = view("viewer"), services.clock.now(), services.pool.engine
    token, _ = tokens.create(engine, "short", "viewer", actor="test", now=now, valid_for=timedelta(seconds=8))
    secret = tokens.open_session(engine, token, now, timedelta(hours=1))
    viewer.context.add_cookies([{"name": COOKIE, "value": secret, "url": address}])
    page = viewer.open("/plans")
    assert token.expires_at is not None
    page.wait_for_timeout(max(0.0, (token.expires_at - services.clock.now()).total_seconds() * 1000 + 100))
    page.locator("nav a", has_text="Closing").click()
    page.wait_for_url(re.compile(r"/login\?next=%2Fclosing"))
    _, text = tokens.create(engine, "new", "viewer", actor="test", now=services.clock.now())
    page.get_by_label("Token").fill(text)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(re.compile("/closing$"))


def test_a_broken_clickhouse_is_said_on_the_page(view: MakeViewer, finished: Finished, tmp_path: object) -> None:
    broken = finished.deployment.settings.model_copy(
        update={"clickhouse": ClickHouseSettings(url="http://127.0.0.1:9", connect_timeout_s=1)}
    )
    viewer = view()
    with serving(open_services(broken, SystemClock())) as address:
        [cookie] = viewer.context.cookies()
        viewer.context.add_cookies([{"name": str(cookie["name"]), "value": str(cookie["value"]), "url": address}])
        viewer.address = address
        page = viewer.open("/usage")
        expect(page.get_by_role("alert")).to_contain_text("127.0.0.1:9")
        assert page.get_by_role("link", name="Try again").count() == 1
        assert page.locator("nav.nav a").count() > 5
    viewer.complaints = [text for text in viewer.complaints if "503" not in text]
