"""The operations report, against counts made here from the same stores."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import delete, func, select
from typer.testing import CliRunner

from cli.main import app
from queries import exceptions
from queries.operations import hours_between, report
from queries.reconcile import reconcile, span_of
from queries.reconcile_erp import checks
from sinks.erp.registry import Adapters
from sinks.ledger import acts, audit, tables
from sinks.ledger.database import read, write
from tests.queries.conftest import START, Finished

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def test_documents_postings_and_amounts_are_those_of_the_stores(finished: Finished) -> None:
    found = report(finished.stores, NOW)
    table = tables.documents
    with read(finished.stores.engine) as connection:
        counted = {
            (row.entity, row.accounting_period): row.n
            for row in connection.execute(
                select(table.c.entity, table.c.accounting_period, func.count().label("n")).group_by(
                    table.c.entity, table.c.accounting_period
                )
            )
        }
    assert {(one.entity, one.period): one.documents for one in found.months} == counted
    for month in found.months:
        assert month.postings == month.posted_postings == month.first_time > 0
        assert (month.first_time_percent, month.touches_per_1000) == (Decimal("100.0"), Decimal("0.0"))
        assert (month.hours_to_reconciled, month.hours_to_invoiced, month.hours_to_sealed) == (None, None, None)
    rows = finished.stores.rows("SELECT * FROM @rated_usage_current WHERE status = 'sealed'")
    assert [one.late for one in found.late if one.late]
    for one in found.late:
        own = [
            row
            for row in rows
            if (row["entity"], row["accounting_period"], row["currency"]) == (one.entity, one.period, one.currency)
        ]
        assert one.amount == sum((row["amount"] for row in own), Decimal(0))
        assert one.late == sum((row["amount"] for row in own if row["line_kind"] == "late_usage"), Decimal(0))
        assert one.prior == sum(
            (row["amount"] for row in own if row["original_period"] != row["accounting_period"]), Decimal(0)
        )


def test_open_exceptions_have_their_age_and_usage_without_a_price_is_listed(finished: Finished) -> None:
    now = START + timedelta(days=3)
    found = report(finished.stores, now)
    groups = exceptions.groups(finished.stores)
    assert {one.kind: one.groups for one in found.exceptions} == {
        kind: sum(group.kind == kind for group in groups) for kind in {group.kind for group in groups}
    }
    assert all(one.oldest_hours > 60 for one in found.exceptions if one.kind == "malformed_json")
    assert found.unrated
    assert {one.tenant for one in found.unrated} == {
        row["t"]
        for row in finished.stores.rows("SELECT DISTINCT tenant AS t FROM @rated_usage WHERE status = 'unrated'")
    }


def test_acts_by_hand_count_per_thousand_documents_of_their_month(finished: Finished) -> None:
    engine = finished.stores.engine
    before = {(one.entity, one.period): one for one in report(finished.stores, NOW).months}
    with write(engine) as connection:
        row = connection.execute(select(tables.postings).where(tables.postings.c.entity == "US01").limit(1)).one()
        for action in ("approve", "release", "log_in"):
            audit.record(connection, at=NOW, actor="ann", action=action, subject=row.key)
        audit.record(connection, at=NOW, actor="ann", action="resolve_exception", subject="abc")
    found = report(finished.stores, NOW)
    touched = {(one.entity, one.period): one.touches for one in found.months}
    own = ("US01", row.accounting_period)
    assert touched == {key: 2 if key == own else 0 for key in before}
    month = next(one for one in found.months if (one.entity, one.period) == own)
    assert month.touches_per_1000 == (Decimal(2000) / month.documents).quantize(Decimal("0.1"))
    assert found.other_touches == {"resolve_exception": 1}


def test_invoices_of_billing_periods_that_ended_in_the_month_count(finished: Finished) -> None:
    engine = finished.stores.engine
    at = datetime(2026, 12, 3, 5, tzinfo=UTC)  # two days after November in New York
    for number, (ends, recorded_at) in enumerate(
        (("2026-12-01T05:00:00+00:00", at), ("2026-12-15T00:00:00+00:00", at + timedelta(days=20)))
    ):
        act = acts.Act(f"ACT{number}", acts.INVOICE, f"c{number}", "US01", 1, {"period_end": ends})
        with write(engine) as connection:
            acts.record(connection, act, actor="ann", reason="", at=recorded_at)
    found = {(one.entity, one.period): one.hours_to_invoiced for one in report(finished.stores, NOW).months}
    assert found["US01", "2026-11"] == Decimal("48.0")
    assert found["EU01", "2026-11"] is None
    with write(engine) as connection:
        connection.execute(delete(tables.acts))


def test_a_month_is_reconciled_when_all_its_postings_are(finished: Finished) -> None:
    stores = finished.stores
    span = span_of(stores, None, None)
    reconcile(stores, span, more=lambda one, other: checks(one, other, Adapters(stores.settings), NOW))
    found = report(stores, NOW)
    assert all(month.hours_to_reconciled is not None for month in found.months)
    assert hours_between(NOW, NOW + timedelta(minutes=90)) == Decimal("1.5")


def test_the_command_prints_tables_and_json(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in finished.deployment.environment().items():
        if name.startswith("METERBRIDGE_"):
            monkeypatch.setenv(name, value)

    def call(*arguments: str) -> Any:
        done = CliRunner().invoke(app, [*arguments], env={"COLUMNS": "200"})
        assert done.exit_code == 0, done.output
        return done.stdout

    plain = json.loads(call("--json", "report", "operations", "--entity", "US01", "--periods", "1"))
    assert [one["entity"] for one in plain["months"]] == ["US01"]
    assert plain["months"][0]["first_time_percent"] == "100.0"
    text = call("report", "operations")
    assert "Hours from the period's end until" in text
    assert "Usage without a price" in text
