from dataclasses import replace

import pytest

from config.settings import ClickHouseSettings
from core.errors import StateMismatch
from sinks import clickhouse
from sinks.clickhouse import schema
from sinks.clickhouse.client import connect
from sinks.clickhouse.schema import Migration

CONTRACT = {
    "usage_events": "tenant source id type event_time stream entry_id entry_index ingest_time booked_minute data",
    "usage_rejects": "stream entry_id entry_index ingest_time reason detail raw",
    "usage_facts": "tenant meter dimensions usage_minute booked_minute value value_time events version sealed",
    "rated_usage": "customer contract entity plan plan_version charge price_row meter period_start usage_hour"
    " booked_hour accounting_period line_kind quantity events amount revenue_amount amount_before amount_after"
    " currency config_version status version",
    "financial_documents": "key digest entity customer contract currency booked_hour accounting_period kind total"
    " lines posting_key",
    "intake_counts": "stream shard ingest_minute outcome reason events",
    "posting_states": "key state erp_reference",
}
TYPES = {
    ("usage_events", "event_time"): "DateTime64(6, 'UTC')",
    ("usage_events", "ingest_time"): "DateTime64(3, 'UTC')",
    ("usage_events", "booked_minute"): "DateTime('UTC')",
    ("usage_events", "data"): "String",
    ("usage_facts", "dimensions"): "Map(String, String)",
    ("usage_facts", "value"): "Decimal(38, 12)",
    ("usage_facts", "value_time"): "DateTime64(6, 'UTC')",
    ("usage_facts", "events"): "Int64",
    ("usage_facts", "version"): "UInt64",
    ("usage_facts", "sealed"): "UInt8",
    ("rated_usage", "quantity"): "Decimal(38, 12)",
    ("rated_usage", "events"): "Int64",
    ("rated_usage", "version"): "UInt64",
}


def test_the_tables_have_the_columns_of_the_contract(clickhouse_settings: ClickHouseSettings) -> None:
    applied = clickhouse.migrate(clickhouse_settings)
    assert applied == list(range(1, len(schema.migrations()) + 1))
    with connect(clickhouse_settings) as client:
        found = client.query(
            "SELECT table, name, type FROM system.columns WHERE database = {d:String}",
            parameters={"d": clickhouse_settings.database},
        )
    columns = {(str(row[0]), str(row[1])): str(row[2]) for row in found.result_rows}
    missing = [
        f"{table}.{name}" for table, names in CONTRACT.items() for name in names.split() if (table, name) not in columns
    ]
    assert not missing
    assert {key: columns[key] for key in TYPES} == TYPES
    views = {table for table, _ in columns if table.endswith("_current")}
    assert views == {f"{table}_current" for table in (*CONTRACT, "exceptions")}


def test_migrating_again_does_nothing_and_a_second_database_is_separate(
    clickhouse_settings: ClickHouseSettings,
) -> None:
    clickhouse.migrate(clickhouse_settings)
    assert clickhouse.migrate(clickhouse_settings) == []
    known = len(schema.migrations())
    assert schema.schema_version(clickhouse_settings) == (known, known)
    other = clickhouse_settings.model_copy(update={"database": clickhouse_settings.database + "_b"})
    assert schema.schema_version(other) == (0, known)


def test_an_interrupted_migration_runs_again(clickhouse_settings: ClickHouseSettings) -> None:
    clickhouse.migrate(clickhouse_settings)
    with connect(clickhouse_settings) as client:
        client.command(
            f"ALTER TABLE {clickhouse_settings.database}.schema_migrations DELETE WHERE number = 2",
            settings={"mutations_sync": 1},
        )
    assert clickhouse.migrate(clickhouse_settings) == [2]


def test_a_changed_applied_file_is_refused() -> None:
    known = schema.migrations()
    applied = {migration.number: migration.checksum for migration in known}
    changed = [replace(known[0], text=known[0].text + "\n-- edited"), *known[1:]]
    with pytest.raises(StateMismatch, match=r"0001_input.sql was changed"):
        schema.pending(changed, applied)


def test_a_schema_of_a_newer_release_is_refused() -> None:
    known = schema.migrations()
    applied = {migration.number: migration.checksum for migration in known} | {len(known) + 1: "x"}
    with pytest.raises(StateMismatch, match="newer"):
        schema.pending(known, applied)


def test_statements_are_split_and_the_database_is_quoted() -> None:
    migration = Migration(1, "x", "-- a; comment;\nSELECT ';' FROM {database}.t;\n\nSELECT 2\n;\n")
    assert migration.statements("a`b") == ["SELECT ';' FROM `a\\`b`.t", "SELECT 2"]


def test_retention_is_a_ttl_on_the_tables_that_are_named(clickhouse_settings: ClickHouseSettings) -> None:
    wanted = clickhouse_settings.model_copy(update={"retention_days": {"usage_events": 400}})
    clickhouse.migrate(wanted)
    with connect(wanted) as client:
        found = client.query(
            "SELECT name, engine_full LIKE '%TTL toDateTime(ingest_time, \\'UTC\\') + toIntervalDay(400)%'"
            " FROM system.tables WHERE database = {d:String} AND name IN ('usage_events', 'usage_facts')",
            parameters={"d": wanted.database},
        )
    assert {row[0]: row[1] for row in found.result_rows} == {"usage_events": 1, "usage_facts": 0}


def test_sums_forget_with_their_facts(clickhouse_settings: ClickHouseSettings) -> None:
    wanted = clickhouse_settings.model_copy(update={"retention_days": {"usage_facts": 500}})
    clickhouse.migrate(wanted)
    with connect(wanted) as client:
        found = client.query(
            "SELECT name, extract(engine_full, 'TTL toDateTime\\((\\w+), .UTC.\\) \\+ toIntervalDay\\(500\\)') AS time"
            " FROM system.tables WHERE database = {d:String} AND time != ''",
            parameters={"d": wanted.database},
        )
    assert {str(name): str(time) for name, time in found.result_rows} == {
        "usage_facts": "booked_minute", "usage_hours": "booked_hour", "usage_totals": "booked_hour",
    }  # fmt: skip
