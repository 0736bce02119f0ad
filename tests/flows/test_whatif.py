"""What-if on a real ClickHouse: reading gives what rating booked, and nothing is written."""

import threading
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from config.revision import History
from config.settings import ClickHouseSettings, Settings
from core.errors import ConfigError, InvalidRequest
from flows import whatif as flow
from flows.whatif import whatif
from operators.rate_whatif import Window
from sinks import clickhouse, ledger
from sinks.clickhouse.client import connect
from sinks.clickhouse.tables import TABLES
from sinks.clickhouse.writer import TableWriter
from sinks.ledger import progress, revisions
from sinks.ledger.database import write
from tests.operators.rate_support import HOUR0, Driver, Use, customer, facts, revision, version

DAY = 24 * 60
TIERS: list[dict[str, Any]] = [{"up_to": "100", "unit_amount": "0.10"}, {"up_to": None, "unit_amount": "0.01"}]
CHARGES: list[dict[str, Any]] = [
    {"id": "input", "meter": "tokens", "model": "graduated", "tiers": TIERS, "filter": {"model": 'a/"b"'}},
    {"id": "calls", "meter": "calls", "model": "per_unit", "unit_amount": "0.1", "minimum": "5"},
    {"id": "peak", "meter": "peak", "model": "per_unit", "unit_amount": "2"},
]
REVISION = revision(
    [version(*CHARGES)],
    [customer("acme"), customer("globex")],
    rules={"books_open_at": "2024-01-01T00:00:00Z"},
    entity={"accounts": {"unbilled_receivable": "1", "usage_revenue": "2", "shortfall_revenue": "3"}},
)
A = '{"model":"a/\\"b\\""}'
USES = [
    Use(10, 10, "80", dimensions=A),
    Use(2 * DAY, 2 * DAY, "80", dimensions=A),
    Use(2 * DAY, 3 * DAY, "1.5", dimensions=A, tenant="globex"),
    Use(3 * DAY, 3 * DAY, "7", 7, meter="calls"),
    Use(3 * DAY, 3 * DAY, "9", meter="peak"),
    Use(4 * DAY, 4 * DAY, "4", meter="peak"),
    Use(5 * DAY, 5 * DAY, "3", 3, meter="calls", tenant="nobody"),
]
COMPLETE_HOUR = HOUR0 + 32 * 24
"""One day into February: January has ended."""


@pytest.fixture
def settings(clickhouse_settings: ClickHouseSettings, tmp_path: Path) -> Settings:
    found = Settings().model_copy(update={"state_dir": tmp_path, "clickhouse": clickhouse_settings})
    clickhouse.migrate(clickhouse_settings)
    ledger.migrate(found.ledger_url)
    engine = ledger.connect(found.ledger_url)
    revisions.record_revision(engine, REVISION, datetime(2024, 1, 1, tzinfo=UTC))
    with write(engine) as connection:
        mark = progress.Progress(1, COMPLETE_HOUR * 3_600_000 + 61_000)
        progress.put(connection, progress.PROMOTED, mark)
    engine.dispose()
    driver = Driver(History([REVISION]))
    driver.send(facts(USES), (COMPLETE_HOUR - HOUR0) * 60 + 1)
    # An open fact beyond what is complete: never read.
    still_open = facts([Use(40 * DAY, 40 * DAY, "1000", dimensions=A)], sealed=0)
    for table, frames in (
        ("usage_facts", [facts(USES), still_open]),
        ("rated_usage", [driver.rows("sealed", "unrated")]),
    ):
        writer = TableWriter(TABLES[table], clickhouse_settings, (), stop=threading.Event(), epoch_s=1)
        writer.write(frames)
        writer.flush()
        writer.close()
    return found


def plans(tmp_path: Path, *charges: dict[str, Any]) -> Path:
    path = tmp_path / "plans.yaml"
    path.write_text(yaml.safe_dump({"plans": [{"id": "p", "versions": [version(*charges)]}]}))
    return path


def rows(report: flow.Report) -> dict[tuple[str, str], tuple[Decimal, Decimal, Decimal]]:
    return {
        (row["customer"], row["charge"]): (row["amount_booked"], row["amount_whatif"], row["difference"])
        for row in report.rows.iter_rows(named=True)
    }


def test_the_same_plans_make_no_difference(settings: Settings, tmp_path: Path) -> None:
    report = whatif(settings, plans(tmp_path, *CHARGES))
    assert report.window == Window(HOUR0, COMPLETE_HOUR)
    assert report.facts == len(USES)
    # input: 100 x 0.10 + 60 x 0.01; 1.5 x 0.10; calls: 7 x 0.1 raised to 5; peak: 9 x 2
    assert {key: amounts[0] for key, amounts in rows(report).items()} == {
        ("acme", "input"): Decimal("10.6"),
        ("acme", "calls"): Decimal(5),
        ("acme", "peak"): Decimal(18),
        ("globex", "input"): Decimal("0.15"),
        ("globex", "calls"): Decimal(5),
    }
    assert [amounts[2] for amounts in rows(report).values()] == [0] * 5
    assert report.unpriced.rows() == [("", "nobody", "calls", 3)]
    assert report.totals() == {
        "USD": {"amount_booked": Decimal("38.75"), "amount_whatif": Decimal("38.75"), "difference": Decimal(0)}
    }


@pytest.mark.parametrize(("begins", "ends"), [(1, 2), (2, 3), (3, 5), (0, 40), (31, 32)])
def test_a_window_takes_up_where_the_tiers_stood(settings: Settings, tmp_path: Path, begins: int, ends: int) -> None:
    report = whatif(settings, plans(tmp_path, *CHARGES), HOUR0 + begins * 24, HOUR0 + ends * 24)
    assert report.window.ends <= COMPLETE_HOUR
    assert [amounts[2] for amounts in rows(report).values()] == [0] * len(report.rows)
    if (begins, ends) == (2, 3):
        # to date 80, then 160: 20 x 0.10 + 60 x 0.01
        assert rows(report) == {("acme", "input"): (Decimal("2.6"), Decimal("2.6"), Decimal(0))}


def test_other_prices_by_hand(settings: Settings, tmp_path: Path) -> None:
    report = whatif(settings, plans(tmp_path, CHARGES[0], CHARGES[1] | {"unit_amount": "1"}))
    # calls: 7 x 1 for acme, the minimum of 5 for globex; peak has no price any more
    assert rows(report) == {
        ("acme", "input"): (Decimal("10.6"), Decimal("10.6"), Decimal(0)),
        ("acme", "calls"): (Decimal(5), Decimal(7), Decimal(2)),
        ("acme", "peak"): (Decimal(18), Decimal(0), Decimal(-18)),
        ("globex", "input"): (Decimal("0.15"), Decimal("0.15"), Decimal(0)),
        ("globex", "calls"): (Decimal(5), Decimal(5), Decimal(0)),
    }


def test_a_window_is_cut_to_the_books(settings: Settings, tmp_path: Path) -> None:
    report = whatif(settings, plans(tmp_path, *CHARGES), 0, HOUR0 + 24)
    assert report.window == Window(HOUR0, HOUR0 + 24)
    # The books open with January, before the first usage: fees of that time belong to the window.
    with connect(settings.clickhouse) as client:
        database = settings.clickhouse.database
        client.command(f"ALTER TABLE {database}.usage_facts DELETE WHERE meter != 'peak' SETTINGS mutations_sync = 2")
        client.command(f"TRUNCATE TABLE {database}.rated_usage")
    assert whatif(settings, plans(tmp_path, *CHARGES)).window == Window(HOUR0, COMPLETE_HOUR)


def test_nothing_is_written(settings: Settings, tmp_path: Path) -> None:
    def state() -> Any:
        with connect(settings.clickhouse) as client:
            text = (
                "SELECT table, sum(rows) FROM system.parts WHERE database = {d:String} AND active"
                " GROUP BY table ORDER BY table"
            )
            return client.query(text, {"d": settings.clickhouse.database}).result_rows

    before = state()
    assert {table for table, _ in before} >= {"rated_usage", "usage_facts"}
    whatif(settings, plans(tmp_path, CHARGES[0]))
    assert state() == before


def test_subjects_are_read_in_groups(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = whatif(settings, plans(tmp_path, *CHARGES))
    monkeypatch.setattr(flow, "FACTS_PER_QUERY_MAX", 1)
    read: list[int] = []
    parts = whatif(settings, plans(tmp_path, *CHARGES), advance=read.append)
    assert read == [5, 1, 1]
    assert parts.rows.equals(whole.rows)


def test_what_cannot_be_asked_is_said(settings: Settings, tmp_path: Path) -> None:
    path = plans(tmp_path, *CHARGES)
    with pytest.raises(InvalidRequest, match="no booked hour is complete in that window"):
        whatif(settings, path, COMPLETE_HOUR, COMPLETE_HOUR + 24)
    with connect(settings.clickhouse) as client:
        client.command(f"TRUNCATE TABLE {settings.clickhouse.database}.usage_facts")
    with pytest.raises(InvalidRequest, match="nothing is booked yet"):
        whatif(settings, path)
    with pytest.raises(ConfigError, match="unknown meter 'nothing'"):
        whatif(settings, plans(tmp_path, CHARGES[0] | {"meter": "nothing"}))
