-- Rated rows: amounts as differences of cumulative ones. Sealed and unrated rows beat provisional ones.
-- Unrated usage has no contract, so its tenant and meter tell its rows apart.

CREATE TABLE IF NOT EXISTS {database}.rated_usage
(
    customer String,
    contract String,
    entity LowCardinality(String),
    plan LowCardinality(String),
    plan_version UInt32,
    charge LowCardinality(String),
    price_row String,
    meter LowCardinality(String),
    period_start DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    usage_hour DateTime('UTC') CODEC(Delta, ZSTD(1)),
    booked_hour DateTime('UTC') CODEC(Delta, ZSTD(1)),
    accounting_period LowCardinality(String),
    original_period LowCardinality(String),
    line_kind LowCardinality(String),
    quantity Decimal(38, 12) CODEC(ZSTD(1)),
    events Int64,
    amount Decimal(38, 12) CODEC(ZSTD(1)),
    revenue_amount Decimal(38, 12) CODEC(ZSTD(1)),
    amount_before Decimal(38, 12) CODEC(ZSTD(1)),
    amount_after Decimal(38, 12) CODEC(ZSTD(1)),
    currency LowCardinality(String),
    config_version LowCardinality(String),
    status LowCardinality(String),
    version UInt64,
    tenant String,
    rev UInt64 MATERIALIZED bitShiftLeft(toUInt64(status != 'provisional'), 63) + version
)
ENGINE = ReplacingMergeTree(rev)
PARTITION BY toYYYYMM(booked_hour)
ORDER BY (customer, booked_hour, contract, plan, plan_version, charge, price_row, period_start, usage_hour,
          accounting_period, line_kind, tenant, meter)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, non_replicated_deduplication_window = 0;

CREATE OR REPLACE VIEW {database}.rated_usage_current AS
SELECT customer, contract, entity, plan, plan_version, charge, price_row, meter, period_start, usage_hour,
       booked_hour, accounting_period, original_period, line_kind, quantity, events, amount, revenue_amount,
       amount_before, amount_after, currency, config_version, status, version, tenant
FROM {database}.rated_usage FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;
