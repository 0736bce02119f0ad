"""The pages about closing and about what is kept: they show what the stores hold, and act only for who may."""

import csv
import io
from collections.abc import Iterator
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import func, select

from config.settings import ClosingSettings, ConsoleSettings
from console.services import Services, open_services
from core.clock import SystemClock
from sinks.ledger import audit, retention, seals, tables
from sinks.ledger.database import read
from tests.console.pages.conftest import LogIn
from tests.console.server import serving
from tests.queries.conftest import Finished

OVER = "/closing/US01/2026-10"
RUNNING = f"/closing/US01/{datetime.now(ZoneInfo('America/New_York')):%Y-%m}"
"""The month that runs, in the entity's time zone."""
WHY = {"reason": "month end"}


@pytest.fixture(scope="module")
def shown(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Services, str]]:
    """The service with a signing key."""
    key_file = tmp_path_factory.mktemp("key") / "seal.key"
    key_file.write_text("0123456789abcdef" * 4)
    changed = {
        "console": ConsoleSettings(requests_per_s_max=1000, request_s_max=60),
        "closing": ClosingSettings(key_file=key_file),
    }
    services = open_services(finished.deployment.settings.model_copy(update=changed), SystemClock())
    with serving(services) as address:
        yield services, address


def test_the_list_counts_what_the_ledger_has(log_in: LogIn, finished: Finished) -> None:
    client = log_in("viewer")
    rows = list(csv.DictReader(io.StringIO(client.get("/closing?span=all&format=csv").text)))
    table = tables.documents.c
    with read(finished.stores.engine) as connection:
        query = select(table.entity, table.accounting_period, func.count()).group_by("entity", "accounting_period")
        known = {(row[0], row[1]): row[2] for row in connection.execute(query)}
    found = {(row["entity"], row["accounting_period"]): int(row["documents"]) for row in rows}
    assert {key: count for key, count in found.items() if count} == known
    closed = list(csv.DictReader(io.StringIO(client.get("/closing?state=closed&format=csv").text)))
    assert {row["state"] for row in closed} == {"closed"}
    assert client.get("/closing?state=none").status_code == 400
    for path in ("/closing/US01/2026-13", "/closing/XX01/2026-10", "/closing/US01/1999-01"):
        assert client.get(path).status_code == 404


def test_anybody_may_check_and_only_who_may_approve_closes(log_in: LogIn) -> None:
    viewer = log_in("viewer")
    assert viewer.get(f"{RUNNING}?format=csv").status_code == 404, "nothing was checked yet"
    checked = viewer.post(RUNNING, data={"act": "check"}).text
    assert "Checked" in checked
    assert "takes usage until" in checked
    assert "data-dialog" not in checked
    findings = list(csv.DictReader(io.StringIO(viewer.get(f"{RUNNING}?format=csv").text)))
    assert [(row["check"], row["holds"]) for row in findings] == [
        ("the period takes no more usage", "true"),
        ("all its hours are sealed and booked", "false"),
    ]
    assert "checked" in viewer.get("/closing").text
    for wanted in ("seal", "close", "reopen"):
        for role in ("viewer", "operator"):
            assert log_in(role).post(OVER, data={"act": wanted, **WHY}).status_code == 403
        assert log_in("approver").post(OVER, data={"act": wanted, "reason": " "}).status_code == 400
    assert log_in("approver").post(OVER, data={"act": "delete", **WHY}).status_code == 400


def test_a_month_is_previewed_and_sealed_and_its_summary_shown(log_in: LogIn, finished: Finished) -> None:
    client = log_in("approver")
    preview = client.post(OVER, data={"act": "seal", "dry_run": "1", **WHY}).text
    assert "Preview: nothing was changed" in preview
    assert "2026-10 of US01 would be sealed" in preview
    assert "What would be frozen" in preview
    with read(finished.stores.engine) as connection:
        assert seals.chain(connection) == []
    done = client.post(OVER, data={"act": "seal", **WHY}).text
    assert "2026-10 of US01 is sealed, number 1" in done
    with read(finished.stores.engine) as connection:
        [seal] = seals.chain(connection)
        told = audit.entries(connection, "US01/2026-10")
    text = client.get(OVER).text
    assert seal.digest in text
    assert seal.signature in text
    assert {row["action"] for row in told} == {"close-period", "seal-period"}
    assert "seal-period" in text
    assert 'data-dialog="seal"' not in text
    refused = client.post(OVER, data={"act": "reopen", **WHY}).text
    assert "notice bad" in refused
    assert "is sealed and stays closed" in refused


def test_a_period_is_closed_early_with_a_preview(log_in: LogIn) -> None:
    client = log_in("approver")
    preview = client.post(RUNNING, data={"act": "close", "dry_run": "1", **WHY}).text
    assert "would count as closed from" in preview
    assert "Nobody did anything about it" in preview
    done = client.post(RUNNING, data={"act": "close", **WHY}).text
    assert "counts as closed from" in done
    assert "month end" in done.split("History", 1)[1]
    assert "notice bad" in client.post(RUNNING, data={"act": "close", "dry_run": "1", **WHY}).text


def test_holds_are_placed_and_lifted_with_a_preview(log_in: LogIn, finished: Finished) -> None:
    client, engine = log_in("admin"), finished.stores.engine
    form = {"act": "place", "kind": "customer", "name": "globex", **WHY}
    assert "would be on hold" in client.post("/retention", data=form | {"dry_run": "1"}).text
    assert retention.holds(engine) == []
    assert "customer globex is on hold." in client.post("/retention", data=form).text
    assert [(one.kind, one.name, one.reason) for one in retention.holds(engine)] == [
        ("customer", "globex", "month end")
    ]
    assert "Lift</a>" in client.get("/retention").text
    assert "Lift</a>" not in log_in("approver").get("/retention").text
    unknown = client.post("/retention", data=form | {"name": "nobody"}).text
    assert "no configuration ever had a customer" in unknown
    lifted = client.post("/retention?ended=1", data=form | {"act": "lift"}).text
    assert "is on hold no more" in lifted
    assert retention.holds(engine) == []
    rows = list(csv.DictReader(io.StringIO(client.get("/retention?what=holds&ended=1&format=csv").text)))
    assert [(row["name"], bool(row["released_at"])) for row in rows] == [("globex", True)]
    assert "notice bad" in client.post("/retention", data=form | {"act": "lift"}).text


@pytest.mark.parametrize("role", ["viewer", "operator", "approver"])
def test_only_administrators_hold(log_in: LogIn, role: str) -> None:
    client = log_in(role)
    form = {"act": "place", "kind": "tenant", "name": "acme", **WHY}
    assert client.post("/retention", data=form).status_code == 403
    assert 'name="act"' not in client.get("/retention").text


@pytest.mark.parametrize(
    "change", [{"kind": "all"}, {"name": ""}, {"name": "a\x00b"}, {"name": "a" * 300}, {"reason": " "}, {"act": "drop"}]
)
def test_a_wrong_form_says_what_is_wrong(log_in: LogIn, change: dict[str, str]) -> None:
    form = {"act": "place", "kind": "tenant", "name": "acme", **WHY} | change
    assert log_in("admin").post("/retention", data=form).status_code == 400


def test_the_policy_is_saved_as_a_file(log_in: LogIn, finished: Finished) -> None:
    rows = list(csv.DictReader(io.StringIO(log_in("viewer").get("/retention?format=csv").text)))
    assert {row["table"]: int(row["months"]) for row in rows} == finished.stores.settings.retention.model_dump()
