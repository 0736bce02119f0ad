"""Reconciliation finds what was done to the stores by hand, and names it."""

import threading
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import orjson
import pytest
from sqlalchemy import select, update
from typer.testing import CliRunner

from cli.main import app
from config.settings import ReconcileSettings
from flows.reconciling import command_of, in_process
from queries.reconcile import Check, reconcile, span_of
from sinks.ledger import tables
from sinks.ledger.database import read, write
from tests.flows.harness import CONFIG
from tests.queries.conftest import Finished


def _broken(finished: Finished) -> dict[str, Check]:
    report = reconcile(finished.stores, span_of(finished.stores, None, None))
    return {check.name: check for check in report.checks if not check.holds}


def test_an_untouched_run_reconciles_and_everything_was_compared(finished: Finished) -> None:
    names: list[str] = []
    report = reconcile(finished.stores, span_of(finished.stores, None, None), names.append)

    assert {check.name: check.breaks for check in report.checks if not check.holds} == {}
    assert report.holds
    assert [check.name for check in report.checks] == names
    assert [check.name for check in report.checks if check.groups == 0] == []
    assert len(names) == len(set(names)) >= 17


def test_a_span_is_cut_to_sealed_hours(finished: Finished) -> None:
    start = datetime(2026, 11, 20, 8, 30, tzinfo=UTC)

    span = span_of(finished.stores, start, datetime(2999, 1, 1, tzinfo=UTC))

    assert span.begins == start.replace(minute=0)
    assert datetime(2026, 11, 20, 12, tzinfo=UTC) < span.ends <= datetime.now(UTC) + timedelta(hours=1)
    report = reconcile(finished.stores, span_of(finished.stores, start, start + timedelta(hours=2)))
    assert report.holds
    assert all(check.groups for check in report.checks if check.name != "refused events are stored")


def test_a_span_with_nothing_in_it_is_not_said_to_hold(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in finished.deployment.environment().items():
        monkeypatch.setenv(name, value)

    def call(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["--config", str(CONFIG), *arguments])
        return result.exit_code, f"{result.output} {result.exception}"

    for span in (["--from", "2999-01-01"], ["--from", "2026-11-20T09:20Z", "--to", "2026-11-20T09:40Z"]):
        code, said = call("reconcile", *span)
        assert code == 1
        assert "booked and sealed is until" in said
    code, said = call("reconcile", "--to", "1999-01-01")
    assert (code, "Nothing was compared" in said) == (0, True)
    code, said = call("--json", "reconcile", "--to", "1999-01-01")
    assert orjson.loads(said.rpartition("}")[0] + "}")["compared"] == 0


CASES: list[tuple[str, str, str, str, str]] = [
    (
        "a deleted event",
        "usage_events",
        "DELETE WHERE (stream, entry_id) IN (SELECT stream, entry_id FROM @usage_events"
        " WHERE type = 'llm.completion' AND tenant = 'globex' ORDER BY ingest_time LIMIT 1)",
        "accepted events are stored",
        "missing: deleted",
    ),
    (
        "a deleted reject",
        "usage_rejects",
        "DELETE WHERE (stream, entry_id) IN (SELECT stream, entry_id FROM @usage_rejects"
        " WHERE counted = 1 ORDER BY ingest_time LIMIT 1)",
        "refused events are stored",
        "missing: deleted",
    ),
    (
        "an edited fact",
        "usage_facts",
        "UPDATE value = value + toDecimal128('0.000000000001', 12) WHERE (tenant, meter, usage_minute, booked_minute)"
        " IN (SELECT tenant, meter, usage_minute, booked_minute FROM @usage_facts_current"
        " WHERE tenant = 'globex' AND meter = 'input_tokens' ORDER BY usage_minute, booked_minute LIMIT 1)",
        "input_tokens: events are in facts",
        "edited",
    ),
    (
        "an edited amount",
        "rated_usage",
        "UPDATE amount = amount + toDecimal128('0.01', 12) WHERE status = 'sealed' AND customer = 'globex'"
        " AND charge = 'input' AND booked_hour = (SELECT min(booked_hour) FROM @rated_usage WHERE customer = 'globex'"
        " AND charge = 'input' AND status = 'sealed')",
        "rated amounts are in documents",
        "rated row was edited",
    ),
    (
        "a missing hour",
        "rated_usage",
        "DELETE WHERE booked_hour = (SELECT max(booked_hour) FROM @rated_usage WHERE customer = 'globex'"
        " AND status = 'sealed' AND line_kind = 'usage')",
        "facts are rated",
        "hour was not rated",
    ),
    (
        "a missing hour of facts",
        "usage_facts",
        "DELETE WHERE meter = 'requests' AND toStartOfHour(booked_minute) = (SELECT min(toStartOfHour(booked_minute))"
        " FROM @usage_facts WHERE meter = 'requests')",
        "requests: events are in facts",
        "usage_facts are missing",
    ),
    (
        "a missing hour of events",
        "usage_events",
        "DELETE WHERE toStartOfHour(ingest_time) = (SELECT min(toStartOfHour(ingest_time)) FROM @usage_events"
        " WHERE type = 'llm.completion')",
        "requests: events are in facts",
        "usage_events are missing",
    ),
    (
        "an edited revenue",
        "rated_usage",
        "UPDATE revenue_amount = revenue_amount + toDecimal128('0.01', 12) WHERE customer = 'globex'"
        " AND charge = 'input' AND status = 'sealed' AND booked_hour = (SELECT min(booked_hour) FROM @rated_usage"
        " WHERE customer = 'globex' AND charge = 'input' AND status = 'sealed')",
        "documents add up to the rounded revenue",
        "were edited",
    ),
    (
        "a deleted copy of a document",
        "financial_documents",
        "DELETE WHERE key = (SELECT min(key) FROM @financial_documents)",
        "documents are the same in both stores",
        "missing on one side",
    ),
]


@pytest.mark.parametrize(("table", "change", "check", "cause"), [case[1:] for case in CASES], ids=[c[0] for c in CASES])
def test_a_fault_made_by_hand_is_found_and_named(
    finished: Finished, table: str, change: str, check: str, cause: str
) -> None:
    with _kept(finished, table):
        finished.deployment.query_command(
            finished.stores.resolved(f"ALTER TABLE @{table} {change} SETTINGS mutations_sync = 1")
        )
        broken = _broken(finished)

    assert check in broken
    assert any(cause in found.cause for found in broken[check].breaks)
    assert all(found.difference for found in broken[check].breaks)


def test_a_doubled_insert_is_found(finished: Finished) -> None:
    with _kept(finished, "usage_events"):
        finished.deployment.query_command(
            finished.stores.resolved(
                "INSERT INTO @usage_events (tenant, source, id, type, event_time, stream, entry_id, entry_index,"
                " ingest_time, booked_minute, data) SELECT tenant, source, id, type, event_time, stream, entry_id,"
                " entry_index + 1, ingest_time, booked_minute, data FROM @usage_events"
                " WHERE tenant = 'globex' ORDER BY ingest_time LIMIT 3"
            )
        )
        broken = _broken(finished)

    assert [found.difference for found in broken["no event is accepted twice"].breaks] == [3]
    assert sum(int(found.difference) for found in broken["accepted events are stored"].breaks) == -3


def test_a_rated_row_written_twice_is_found(finished: Finished) -> None:
    columns = ", ".join(
        row["name"]
        for row in finished.stores.rows(
            "SELECT name FROM system.columns WHERE database = {database:String} AND table = 'rated_usage'"
            " AND default_kind != 'MATERIALIZED' AND name != 'price_row' ORDER BY position",
            {"database": finished.deployment.settings.clickhouse.database},
        )
    )
    with _kept(finished, "rated_usage"):
        finished.deployment.query_command(
            finished.stores.resolved(
                f"INSERT INTO @rated_usage ({columns}, price_row) SELECT {columns}, 'again' FROM @rated_usage"
                " WHERE status = 'sealed' AND customer = 'globex' AND line_kind = 'usage'"
                " AND charge = 'input' ORDER BY booked_hour LIMIT 1"
            )
        )
        broken = _broken(finished)

    assert {"facts are rated", "rated amounts are in documents"} <= broken.keys()
    assert {Decimal(found.difference) < 0 for found in broken["facts are rated"].breaks} == {True}
    assert "holds more than the facts" in broken["facts are rated"].breaks[0].cause
    assert "rated row was edited" in broken["rated amounts are in documents"].breaks[0].cause


def test_an_edited_document_is_found(finished: Finished) -> None:
    table = tables.documents
    with read(finished.stores.engine) as connection:
        row = connection.execute(
            select(table.c.key, table.c.json).where(table.c.posting_key.is_not(None)).order_by(table.c.key)
        ).first()
    assert row is not None
    document = orjson.loads(row.json)
    document["lines"][0]["amount"] = str(Decimal(document["lines"][0]["amount"]) + Decimal("0.01"))
    _store(finished, row.key, orjson.dumps(document).decode())
    try:
        broken = _broken(finished)
    finally:
        _store(finished, row.key, row.json)

    assert {"documents balance", "postings hold their documents"} <= broken.keys()
    assert [found.where for found in broken["documents balance"].breaks] == [{"key": row.key}]
    assert abs(Decimal(broken["documents balance"].breaks[0].difference)) == Decimal("0.01")


def _store(finished: Finished, key: str, text: str) -> None:
    with write(finished.stores.engine) as connection:
        connection.execute(update(tables.documents).where(tables.documents.c.key == key).values(json=text))


class _kept:  # noqa: N801
    """Context in which a table may be changed: it is put back from a copy behind it."""

    def __init__(self, finished: Finished, table: str) -> None:
        self._finished = finished
        self._table = table

    def _run(self, text: str) -> None:
        self._finished.deployment.query_command(self._finished.stores.resolved(text))

    def __enter__(self) -> None:
        self._run(f"CREATE TABLE @kept AS @{self._table}")
        self._run(f"INSERT INTO @kept SELECT * FROM @{self._table}")

    def __exit__(self, *_: object) -> None:
        self._run(f"TRUNCATE TABLE @{self._table}")
        self._run(f"INSERT INTO @{self._table} SELECT * FROM @kept")
        self._run("DROP TABLE @kept")


def test_a_scheduled_run_reports_what_was_broken_and_an_outage_as_no_result(
    finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in finished.deployment.environment().items():
        monkeypatch.setenv(name, value)
    run = in_process(command_of(ReconcileSettings(window_hours=5_000), CONFIG), 300)
    with _kept(finished, "rated_usage"):
        finished.deployment.query_command(
            finished.stores.resolved(
                "ALTER TABLE @rated_usage DELETE WHERE booked_hour = (SELECT max(booked_hour) FROM @rated_usage"
                " WHERE customer = 'globex' AND status = 'sealed' AND line_kind = 'usage') SETTINGS mutations_sync = 1"
            )
        )
        outcome = run(threading.Event())

    assert outcome is not None
    assert outcome.report is not None, outcome.error
    assert not outcome.report["holds"]
    assert "facts are rated" in {check["name"] for check in outcome.report["checks"] if check["broken"]}

    monkeypatch.setenv("METERBRIDGE_CLICKHOUSE__URL", "http://127.0.0.1:9")
    outcome = run(threading.Event())
    assert outcome is not None
    assert outcome.report is None
    assert "METERBRIDGE_CLICKHOUSE__URL" in outcome.error
