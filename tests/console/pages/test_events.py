"""Usage and the events behind its points, on a finished run."""

import csv
import io
import re
from decimal import Decimal

import pytest

from console.pages import events as events_page
from tests.console.pages.conftest import LogIn
from tests.queries.conftest import Finished


def test_usage_is_that_of_the_facts_and_leads_to_its_events(log_in: LogIn, finished: Finished) -> None:
    client = log_in()
    rows = list(csv.DictReader(io.StringIO(client.get("/usage?meter=input_tokens&span=week&by=model&format=csv").text)))
    facts = finished.stores.rows(
        "SELECT dimensions['model'] AS model, sum(value) AS amount, sum(f.events) AS n FROM @usage_facts_current AS f"
        " WHERE meter = 'input_tokens' GROUP BY model"
    )
    sums: dict[str, Decimal] = {}
    for row in rows:
        sums[row["group"]] = sums.get(row["group"], Decimal(0)) + Decimal(row["value"])
    assert sums == {row["model"]: row["amount"] for row in facts}
    assert sum(int(row["events"]) for row in rows) == sum(row["n"] for row in facts)
    hour = finished.stores.rows(
        "SELECT toStartOfHour(usage_minute) AS hour, sum(value) AS amount FROM @usage_facts_current"
        " WHERE meter = 'input_tokens' AND tenant = 'acme' GROUP BY hour ORDER BY amount DESC LIMIT 1"
    )[0]
    address = f"/events?tenant=acme&meter=input_tokens&window=hour&from={hour['hour']:%Y-%m-%dT%H:%M}Z&format=csv"
    events = list(csv.DictReader(io.StringIO(client.get(address).text)))
    assert sum(int(row["sign"]) * Decimal(row["value"]) for row in events) == hour["amount"]


def test_the_events_of_all_tenants_are_paged_and_a_file_never_cut(
    log_in: LogIn, finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = log_in("viewer")
    address = "/events?meter=requests&window=hour&from=2026-11-20T07:00Z"
    rows = list(csv.DictReader(io.StringIO(client.get(f"{address}&format=csv").text)))
    known = finished.stores.rows(
        "SELECT tenant, sum(value) AS total FROM @usage_facts_current WHERE meter = 'requests'"
        " AND toStartOfHour(usage_minute) = '2026-11-20 07:00:00' GROUP BY tenant"
    )
    sums: dict[str, Decimal] = {}
    for row in rows:
        sums[row["tenant"]] = sums.get(row["tenant"], Decimal(0)) + int(row["sign"])
    assert sums == {row["tenant"]: row["total"] for row in known}
    monkeypatch.setattr(events_page, "ROWS_MAX", len(rows) // 3)
    found: list[str] = []
    following = address
    while following:
        text = client.get(following).text
        found += re.findall(r'<td class="key"><a href="/trace\?id=([^&]+)&', text)
        link = re.search(r'href="([^"]+)" rel="next"', text)
        following = link.group(1).replace("&amp;", "&") if link else ""
        assert ("there are more" in text) == bool(link)
    assert found == [row["id"] for row in rows]
    monkeypatch.setattr(events_page, "EXPORT_MAX", len(rows) - 1)
    refused = client.get(f"{address}&format=csv")
    assert refused.status_code == 400
    assert "there are more" in refused.text


def test_points_of_a_split_and_of_days_of_a_time_zone_lead_to_their_events(log_in: LogIn) -> None:
    client = log_in("viewer")
    text = client.get("/usage?meter=input_tokens&by=model&window=day&span=week&zone=America/New_York").text
    points = re.findall(r'<td>([^<]*)</td><td class="number"[^>]*>[^<]*</td>.*?<a href="([^"]+)">([\d,]+)</a>', text)
    assert points
    for group, link, count in points:
        address = link.replace("&amp;", "&")
        rows = list(csv.DictReader(io.StringIO(client.get(f"{address}&format=csv").text)))
        assert sum(int(row["sign"]) for row in rows) == int(count.replace(",", "")), address
        assert {row["dimensions"].partition("model=")[2].partition(",")[0] for row in rows} == {group}


def test_usage_as_it_was_known_earlier_leaves_out_what_was_booked_later(log_in: LogIn, finished: Finished) -> None:
    moment = "2026-11-20T10:00Z"
    text = log_in().get(f"/usage?meter=requests&span=week&window=day&as_of={moment}&format=csv").text
    shown = sum(int(row["events"]) for row in csv.DictReader(io.StringIO(text)))
    known = finished.stores.rows(
        "SELECT sumIf(f.events, booked_minute < '2026-11-20 10:00:00') AS then, sum(f.events) AS now"
        " FROM @usage_facts_current AS f WHERE meter = 'requests'"
    )[0]
    assert shown == known["then"] < known["now"]
