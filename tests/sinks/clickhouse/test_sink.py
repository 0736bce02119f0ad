"""The sink in the real engine: an aborted flow and its replay leave every row once."""

import threading
from datetime import timedelta
from pathlib import Path

import bytewax.operators as op
import polars as pl
import pytest
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSource, cluster_main

from config.settings import ClickHouseSettings, FlowSettings, Settings
from core.errors import InvalidRequest
from core.shard_keys import ID_KEYS
from sinks import clickhouse
from sinks.clickhouse.client import connect
from sinks.clickhouse.sink import ClickHouseSink
from tests.sinks.clickhouse import rows


def settings_of(clickhouse_settings: ClickHouseSettings) -> Settings:
    return Settings(clickhouse=clickhouse_settings)


def test_an_aborted_flow_and_its_replay_leave_every_row_once(
    clickhouse_settings: ClickHouseSettings, tmp_path: Path
) -> None:
    clickhouse.migrate(clickhouse_settings)
    init_db_dir(tmp_path, 1)
    items: list[tuple[str, pl.DataFrame]] = [
        (ID_KEYS[number % 4], rows.events(50, first=number * 50)) for number in range(40)
    ]
    script = [*items[:25], TestingSource.ABORT(), *items[25:]]
    for _ in range(2):
        flow = Dataflow("sink_test")
        stream = op.input("in", flow, TestingSource(script, batch_size=3))
        sink = ClickHouseSink("usage_events", settings_of(clickhouse_settings), threading.Event(), 2)
        op.output("out", stream, sink)  # type: ignore[misc]
        cluster_main(
            flow,
            [],
            0,
            epoch_interval=timedelta(0),
            recovery_config=RecoveryConfig(str(tmp_path)),
            worker_count_per_proc=1,
        )
    with connect(clickhouse_settings) as client:
        query = "SELECT count(), uniqExact(id) FROM {d:Identifier}.usage_events_current"
        found = client.query(query, parameters={"d": clickhouse_settings.database})
    assert found.result_rows == [(2000, 2000)]


def test_partitions_are_named_by_table_and_keys_go_to_pinned_ones() -> None:
    sink = ClickHouseSink("usage_facts", Settings(), threading.Event(), 3)
    assert sink.list_parts() == [f"usage_facts-{index:02d}" for index in range(8)]
    assert [sink.part_fn(key) for key in ("id-00-0", "tenant-00-24")] == [4223993795 % 3, 839090867 % 3]


def test_the_names_of_partitions_do_not_depend_on_the_number_of_workers() -> None:
    """The engine refuses to start where a partition has gone that once had a state."""
    most = next(limit.le for limit in FlowSettings.model_fields["workers"].metadata if hasattr(limit, "le"))
    names = [ClickHouseSink("usage_facts", Settings(), threading.Event(), count).list_parts() for count in (1, most)]
    assert names[0] == names[1]


def test_an_unknown_table_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="usage_facts"):
        ClickHouseSink("nowhere", Settings(), threading.Event(), 1)
