-- Facts: absolute values per series, usage minute and booked minute, written again and again with a growing
-- version while open, and once sealed. `rev` makes a sealed row beat every open one, also an open row with the
-- same or a higher version that a replay writes after it.

CREATE TABLE IF NOT EXISTS {database}.usage_facts
(
    tenant String,
    meter LowCardinality(String),
    dimensions Map(String, String),
    usage_minute DateTime('UTC') CODEC(Delta, ZSTD(1)),
    booked_minute DateTime('UTC') CODEC(Delta, ZSTD(1)),
    value Decimal(38, 12) CODEC(ZSTD(1)),
    value_time DateTime64(6, 'UTC') CODEC(ZSTD(1)),
    events Int64,
    version UInt64,
    sealed UInt8,
    series String MATERIALIZED toJSONString(mapSort(dimensions)),
    rev UInt64 MATERIALIZED bitShiftLeft(toUInt64(sealed), 63) + version,
    INDEX by_usage_minute usage_minute TYPE minmax GRANULARITY 1
)
ENGINE = ReplacingMergeTree(rev)
PARTITION BY toYYYYMM(booked_minute)
ORDER BY (tenant, meter, booked_minute, usage_minute, series)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, non_replicated_deduplication_window = 0;

CREATE OR REPLACE VIEW {database}.usage_facts_current AS
SELECT tenant, meter, dimensions, usage_minute, booked_minute, value, value_time, events, version, sealed
FROM {database}.usage_facts FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;
