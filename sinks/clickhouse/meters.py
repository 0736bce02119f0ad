"""Tells ClickHouse how the facts of each meter merge, for the roll-up views."""

import polars as pl
import pyarrow as pa

from config.revision import Revision
from config.settings import ClickHouseSettings
from sinks.clickhouse.client import connect


def meter_rows(revision: Revision) -> pa.Table:
    """Return one row per meter of a revision; the newest revision's row wins."""
    frame = pl.DataFrame(
        {
            "meter": [meter.id for meter in revision.meters.values()],
            "aggregation": [meter.aggregation for meter in revision.meters.values()],
        },
        schema={"meter": pl.String, "aggregation": pl.String},
    )
    rows: pa.Table = frame.with_columns(
        config_version=pl.lit(revision.version),
        known_from=pl.lit(revision.known_from_ms).cast(pl.Datetime("ms", "UTC")),
    ).to_arrow()
    return rows


def record_meters(settings: ClickHouseSettings, revision: Revision) -> None:
    """Write the meters' functions; repeating it replaces the rows by themselves.

    :raises Unreachable: ClickHouse does not answer.
    """
    rows = meter_rows(revision)
    if rows.num_rows:
        with connect(settings) as client:
            client.insert_arrow("meters", rows, {"async_insert": 0})
