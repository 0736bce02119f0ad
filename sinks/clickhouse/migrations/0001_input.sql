-- Input as it came, what was refused, and the counts that prove nothing is missing.
--
-- The identity of an event is its position (stream, entry id, index in the entry): a replay writes the same
-- rows again and ReplacingMergeTree keeps one. The position, and not (tenant, time), is the sorting key, because
-- replacing must not depend on anything computed from the event. It reads well all the same: ingest_time is the
-- entry id's own time, so the events behind a fact are a narrow range of it in each stream, and the skip indexes
-- find an (id, source) or a tenant inside. FINAL over a month needs no other month: the month is part of the key.

CREATE TABLE IF NOT EXISTS {database}.usage_events
(
    tenant String,
    source LowCardinality(String),
    id String,
    type LowCardinality(String),
    event_time DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    stream LowCardinality(String),
    entry_id String,
    entry_index UInt32,
    ingest_time DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    booked_minute DateTime('UTC') CODEC(Delta, ZSTD(1)),
    data String CODEC(ZSTD(1)),
    entry_seq UInt64 DEFAULT toUInt64(substring(entry_id, position(entry_id, '-') + 1)),
    INDEX by_id id TYPE bloom_filter(0.001) GRANULARITY 4,
    INDEX by_tenant tenant TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX by_event_time event_time TYPE minmax GRANULARITY 1,
    INDEX by_booked_minute booked_minute TYPE minmax GRANULARITY 1
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(ingest_time)
ORDER BY (stream, ingest_time, entry_seq, entry_index)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, non_replicated_deduplication_window = 0;

CREATE TABLE IF NOT EXISTS {database}.usage_rejects
(
    stream LowCardinality(String),
    entry_id String,
    entry_index UInt32,
    ingest_time DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    reason LowCardinality(String),
    detail String,
    raw String CODEC(ZSTD(3)),
    counted UInt8 DEFAULT 1,
    entry_seq UInt64 DEFAULT toUInt64(substring(entry_id, position(entry_id, '-') + 1)),
    INDEX by_reason reason TYPE set(32) GRANULARITY 4
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(ingest_time)
ORDER BY (stream, ingest_time, entry_seq, entry_index, reason, detail)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, non_replicated_deduplication_window = 0;

-- Absolute counts from keyed state: the larger one is the newer one.

CREATE TABLE IF NOT EXISTS {database}.intake_counts
(
    stream LowCardinality(String),
    shard LowCardinality(String),
    ingest_minute DateTime('UTC') CODEC(Delta, ZSTD(1)),
    outcome LowCardinality(String),
    reason LowCardinality(String),
    events UInt64
)
ENGINE = ReplacingMergeTree(events)
PARTITION BY toYYYYMM(ingest_minute)
ORDER BY (stream, ingest_minute, outcome, reason, shard)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, non_replicated_deduplication_window = 0;

CREATE TABLE IF NOT EXISTS {database}.exceptions
(
    kind LowCardinality(String),
    identity String,
    tenant String,
    meter LowCardinality(String),
    booked_minute DateTime('UTC'),
    detail String,
    events UInt64
)
ENGINE = ReplacingMergeTree(events)
ORDER BY (kind, identity)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, non_replicated_deduplication_window = 0;

CREATE OR REPLACE VIEW {database}.usage_events_current AS
SELECT tenant, source, id, type, event_time, stream, entry_id, entry_index, ingest_time, booked_minute, data
FROM {database}.usage_events FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;

CREATE OR REPLACE VIEW {database}.usage_rejects_current AS
SELECT stream, entry_id, entry_index, ingest_time, reason, detail, raw, counted
FROM {database}.usage_rejects FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;

CREATE OR REPLACE VIEW {database}.intake_counts_current AS
SELECT stream, ingest_minute, outcome, reason, sum(counted_events) AS events
FROM
(
    SELECT stream, ingest_minute, outcome, reason, events AS counted_events
    FROM {database}.intake_counts FINAL
)
GROUP BY stream, ingest_minute, outcome, reason;

CREATE OR REPLACE VIEW {database}.exceptions_current AS
SELECT kind, identity, tenant, meter, booked_minute, detail, events
FROM {database}.exceptions FINAL;
