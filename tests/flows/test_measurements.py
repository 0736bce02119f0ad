"""What the processes watch, on real files and real servers."""

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from config.loader import load
from config.settings import ClickHouseSettings, Settings
from core.clock import ManualClock
from core.errors import Unreachable
from flows import measurements
from sinks import ledger
from sinks.clickhouse import migrate
from sinks.clickhouse.client import connect
from sinks.ledger.database import write
from sinks.ledger.exceptions import raise_exception, resolve
from tests.flows.harness import CONFIG

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def _value(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


def test_the_disk_under_a_directory_that_does_not_exist_yet_is_measured(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path / "later" / "state")
    (disk,) = measurements.of_flow(settings, load(CONFIG), None)
    disk.measure()
    usage = shutil.disk_usage(tmp_path)
    assert _value("meterbridge_disk_size_bytes", directory="state") == usage.total
    free = _value("meterbridge_disk_free_bytes", directory="state")
    assert free is not None
    assert abs(free - usage.free) < 1 << 30  # others write meanwhile


def test_drift_is_told_once_the_files_give_another_revision_and_not_for_a_comment(tmp_path: Path) -> None:
    path = tmp_path / "meterbridge.yaml"
    path.write_text(CONFIG.read_text())
    drift = measurements.ConfigurationDrift(path, load(path))

    def after(text: str) -> float | None:
        path.write_text(text)
        seconds = path.stat().st_mtime + 10
        os.utime(path, (seconds, seconds))
        drift.measure()
        return _value("meterbridge_config_drift")

    good = path.read_text()
    drift.measure()
    assert _value("meterbridge_config_drift") == 0
    assert after(good + "\n# a remark\n") == 0
    assert after(good.replace("grace_s: 60", "grace_s: 90")) == 1
    assert after(good) == 0
    assert after("meters: [") == 1
    path.unlink()
    drift.measure()
    assert _value("meterbridge_config_drift") == 1


def test_the_disk_of_clickhouse_is_measured(clickhouse_settings: ClickHouseSettings) -> None:
    measurements.measure_clickhouse_disk(Settings(clickhouse=clickhouse_settings))
    size, free = (_value(f"meterbridge_disk_{name}_bytes", directory="clickhouse") or 0 for name in ("size", "free"))
    assert size >= free > 0


def test_open_exceptions_are_counted_by_kind_until_they_are_resolved(
    clickhouse_settings: ClickHouseSettings, tmp_path: Path
) -> None:
    settings = Settings(clickhouse=clickhouse_settings, state_dir=tmp_path)
    migrate(settings.clickhouse)
    ledger.migrate(settings.ledger_url)
    engine = ledger.connect(settings.ledger_url)
    at = datetime(2026, 11, 20, tzinfo=UTC)
    with write(engine) as connection:
        raise_exception(connection, "posting_held", "A" * 16, "unknown_account", at)
        raise_exception(connection, "posting_held", "B" * 16, "unknown_account", NOW)
    with connect(settings.clickhouse) as client:
        client.command(
            f"INSERT INTO {clickhouse_settings.database}.exceptions (kind, identity, tenant, meter, booked_minute,"
            " detail, events) VALUES ('unrated', 'x', 't', 'm', '2026-11-23 10:00:00', 'no contract', 7)"
        )
        client.command(
            f"INSERT INTO {clickhouse_settings.database}.usage_rejects (stream, entry_id, entry_index, ingest_time,"
            " reason, detail, raw, counted) VALUES"
            " ('usage:0', '1-0', 0, '2026-11-24 01:00:00', 'too_old', 'by 3 days', '{}', 1),"
            " ('usage:0', '2-0', 0, '2026-11-24 02:00:00', 'invalid_quantity', 'meter m', '{}', 0),"
            " ('usage:0', '3-0', 0, '2026-01-01 00:00:00', 'too_old', 'long ago', '{}', 1)"
        )
    watched = measurements.OpenExceptions(settings, ManualClock(NOW))
    watched.measure()
    oldest = "meterbridge_exceptions_oldest_timestamp_seconds"
    kinds = ("posting_held", "unrated", "too_old", "unusable_value")
    assert {kind: (_value("meterbridge_exceptions_open", kind=kind), _value(oldest, kind=kind)) for kind in kinds} == {
        "posting_held": (2, at.timestamp()),
        "unrated": (7, datetime(2026, 11, 23, 10, tzinfo=UTC).timestamp()),
        "too_old": (1, datetime(2026, 11, 24, 1, tzinfo=UTC).timestamp()),
        "unusable_value": (1, datetime(2026, 11, 24, 2, tzinfo=UTC).timestamp()),
    }
    with write(engine) as connection:
        resolve(connection, "posting_held", ["A" * 16, "B" * 16], NOW)
    engine.dispose()
    watched.measure()
    assert _value("meterbridge_exceptions_open", kind="posting_held") == 0
    assert _value(oldest, kind="posting_held") == 0


def test_a_clickhouse_that_is_away_is_an_error_of_the_measurement(tmp_path: Path) -> None:
    settings = Settings(clickhouse=ClickHouseSettings(url="http://127.0.0.1:9"), state_dir=tmp_path)
    ledger.migrate(settings.ledger_url)
    with pytest.raises(Unreachable):
        measurements.OpenExceptions(settings, ManualClock(NOW)).measure()
