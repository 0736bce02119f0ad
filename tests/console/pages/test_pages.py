"""Every page on a finished run: it shows what the stores hold, to whom it may, and acts only for who may."""

import csv
import io
import re
import time
from datetime import UTC, datetime
from decimal import Decimal

import orjson
import polars as pl
import pytest
from sqlalchemy import select

from console.formats import money
from console.pages import plans as plans_page
from console.pages import usage as usage_page
from queries.exceptions import groups
from sinks.ledger import exceptions, tables
from sinks.ledger.database import read, write
from tests.console.pages.conftest import LogIn
from tests.queries.conftest import Finished

WHOLE = ("/exceptions", "/reconciliation", "/closing", "/closing/US01/2026-11", "/plans", "/retention")
PAGES = (
    "/", "/usage", "/spend", "/corrections", "/documents", "/exceptions", "/reconciliation", "/closing", "/trace",
    "/plans", "/retention",
)  # fmt: skip


def rows_of(text: str, table: str) -> list[str]:
    """Return the rows of the body of the table with that id."""
    body = text.split(f'<table id="{table}"', 1)[1].split("<tbody>", 1)[1].split("</tbody>", 1)[0]
    return re.findall(r"<tr>.*?</tr>", body, re.DOTALL)


@pytest.mark.parametrize("path", PAGES)
def test_each_page_shows_and_names_itself_in_the_navigation(log_in: LogIn, path: str) -> None:
    answer = log_in().get(path)
    assert answer.status_code == 200, answer.text
    assert f'<a href="{path}" aria-current="page">' in answer.text
    assert answer.text.count("<h1>") == 1
    assert "None" not in re.sub(r"<[^>]*>", " ", answer.text)


@pytest.mark.parametrize("path", PAGES)
def test_without_a_session_each_page_leads_to_the_login_and_back(log_in: LogIn, path: str) -> None:
    client = log_in()
    client.cookies.clear()
    answer = client.get(path)
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/login")


def test_the_intake_adds_up(log_in: LogIn, finished: Finished) -> None:
    text = log_in().get("/").text
    steps = re.findall(r'<div class="step"><span>([^<]+)</span>.*?<span class="amount">([\d,]+) ', text, re.DOTALL)
    events = {name: int(count.replace(",", "")) for name, count in steps}
    assert events["read"] == sum(count for name, count in events.items() if name != "read") > 0
    stored = finished.stores.rows("SELECT count() AS n FROM @usage_events_current")[0]["n"]
    assert events["accepted"] == stored


def test_documents_are_those_of_the_ledger_page_by_page(log_in: LogIn, finished: Finished) -> None:
    client = log_in()
    found: list[str] = []
    address = "/documents"
    while address:
        text = client.get(address).text
        found += re.findall(r'<td class="key"><a href="/documents/([A-Z2-7]{16})">', text)
        following = re.search(r'href="([^"]+)" rel="next"', text)
        address = following.group(1).replace("&amp;", "&") if following else ""
    known = {row["key"] for row in finished.stores.rows("SELECT key FROM @financial_documents_current")}
    assert len(found) == len(set(found))
    assert set(found) == known


def test_a_file_holds_the_same_documents_exactly(log_in: LogIn, finished: Finished) -> None:
    client = log_in()
    rows = list(csv.DictReader(io.StringIO(client.get("/documents?format=csv").text)))
    totals = {row["key"]: Decimal(row["total"]) for row in rows}
    known = {
        row["key"]: row["total"] for row in finished.stores.rows("SELECT key, total FROM @financial_documents_current")
    }
    assert totals == known
    frame = pl.read_parquet(io.BytesIO(client.get("/documents?format=parquet").content))
    assert sorted(frame["key"]) == sorted(known)


def test_a_document_leads_down_to_its_events_and_everything_ties(log_in: LogIn, finished: Finished) -> None:
    client = log_in()
    key = finished.stores.rows("SELECT key FROM @financial_documents_current ORDER BY total DESC LIMIT 1")[0]["key"]
    text = client.get(f"/documents/{key}").text
    assert "amounts tie" in text
    assert "do not tie" not in text
    assert client.get(f"/explain?document={key}").text.count("differs") == 0
    counts = [int(text.replace(",", "")) for text in re.findall(r"<dt>Events</dt><dd>([\d,]+)", text)]
    links = re.findall(r'href="(/documents/[A-Z2-7]+/events[^"]+)"', text)
    assert len(links) == len(counts) > 0
    for link, count in zip(links, counts, strict=True):
        address = link.replace("&amp;", "&")
        rows = list(csv.DictReader(io.StringIO(client.get(f"{address}&format=csv").text)))
        assert sum(row["sign"] == "1" for row in rows) == count
        assert f"{min(len(rows), 500):,} event" in client.get(address).text
    assert client.get(f"/documents/{key}/events?charge=none").status_code == 404
    assert client.get("/trace", params={"q": key}).headers["location"] == f"/documents/{key}"


def test_an_event_is_traced_to_its_document(log_in: LogIn, finished: Finished) -> None:
    event = finished.stores.rows(
        "SELECT source, id, tenant FROM @usage_events_current WHERE type = 'llm.completion' AND tenant = 'acme' LIMIT 1"
    )[0]
    text = log_in().get("/trace", params={"q": event["id"]}).text
    assert "Accepted and booked" in text
    assert re.search(r"In document [A-Z2-7]{16}", text)
    assert "Booked in the ERP" in text


def test_corrections_are_the_late_and_voided_rows(log_in: LogIn, finished: Finished) -> None:
    client = log_in()
    rows = list(csv.DictReader(io.StringIO(client.get("/corrections?from=2026-11-20T00:00Z&format=csv").text)))
    stored = finished.stores.rows(
        "SELECT count() AS n, sum(amount) AS amount FROM @rated_usage_current WHERE status = 'sealed'"
        " AND line_kind IN ('late_usage', 'void')"
    )[0]
    assert len(rows) == stored["n"] > 0
    assert sum(Decimal(row["amount"]) for row in rows) == stored["amount"]
    assert all(row["document"] for row in rows)


def test_reconciliation_is_green_link_by_link_and_remembered(log_in: LogIn) -> None:
    client = log_in()
    first = client.get("/reconciliation?from=2026-11-19T00:00Z").text
    assert "Everything agrees" in first
    assert '<li class="bad">' not in first
    assert first.count('<li class="good">') == 5
    assert "Not run since this service started" not in client.get("/").text


def test_a_reconciliation_is_saved_check_by_check(log_in: LogIn, finished: Finished) -> None:
    client = log_in("viewer")
    address = "/reconciliation?from=2026-11-20T06:00Z&to=2026-11-20T12:00Z"
    text = client.get(address).text
    rows = list(csv.DictReader(io.StringIO(client.get(f"{address}&format=csv").text)))
    assert len(rows) == len(rows_of(text, "checks")) > 10
    assert {row["differ"] for row in rows} == {"0"}
    assert sum(int(row["groups"]) for row in rows) > 0
    frame = pl.read_parquet(io.BytesIO(client.get(f"{address}&format=parquet").content))
    assert frame["check"].to_list() == [row["check"] for row in rows]


def test_the_first_page_has_a_reconciliation_nobody_asked_for(log_in: LogIn) -> None:
    client = log_in("viewer")
    deadline = time.monotonic() + 60
    while "everything agrees" not in (text := client.get("/").text):
        assert "It could not be run" not in text
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_life_is_saved_step_by_step(log_in: LogIn, finished: Finished) -> None:
    event = finished.stores.rows(
        "SELECT source, id FROM @usage_events_current WHERE type = 'llm.completion' AND tenant = 'acme' LIMIT 1"
    )[0]
    client = log_in("viewer")
    asked = {"source": event["source"], "id": event["id"]}
    rows = list(csv.DictReader(io.StringIO(client.get("/trace", params=asked | {"format": "csv"}).text)))
    titles = re.findall(r'<div class="title">(?:<a[^>]*>)?([^<]+)<', client.get("/trace", params=asked).text)
    assert [row["step"] for row in rows] == titles
    assert titles[:3] == ["Used", "Arrived", "Accepted and booked"]
    frame = pl.read_parquet(io.BytesIO(client.get("/trace", params=asked | {"format": "parquet"}).content))
    assert frame["step"].to_list() == titles
    foreign = log_in("viewer", "globex").get("/trace", params=asked | {"format": "csv"}).text
    assert "Nothing has this id" in foreign
    assert "Accepted and booked" not in foreign


def test_exceptions_are_previewed_and_resolved_with_a_reason(log_in: LogIn, finished: Finished) -> None:
    client = log_in("operator")
    group = groups(finished.stores)[0]
    form = {"key": group.key, "act": "resolve", "reason": "known since the release of Monday"}
    preview = client.post("/exceptions", data=form | {"dry_run": "1"}).text
    assert "nothing was changed" in preview
    assert group.key in {one.key for one in groups(finished.stores)}
    done = client.post("/exceptions", data=form).text
    assert "marked as seen to" in done
    assert group.key not in {one.key for one in groups(finished.stores)}
    assert client.post("/exceptions", data=form | {"reason": " "}).status_code == 400


def test_the_money_behind_held_postings_is_shown(log_in: LogIn, finished: Finished) -> None:
    table = tables.postings.c
    with read(finished.stores.engine) as connection:
        key, currency, text = connection.execute(select(table.key, table.currency, table.json)).all()[0]
    debits = sum(Decimal(one["amount"]) for one in orjson.loads(text)["lines"] if one["side"] == "debit")
    now = datetime.now(UTC)
    with write(finished.stores.engine) as connection:
        exceptions.raise_exception(connection, "posting_held", key, "the period is closed", now)
    client, amount = log_in(), money(debits, currency)
    [row] = [one for one in rows_of(client.get("/exceptions?kind=posting_held").text, "groups") if "is closed" in one]
    assert f"<div>{amount}</div>" in row
    assert f"<div>{amount}</div>" in client.get("/").text
    [group] = [one for one in groups(finished.stores) if one.kind == "posting_held"]
    assert amount in client.get(f"/exceptions/{group.key}").text
    with write(finished.stores.engine) as connection:
        exceptions.resolve(connection, "posting_held", [key], now)


def test_a_time_in_which_nothing_was_compared_is_not_called_green(log_in: LogIn) -> None:
    text = log_in().get("/reconciliation?from=1999-01-01T00:00Z&to=1999-01-02T00:00Z").text
    assert "Nothing to compare" in text
    assert "Everything agrees" not in text


def test_who_may_only_look_cannot_act(log_in: LogIn, finished: Finished) -> None:
    client = log_in("viewer")
    group = groups(finished.stores)[0]
    form = {"key": group.key, "act": "resolve", "reason": "no"}
    assert client.post("/exceptions", data=form).status_code == 403
    key = finished.stores.rows("SELECT key FROM @financial_documents_current LIMIT 1")[0]["key"]
    assert client.post(f"/documents/{key}", data={"act": "reverse", "reason": "no"}).status_code == 403
    text = client.get(f"/documents/{key}").text
    assert "data-dialog" not in text


def test_a_form_of_another_site_is_refused(log_in: LogIn, finished: Finished) -> None:
    client = log_in()
    group = groups(finished.stores)[0]
    answer = client.post(
        "/exceptions", data={"key": group.key, "act": "resolve", "reason": "x"}, headers={"Origin": "http://evil.test"}
    )
    assert answer.status_code == 403
    assert group.key in {one.key for one in groups(finished.stores)}


def test_a_document_is_reversed_once(log_in: LogIn, finished: Finished) -> None:
    client = log_in("approver")
    key = finished.stores.rows("SELECT key FROM @financial_documents_current ORDER BY total DESC LIMIT 1")[0]["key"]
    form = {"act": "reverse", "reason": "billed to the wrong customer"}
    preview = client.post(f"/documents/{key}", data=form | {"dry_run": "1"}).text
    assert "nothing was changed" in preview
    assert f"{key} would be reversed by posting" in preview
    first = client.post(f"/documents/{key}", data=form)
    again = client.post(f"/documents/{key}", data=form)
    assert first.status_code == again.status_code == 303
    assert first.headers["location"] == again.headers["location"]
    assert "reversal" in client.get(first.headers["location"]).text
    text = client.get(f"/documents/{key}").text
    assert "billed to the wrong customer" in text
    assert re.search(r"\(token [a-z2-7]+\)", text), "whose token it was, as after an act over the API"
    for dry_run in ({}, {"dry_run": "1"}):
        refused = client.post(f"/documents/{key}", data=form | {"act": "approve"} | dry_run).text
        assert "notice bad" in refused, "a preview refuses what the act would refuse"


def test_plans_and_what_if_on_booked_usage(log_in: LogIn, monkeypatch: pytest.MonkeyPatch) -> None:
    client = log_in("viewer")
    text = client.get("/plans?plan=payg").text
    assert "input_gpt_4" in text
    same = re.search(r"<textarea name=\"text\"[^>]*>(.*?)</textarea>", text, re.DOTALL)
    assert same is not None
    plain = same.group(1).replace("&#39;", "'").replace("&#34;", '"').replace("&gt;", ">").replace("&amp;", "&")
    unchanged = client.post("/plans?plan=payg", data={"text": plain, "from": "", "to": ""}).text
    assert "Change per customer" in unchanged
    dearer = client.post(
        "/plans?plan=payg", data={"text": plain.replace("'0.03'", "'0.06'"), "from": "", "to": ""}
    ).text
    assert "+" in dearer.split("Change per customer", 1)[1]
    changed = [row.split("</td>", 1)[0] for row in rows_of(dearer, "customers")]
    assert len(changed) > 2
    monkeypatch.setattr(plans_page, "_CUSTOMERS_MAX", 2)
    form = {"text": plain.replace("'0.03'", "'0.06'"), "from": "", "to": ""}
    cut = client.post("/plans?plan=payg", data=form).text
    assert [row.split("</td>", 1)[0] for row in rows_of(cut, "customers")] == changed[:2], "the largest changes"
    assert f"{len(changed) - 2} more customers" in cut
    wrong = client.post("/plans?plan=payg", data={"text": "plans: 3", "from": "", "to": ""})
    assert wrong.status_code == 200
    assert "This cannot be rated" in wrong.text


@pytest.mark.parametrize("path", WHOLE)
def test_a_token_of_single_tenants_does_not_see_what_concerns_all(log_in: LogIn, path: str) -> None:
    assert log_in("admin", "acme").get(path).status_code == 403


def test_a_token_of_single_tenants_sees_its_own_only(log_in: LogIn, finished: Finished) -> None:
    client = log_in("viewer", "globex")
    text = client.get("/documents").text
    customers = set(re.findall(r"</time></td><td>([a-z-]+)<div", text))
    assert customers == {"globex"}
    other = finished.stores.rows("SELECT key FROM @financial_documents_current WHERE customer = 'acme' LIMIT 1")[0][
        "key"
    ]
    assert client.get(f"/documents/{other}").status_code == 404
    assert client.get(f"/documents/{other}/events?charge=input_gpt_4&meter=input_tokens").status_code == 404
    assert client.get(f"/explain?document={other}").status_code == 404
    event = finished.stores.rows("SELECT source, id FROM @usage_events_current WHERE tenant = 'acme' LIMIT 1")[0]
    found = client.get("/trace", params={"id": event["id"], "source": event["source"]}).text
    assert "Nothing has this id" in found
    assert client.get("/usage?tenant=acme").status_code == 403
    assert client.get("/events?tenant=acme&meter=requests&from=2026-11-20T07:00Z").status_code == 403
    own = csv.DictReader(io.StringIO(client.get("/events?meter=requests&from=2026-11-20T07:00Z&format=csv").text))
    assert {row["tenant"] for row in own} == {"globex"}
    assert client.get("/spend?customer=acme").status_code == 404
    assert ">acme<" not in client.get("/usage").text + client.get("/spend").text
    late = client.get("/corrections?from=2026-11-20T00:00Z").text
    assert set(re.findall(r"</span></td><td>([a-z-]+)<div", late)) == {"globex"}
    assert client.get("/").headers["location"] == "/usage"


def test_every_link_of_the_first_page_leads_somewhere(log_in: LogIn) -> None:
    client = log_in()
    links = set(re.findall(r'href="(/[^"#]*)', client.get("/").text))
    assert "/api/v1/openapi.json" in links
    answers = {link: client.get(link.replace("&amp;", "&")).status_code for link in links}
    assert answers == dict.fromkeys(links, 200)


def test_an_address_that_is_none_is_a_page_for_people_and_a_problem_for_programs(log_in: LogIn) -> None:
    client = log_in()
    page = client.get("/nowhere", headers={"Accept": "text/html,*/*"})
    assert (page.status_code, page.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert "no such page" in page.text
    for path in ("/nowhere", "/api/v1/nowhere"):
        headers = {} if path == "/nowhere" else {"Accept": "text/html"}
        problem = client.get(path, headers=headers)
        assert (problem.status_code, problem.headers["content-type"]) == (404, "application/problem+json")


def test_more_rows_than_a_page_holds_are_refused_and_not_cut(log_in: LogIn, monkeypatch: pytest.MonkeyPatch) -> None:
    address = "/usage?meter=requests&by=tenant&span=month&window=day"
    assert log_in().get(address).status_code == 200
    monkeypatch.setattr(usage_page, "_ROWS_MAX", 2)
    answer = log_in().get(address)
    assert answer.status_code == 400
    assert "more than 2 rows" in answer.text


def test_live_figures_arrive_as_events(log_in: LogIn) -> None:
    with log_in().stream("GET", "/live") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            if line.startswith("data:"):
                assert '"watermark"' in line
                break


@pytest.mark.parametrize(
    "address",
    ["/documents?after=x", "/documents?kind=none", "/corrections?from=yesterday", "/trace?q=%00", "/exceptions?age=9",
     "/corrections?from=2026-11-02&to=2026-11-01", "/explain", "/documents?format=xml",
     "/usage?zone=Mars", "/usage?by=none", "/usage?span=year", "/events?tenant=acme",
     "/events?meter=requests&from=2026-11-20&after=x", "/events?meter=requests&from=2026-11-20&dimension=model"],
)  # fmt: skip
def test_a_wrong_address_says_what_is_wrong(log_in: LogIn, address: str) -> None:
    answer = log_in().get(address)
    assert answer.status_code == 400
    assert "Request <code>" in answer.text
