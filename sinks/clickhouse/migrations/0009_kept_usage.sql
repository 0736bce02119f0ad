-- What raw events came to, kept when they expire: per series and booked hour count, value and digest. Rows with an
-- empty meter count all events of a tenant. `month` is the partition of usage_events (by arrival) that they stand for.
-- The ledger's table `expirations` has one digest over all rows of a month.

CREATE TABLE IF NOT EXISTS {database}.kept_usage
(
    month UInt32,
    tenant String,
    meter LowCardinality(String),
    dimensions Map(String, String),
    booked_hour DateTime('UTC') CODEC(Delta, ZSTD(1)),
    config_version LowCardinality(String),
    events Int64 CODEC(ZSTD(1)),
    value Decimal(38, 12) CODEC(ZSTD(1)),
    inexact UInt8,
    digest FixedString(64) CODEC(ZSTD(1)),
    series String MATERIALIZED toJSONString(mapSort(dimensions))
)
ENGINE = ReplacingMergeTree
PARTITION BY month
ORDER BY (tenant, meter, booked_hour, series, config_version)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, non_replicated_deduplication_window = 0;
