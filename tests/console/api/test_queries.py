"""Answers of the API are those of the queries, which have their own tests: numbers tie from usage to the ERP."""

from collections import defaultdict
from decimal import Decimal

from tests.console.api.conftest import World
from tests.queries.conftest import START

SPAN = {"from": START.isoformat(), "to": "2026-11-20T14:00:00Z"}


def test_usage_adds_up_whatever_the_window(world: World) -> None:
    totals = set()
    for window, zone in (("minute", "UTC"), ("hour", "Asia/Kathmandu"), ("day", "America/New_York"), ("total", "UTC")):
        rows = world.all_pages("/usage", meter="input_tokens", window=window, timezone=zone, **SPAN)
        totals.add((sum(Decimal(row["value"]) for row in rows), sum(row["events"] for row in rows)))
    assert len(totals) == 1
    by_group = world.all_pages("/usage", meter="input_tokens", window="total", group_by=["tenant", "model"], **SPAN)
    assert {(sum(Decimal(row["value"]) for row in by_group), sum(row["events"] for row in by_group))} == totals
    one = by_group[0]
    found = world.get(
        "/usage", meter="input_tokens", window="total", tenant=one["tenant"],
        dimension=f"model:{one['dimensions']['model']}", **SPAN,
    ).json()["items"]  # fmt: skip
    assert [row["value"] for row in found] == [one["value"]]


def test_spend_is_the_sum_of_the_rated_rows(world: World) -> None:
    rows = world.finished.stores.rows(
        "SELECT customer, contract, sum(amount) AS total FROM @rated_usage_current WHERE status != 'unrated'"
        " GROUP BY customer, contract"
    )
    checked = 0
    for row in rows:
        answer = world.get(f"/customers/{row['customer']}/spend", at="2026-11-20T14:00:00Z", explain=True)
        assert answer.status_code == 200, answer.text
        for contract in answer.json()["contracts"]:
            if contract["contract"] != row["contract"]:
                continue
            assert Decimal(contract["amount"]) == row["total"]
            assert sum(Decimal(charge["amount"]) for charge in contract["charges"]) == row["total"]
            assert Decimal(contract["forecast_amount"]) >= 0
            checked += 1
    assert checked == len(rows) > 5


def test_a_document_leads_to_its_rows_and_back_to_events(world: World) -> None:
    document = next(
        row for row in world.all_pages("/documents") if row["state"] == "POSTED" and Decimal(row["total"]) > 0
    )
    whole = world.get(f"/documents/{document['key']}").json()
    assert whole["posting"]["erp_entries"][0]["number"]
    rows = world.all_pages("/rated-rows", document=document["key"], limit=3)
    per_charge: dict[str, Decimal] = defaultdict(Decimal)
    for row in rows:
        per_charge[row["charge"]] += Decimal(row["amount"])
    lines = [line for line in whole["document"]["lines"] if line["kind"] != "recognition"]
    for charge, total in per_charge.items():
        exact = {
            Decimal(line["amount_exact"]) for line in lines if line["charge"] == charge and line["side"] == "debit"
        }
        assert total in exact or sum(exact) == total
    explained = world.get("/rated-rows/explained", document=document["key"], limit=20).json()
    assert explained["rows_in_all"] == len(rows)
    assert all(item["ties"] for item in explained["items"])
    trace = world.get(f"/documents/{document['key']}/trace").json()
    assert trace["charges"]
    assert all(charge["amounts_tie"] for charge in trace["charges"])
    assert all(events["ties"] for events in trace["events"])


def test_an_event_leads_to_the_erp(world: World) -> None:
    event = world.finished.stores.rows(
        "SELECT source, id FROM @usage_events_current WHERE type != 'meterbridge.void' ORDER BY ingest_time LIMIT 1"
    )[0]
    trace = world.get("/trace/event", source=event["source"], id=event["id"]).json()
    assert trace["outcome"] == "accepted"
    assert trace["meters"][0]["facts"]
    assert world.get("/trace/event", source="nobody", id="nothing").status_code == 404


def test_status_and_reconciliation(world: World) -> None:
    status = world.get("/status").json()
    assert status["errors"] == {}
    assert status["books"]["postings_by_state"]["POSTED"] > 0
    assert {stream["stream"] for stream in status["streams"]["streams"]} == set(world.services.settings.redis.streams)
    report = world.get("/reconciliation").json()
    assert report["holds"], report
    assert len(report["checks"]) > 8
    early = world.get("/reconciliation", to="2026-11-20T08:00:00Z").json()
    assert early["to"] == "2026-11-20T08:00:00Z"


def test_live_numbers_come_as_events(world: World) -> None:
    with world.client.stream("GET", "/api/v1/live", timeout=30) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.iter_lines()
        assert next(lines) == "event: overview"
        assert next(lines).startswith('data: {"at":')


def test_the_catalog(world: World) -> None:
    meters = {meter["id"]: meter for meter in world.get("/meters").json()["items"]}
    assert "model" in meters["input_tokens"]["dimensions"]
    plans = world.get("/plans").json()["items"]
    assert plans[0]["versions"][0]["charges"]
    customer = world.all_pages("/customers")[0]
    assert world.get(f"/customers/{customer['id']}").json() == customer


def test_exceptions(world: World) -> None:
    group = world.all_pages("/exceptions", resolved=True)[0]
    assert world.get(f"/exceptions/{group['key']}").json() == group
    assert world.get(f"/exceptions/{group['key'][:5]}").status_code == 404


def test_what_makes_no_sense_is_named(world: World) -> None:
    for path, parameters, status in (
        ("/usage", {}, 400),
        ("/usage", {"meter": "nonsense"}, 422),
        ("/usage", {"meter": "input_tokens", "from": "yesterday"}, 400),
        ("/usage", {"meter": "input_tokens", "from": "2026-11-20"}, 400),
        ("/usage", {"meter": "input_tokens", "dimension": "model"}, 400),
        ("/usage", {"meter": "input_tokens", "window": "week"}, 400),
        ("/usage", {"meter": "input_tokens", "limit": 0}, 400),
        ("/usage", {"meter": "input_tokens", "timezone": "Mars/Olympus"}, 422),
        ("/rated-rows", {}, 400),
        ("/rated-rows", {"document": "A" * 16}, 404),
        ("/customers/nobody/spend", {}, 404),
        ("/documents/nothing", {}, 404),
    ):
        answer = world.get(path, **parameters)
        assert answer.status_code == status, (path, parameters, answer.text)
        assert answer.json()["detail"]
