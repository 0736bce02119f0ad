"""`meterbridge erp` and `report` as a user calls them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.main import app
from core.errors import InvalidRequest, MeterbridgeError
from sinks.erp.journal import JournalAdapter
from sinks.ledger import audit
from sinks.ledger.database import read
from tests.flows.poster_world import World, many, postings_of
from tests.sinks.ledger.invoice_books import FIRST_HOUR, configured, usage
from tests.sinks.ledger.samples import HOUR, SampleDocument, entity, key

Call = Callable[..., Any]


@pytest.fixture
def call(tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.setenv("METERBRIDGE_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("METERBRIDGE_REDIS__URL", redis_url)

    def run(*arguments: str, fails: bool = False) -> Any:
        done = CliRunner().invoke(app, ["--json", *arguments])
        if isinstance(done.exception, MeterbridgeError):
            raise done.exception
        assert bool(done.exit_code) == fails, done.output
        return json.loads(done.stdout)

    return run


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(f"sqlite:///{tmp_path / 'ledger.sqlite'}")


def test_approve_and_reverse_need_a_reason_and_leave_their_trace(call: Call, world: World, tmp_path: Path) -> None:
    world.configure(entity() | {"approval": {"above": "100"}})
    world.book(*many(2), SampleDocument(key(9), "500.00"))
    world.once(erp=JournalAdapter(tmp_path / "books"))
    waiting = call("report", "postings")["waiting"]
    assert [(one["reason"], "erp approve" in one["do"]) for one in waiting] == [("approval_required", True)]
    with pytest.raises(InvalidRequest, match="--reason"):
        call("erp", "approve", waiting[0]["key"])
    said = call("erp", "approve", waiting[0]["key"], "--name", "ann", "--reason", "agreed with sales")
    assert (said["approved_now"], said["actor"]) == (True, "ann")
    assert not call("erp", "approve", key(9), "--reason", "again")["approved_now"]
    world.once(erp=JournalAdapter(tmp_path / "books"))
    with pytest.raises(InvalidRequest, match="--reason"):
        call("erp", "reverse", key(9))
    made = call("erp", "reverse", key(9), "--name", "bob", "--reason", "wrong price")
    assert (made["made_now"], made["approval"]) == (True, "its amount -500.00 is above 100")
    call("erp", "approve", made["key"], "--name", "ann", "--reason", "agreed")
    assert not call("erp", "reverse", key(9), "--reason", "wrong price")["made_now"]
    world.once(erp=JournalAdapter(tmp_path / "books"))
    states = {one["state"]: one["postings"] for one in call("report", "postings")["states"]}
    assert states == {"POSTED": 2, "REVERSED": 1}
    with read(world.engine) as connection:
        found = [(row["actor"], row["action"], row["reason"]) for row in reversed(audit.entries(connection))]
    assert found == [
        ("ann", "approve", "agreed with sales"),
        ("bob", "reverse", "wrong price"),
        ("ann", "approve", "agreed"),
    ]
    (rolled,) = call("report", "unbilled", "--erp")["customers"][-1:]
    assert rolled["customer"]
    world.engine.dispose()


def test_close_and_reopen_are_known_from_the_next_hour(call: Call, world: World) -> None:
    world.configure()
    world.book(*many(1))
    world.once()
    said = call("erp", "close-period", "US01", "2025-11", "--reason", "audited")
    assert (said["action"], said["undelivered_documents"]) == ("close", 0)
    with pytest.raises(InvalidRequest, match="closed before"):
        call("erp", "close-period", "US01", "2025-11", "--reason", "again")
    with pytest.raises(InvalidRequest, match="wait for the next one"):
        call("erp", "reopen-period", "US01", "2025-11", "--reason", "found one")
    for wrong in (("XX01", "2025-11"), ("US01", "2025-13"), ("US01", "November")):
        with pytest.raises(InvalidRequest):
            call("erp", "close-period", *wrong, "--reason", "x")
    (period,) = call("report", "periods")["periods"]
    assert (period["period"], period["can_close"], period["revenue"]) == ("2025-11", True, "12.34")
    world.engine.dispose()


def test_pull_ready_invoice_and_the_unbilled_report(call: Call, world: World, tmp_path: Path) -> None:
    plain = configured()
    world.configure(*plain.pop("entities"), **plain)
    world.book(usage(1, "10.00", 0), usage(2, "2.50", 3, customer="globex"), complete_hour=FIRST_HOUR + 31 * 24)
    world.once(erp=JournalAdapter(tmp_path / "books"))
    assert len(call("erp", "ready", fails=True)["not_ready"]) == 2
    assert call("erp", "invoice", fails=True)["not_ready"] == 2
    pulled = call("erp", "pull")["pulled"]
    assert pulled[0]["counts"] == {"account": 2}
    assert call("erp", "ready")["ready"] == 2
    before = call("report", "unbilled", "--period", "2025-11", "--erp")
    assert {one["customer"]: one["closing"] for one in before["customers"]} == {"acme": "10.00", "globex": "2.50"}
    assert [one["difference"] for one in before["erp"]] == ["0.00"]
    assert len(call("erp", "invoice", "--dry-run")["invoices"]) == 2
    assert [one["net"] for one in call("erp", "invoice", "--customer", "acme")["invoices"]] == ["10.00"]
    assert [one["customer"] for one in call("erp", "invoice")["invoices"]] == ["globex"]
    assert call("erp", "invoice")["invoices"] == []
    world.once(erp=JournalAdapter(tmp_path / "books"))
    after = call("report", "unbilled", "--erp")
    assert {one["customer"]: float(one["closing"]) for one in after["customers"]} == {"acme": 0, "globex": 0}
    assert [(float(one["ours"]), float(one["erp"])) for one in after["erp"]] == [(0, 0)]
    path = next((tmp_path / "books").glob("2025/2025-11-01.beancount"))
    path.write_text(path.read_text().replace("10.00 USD", "10.01 USD"))
    done = CliRunner().invoke(app, ["report", "unbilled", "--erp"])
    assert isinstance(done.exception, InvalidRequest)
    assert "reconcile --erp" in str(done.exception)
    assert call("erp", "pull", "--entity", "US01")["pulled"][0]["added"] == ["account 1200"]
    world.engine.dispose()


def test_a_pull_tells_what_is_not_mapped(call: Call, world: World) -> None:
    plain = configured()
    (made,) = plain.pop("entities")
    made["erp"] = made["erp"] | {"mappings": {"taxes": {}}}
    for customer in plain["customers"][:1]:
        customer.pop("erp")
    fee = {"id": "fee", "model": "flat", "amount": "1", "accounting": {"tax_category": "reduced"}}
    version = {"effective_from": "2023-01-01T00:00:00Z", "currency": "USD", "charges": [fee]}
    plain["plans"] = [{"id": "p", "versions": [version]}]
    world.configure(made, **plain)
    problem = "is not mapped: what has it is held"
    assert call("erp", "pull")["mappings"] == [
        {"entity": "US01", "kind": kind, "name": name, "code": "", "problem": problem}
        for kind, name in (("customer", "acme"), ("tax", "reduced"))
    ]
    done = CliRunner(env={"COLUMNS": "250"}).invoke(app, ["erp", "pull"])
    assert "2 names without a usable code in the ERP" in done.stdout
    world.engine.dispose()


def test_reports_are_readable_by_people(world: World, call: Call) -> None:
    del call
    world.configure(entity() | {"approval": {"every": True}})
    world.book(*many(1), complete_hour=HOUR + 1)
    world.once()
    assert [row.state for row in postings_of(world)] == ["HELD"]
    for arguments, words in (
        (("report", "postings"), ("approval_required", "erp approve")),
        (("report", "periods"), ("2025-11", "no")),
        (("report", "unbilled"), ("c0", "12.34")),
        (("erp", "ready"), ("contracts",)),
    ):
        done = CliRunner(env={"COLUMNS": "250"}).invoke(app, list(arguments))
        text = done.stdout
        assert all(word in text for word in words), (arguments, text)
    world.engine.dispose()
