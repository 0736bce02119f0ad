-- Facts summed by hour, for questions that would read sixty times as many rows: a cache, and nothing else reads it as
-- the books. Only booked hours in which nothing can change any more are in it: every fact is sealed and its epoch is
-- durable. `usage_hours_until` says up to where; behind that, and for what does not fall on whole hours, questions read
-- the facts. Not a materialized view: a fact row is written again and again, and inserts are repeated after a crash.
--
-- A row is a series, booked hour and usage hour; `value` is merged by the meter's own function, which never changes for a
-- meter (ADR 0009). `value_time` and `booked_minute` are those of the last value, where the function is `latest`.
-- `late_events` were used before the minute they were booked in, `late_hour_events` an hour or more before: for levels,
-- which are booked by the hour, only these are late. A tenant has some thousand rows a month: with small granules a
-- question about one meter of all tenants skips those of the others.

CREATE TABLE IF NOT EXISTS {database}.usage_hours
(
    tenant String,
    meter LowCardinality(String),
    dimensions Map(String, String),
    booked_hour DateTime('UTC') CODEC(Delta, ZSTD(1)),
    usage_hour DateTime('UTC') CODEC(Delta, ZSTD(1)),
    value Decimal(38, 12) CODEC(ZSTD(1)),
    value_time DateTime64(6, 'UTC') CODEC(ZSTD(1)),
    booked_minute DateTime('UTC') CODEC(Delta, ZSTD(1)),
    events Int64 CODEC(ZSTD(1)),
    late_events Int64 CODEC(ZSTD(1)),
    late_hour_events Int64 CODEC(ZSTD(1)),
    series String MATERIALIZED toJSONString(mapSort(dimensions))
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(booked_hour)
ORDER BY (tenant, meter, booked_hour, usage_hour, series)
SETTINGS index_granularity = 1024, fsync_after_insert = 1, fsync_part_directory = 1, non_replicated_deduplication_window = 0;

-- The same over all tenants: a few rows an hour, however many tenants there are; so they can afford quarters of an hour,
-- on which the hours and days of every time zone begin. Values of different tenants add up only where those of one do:
-- `value` is 0 for meters of another function, whose events are counted all the same.

CREATE TABLE IF NOT EXISTS {database}.usage_totals
(
    meter LowCardinality(String),
    dimensions Map(String, String),
    booked_hour DateTime('UTC') CODEC(Delta, ZSTD(1)),
    usage_quarter DateTime('UTC') CODEC(Delta, ZSTD(1)),
    value Decimal(38, 12) CODEC(ZSTD(1)),
    events Int64 CODEC(ZSTD(1)),
    late_events Int64 CODEC(ZSTD(1)),
    late_hour_events Int64 CODEC(ZSTD(1)),
    series String MATERIALIZED toJSONString(mapSort(dimensions))
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(booked_hour)
ORDER BY (meter, booked_hour, usage_quarter, series)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, non_replicated_deduplication_window = 0;

-- One row: booked hours before `until` are in both tables. The larger version is the newer one, so that it can go back.

CREATE TABLE IF NOT EXISTS {database}.usage_hours_until
(
    id UInt8,
    until DateTime('UTC'),
    version UInt64
)
ENGINE = ReplacingMergeTree(version)
ORDER BY id
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, non_replicated_deduplication_window = 0;

-- Sums where there are any, facts behind them: the same figures as from facts alone.

CREATE OR REPLACE VIEW {database}.usage_in_hours AS
SELECT tenant, meter, dimensions, usage_hour, value, value_time, booked_minute, events, toUInt8(1) AS sealed
FROM {database}.usage_hours FINAL
WHERE booked_hour < (SELECT argMax(until, version) FROM {database}.usage_hours_until)
UNION ALL
SELECT tenant, meter, dimensions, toStartOfHour(usage_minute) AS usage_hour, value, value_time, booked_minute, events, sealed
FROM {database}.usage_facts FINAL
WHERE booked_minute >= (SELECT argMax(until, version) FROM {database}.usage_hours_until)
SETTINGS do_not_merge_across_partitions_select_final = 1, optimize_move_to_prewhere_if_final = 1;

CREATE OR REPLACE VIEW {database}.usage_by_hour AS
WITH (SELECT mapFromArrays(groupArray(meter), groupArray(toString(aggregation))) FROM {database}.meters FINAL) AS functions
SELECT tenant, meter, dimensions, usage_hour,
       multiIf(functions[meter] = 'max', max(hours.value),
               functions[meter] = 'min', min(hours.value),
               functions[meter] = 'latest', argMax(hours.value, (hours.value_time, hours.booked_minute)),
               sum(hours.value)) AS value,
       sum(hours.events) AS events,
       min(hours.sealed) AS sealed
FROM {database}.usage_in_hours AS hours
GROUP BY tenant, meter, dimensions, usage_hour;

CREATE OR REPLACE VIEW {database}.usage_by_day AS
WITH (SELECT mapFromArrays(groupArray(meter), groupArray(toString(aggregation))) FROM {database}.meters FINAL) AS functions
SELECT tenant, meter, dimensions, toDate(usage_hour, 'UTC') AS usage_day,
       multiIf(functions[meter] = 'max', max(hours.value),
               functions[meter] = 'min', min(hours.value),
               functions[meter] = 'latest', argMax(hours.value, (hours.value_time, hours.booked_minute)),
               sum(hours.value)) AS value,
       sum(hours.events) AS events,
       min(hours.sealed) AS sealed
FROM {database}.usage_in_hours AS hours
GROUP BY tenant, meter, dimensions, usage_day;

CREATE OR REPLACE VIEW {database}.usage_by_month AS
WITH (SELECT mapFromArrays(groupArray(meter), groupArray(toString(aggregation))) FROM {database}.meters FINAL) AS functions
SELECT tenant, meter, dimensions, toStartOfMonth(usage_hour, 'UTC') AS usage_month,
       multiIf(functions[meter] = 'max', max(hours.value),
               functions[meter] = 'min', min(hours.value),
               functions[meter] = 'latest', argMax(hours.value, (hours.value_time, hours.booked_minute)),
               sum(hours.value)) AS value,
       sum(hours.events) AS events,
       min(hours.sealed) AS sealed
FROM {database}.usage_in_hours AS hours
GROUP BY tenant, meter, dimensions, usage_month;

-- One tenant by hour, for a span. Usage is never booked before it was used, so the span's beginning bounds booked time
-- too, which is in the key and decides the partition. Hours that the span cuts, and what is not summed, come from facts.

CREATE OR REPLACE VIEW {database}.tenant_usage_by_hour AS
WITH (SELECT mapFromArrays(groupArray(meter), groupArray(toString(aggregation))) FROM {database}.meters FINAL) AS functions
SELECT meter, JSONExtract(text, 'Map(String, String)') AS dimensions, hour AS usage_hour,
       multiIf(functions[meter] = 'max', max(hours.value),
               functions[meter] = 'min', min(hours.value),
               functions[meter] = 'latest', argMax(hours.value, (hours.value_time, hours.booked_minute)),
               sum(hours.value)) AS value,
       sum(hours.events) AS events,
       min(hours.sealed) AS sealed
FROM
(
    SELECT meter, series AS text, usage_hour AS hour, value, value_time, booked_minute, events, toUInt8(1) AS sealed
    FROM {database}.usage_hours FINAL
    WHERE tenant = {tenant:String}
      AND booked_hour >= toStartOfHour({since:DateTime('UTC')})
      AND booked_hour < (SELECT argMax(until, version) FROM {database}.usage_hours_until)
      AND usage_hour >= toStartOfHour({since:DateTime('UTC')} + INTERVAL 3599 SECOND)
      AND usage_hour < toStartOfHour({until:DateTime('UTC')})
    UNION ALL
    SELECT meter, series AS text, toStartOfHour(usage_minute) AS hour, value, value_time, booked_minute, events, sealed
    FROM {database}.usage_facts FINAL
    WHERE tenant = {tenant:String}
      AND booked_minute >= {since:DateTime('UTC')}
      AND usage_minute >= {since:DateTime('UTC')} AND usage_minute < {until:DateTime('UTC')}
      AND (booked_minute >= (SELECT argMax(until, version) FROM {database}.usage_hours_until)
           OR usage_minute < toStartOfHour({since:DateTime('UTC')} + INTERVAL 3599 SECOND)
           OR usage_minute >= toStartOfHour({until:DateTime('UTC')}))
) AS hours
GROUP BY meter, text, hour
SETTINGS do_not_merge_across_partitions_select_final = 1, optimize_move_to_prewhere_if_final = 1;

-- Which part of a booked hour's events had been used earlier: they came after the grace, or took something back.

CREATE OR REPLACE VIEW {database}.late_share AS
SELECT meter, hour AS booked_hour,
       sum(n) AS events_net,
       sum(late) AS events_late,
       if(events_net = 0, NULL, events_late / events_net) AS late_ratio
FROM
(
    SELECT meter, booked_hour AS hour, events AS n, late_events AS late
    FROM {database}.usage_totals FINAL
    WHERE booked_hour < (SELECT argMax(until, version) FROM {database}.usage_hours_until)
    UNION ALL
    SELECT meter, toStartOfHour(booked_minute) AS hour, events AS n, if(usage_minute < booked_minute, events, 0) AS late
    FROM {database}.usage_facts FINAL
    WHERE booked_minute >= (SELECT argMax(until, version) FROM {database}.usage_hours_until)
)
GROUP BY meter, hour
SETTINGS do_not_merge_across_partitions_select_final = 1;
