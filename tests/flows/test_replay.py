"""The books made again from archived events alone, as files."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pytest

from core.errors import InvalidRequest
from flows import runtime, verify
from flows.replay import SUMMARY, replay
from flows.verify import SAMPLES_MAX
from sources import stored_events
from sources.producer import Producer
from sources.workload import Workload
from tests.flows.conftest import Deploy
from tests.flows.harness import Deployment

START = datetime(2026, 11, 20, 6, 0, tzinfo=UTC)


@pytest.fixture
def metered(deployment: Deploy) -> Deployment:
    deployed = deployment()
    workload = Workload(seed=3, events=3_000, start=START, end=START + timedelta(hours=4))
    Producer(deployed.settings.redis).send(workload, batch=1)
    runtime.run(deployed.settings, deployed.configuration, drain=True)
    return deployed


def without_streams(deployed: Deployment) -> Any:
    nowhere = deployed.settings.redis.model_copy(update={"url": "redis://127.0.0.1:9/0"})
    return deployed.settings.model_copy(update={"redis": nowhere})


def test_files_hold_what_is_stored_and_come_out_the_same_again(
    metered: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "ROWS_PER_PASS", 500)
    monkeypatch.setattr(stored_events, "EVENTS_PER_READ", 100)
    settings = without_streams(metered)

    first = replay(settings, tmp_path / "one", workers=verify.Replay(workers=1, epoch_s=0.5))
    (tmp_path / "one" / "rated.parquet.part").write_text("left by a death")
    again = replay(settings, tmp_path / "one", workers=verify.Replay(workers=2, epoch_s=0.2, item_events=333))

    assert first.report.equal
    assert again.report.equal
    assert first.files == again.files
    summary = orjson.loads((tmp_path / "one" / SUMMARY).read_bytes())
    assert summary["equal"] is True
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == sorted(
        [SUMMARY, *(one["file"] for one in summary["files"])]
    )
    for name, view, column in (
        ("facts", "usage_facts_current WHERE sealed = 1", "value"),
        ("rated", "rated_usage_current WHERE status != 'provisional'", "amount"),
        ("documents", "financial_documents_current", "total"),
    ):
        frame = pl.read_parquet(tmp_path / "one" / f"{name}.parquet")
        ((rows, total),) = metered.query(f"SELECT count(), sum({column}) FROM @{view}")
        (written,) = [one for one in summary["files"] if one["file"] == f"{name}.parquet"]
        assert len(frame) == rows == written["rows"] > 10
        assert frame[column].sum() == total == Decimal(written["total"])


def test_a_missing_event_and_an_edited_row_show(metered: Deployment, tmp_path: Path) -> None:
    database = metered.settings.clickhouse.database
    metered.query_command(
        f"ALTER TABLE {database}.rated_usage UPDATE amount = amount + toDecimal128('0.000000000001', 12)"
        " WHERE status = 'sealed' AND customer = 'globex' SETTINGS mutations_sync = 1"
    )

    result = replay(without_streams(metered), tmp_path / "out", file_format="ndjson")

    (different,) = (one for one in result.report.comparisons if not one.equal)
    assert different.table == "rated_usage_current"
    # Samples are rows that differ, and no more than a few: first the live side's, then the replay's.
    sides = [sample.partition(": ")[0] for sample in different.samples]
    assert sides == ["only in live"] * SAMPLES_MAX + ["only in replay"] * SAMPLES_MAX
    assert [sample for sample in different.samples if "('globex'" not in sample] == []
    lines = (tmp_path / "out" / "rated.ndjson").read_bytes().splitlines()
    rows = [orjson.loads(line) for line in lines]
    assert all(isinstance(row["amount"], str) for row in rows)
    ((edited, count),) = metered.query(
        "SELECT sum(amount), countIf(customer = 'globex' AND status = 'sealed') FROM @rated_usage_current"
        " WHERE status != 'provisional'"
    )
    assert edited - sum(Decimal(row["amount"]) for row in rows) == count * Decimal("0.000000000001")


def test_a_directory_with_other_files_is_left_alone(metered: Deployment, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")

    with pytest.raises(InvalidRequest, match=r"letter\.txt"):
        replay(metered.settings, tmp_path)
    assert (tmp_path / "letter.txt").read_text() == "dear"
