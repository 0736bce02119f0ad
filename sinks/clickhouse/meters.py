"""Tells ClickHouse how the facts of each meter merge, for the roll-up views."""

import pyarrow as pa

from config.revision import Revision
from config.settings import ClickHouseSettings
from sinks.clickhouse.client import connect


def meter_rows(revision: Revision) -> pa.Table:
    """Return one row per meter of a revision; the newest revision's row wins."""
    meters = list(revision.meters.values())
    return pa.table(
        {
            "meter": pa.array([meter.id for meter in meters], pa.string()),
            "aggregation": pa.array([meter.aggregation for meter in meters], pa.string()),
            "config_version": pa.array([revision.version] * len(meters), pa.string()),
            "known_from": pa.array([revision.known_from_ms] * len(meters), pa.timestamp("ms", "UTC")),
        }
    )


def record_meters(settings: ClickHouseSettings, revision: Revision) -> None:
    """Write the meters' functions; repeating it replaces the rows by themselves.

    :raises Unreachable: ClickHouse does not answer.
    """
    rows = meter_rows(revision)
    if rows.num_rows:
        with connect(settings) as client:
            client.insert_arrow("meters", rows, {"async_insert": 0})
