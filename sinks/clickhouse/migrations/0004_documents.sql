-- Financial documents, for the trace; the ledger database is the truth. The digest is part of the key: a
-- document that came with another digest stands beside the first one instead of replacing it, and shows.

CREATE TABLE IF NOT EXISTS {database}.financial_documents
(
    key String,
    digest String,
    entity LowCardinality(String),
    customer String,
    contract String,
    currency LowCardinality(String),
    booked_hour DateTime('UTC') CODEC(Delta, ZSTD(1)),
    accounting_period LowCardinality(String),
    kind LowCardinality(String),
    total Decimal(38, 12),
    lines String CODEC(ZSTD(3)),
    posting_key String,
    status LowCardinality(String),
    INDEX by_key key TYPE bloom_filter(0.001) GRANULARITY 1
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(booked_hour)
ORDER BY (entity, booked_hour, customer, key, digest)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, non_replicated_deduplication_window = 0;

-- What became of a document in the ERP; written by the poster alone, the larger version is the newer one.

CREATE TABLE IF NOT EXISTS {database}.posting_states
(
    key String,
    posting_key String,
    state LowCardinality(String),
    reason LowCardinality(String),
    erp_reference String,
    changed_at DateTime64(3, 'UTC'),
    posted_at Nullable(DateTime64(3, 'UTC')),
    version UInt64
)
ENGINE = ReplacingMergeTree(version)
ORDER BY key
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, non_replicated_deduplication_window = 0;

CREATE OR REPLACE VIEW {database}.posting_states_current AS
SELECT key, posting_key, state, reason, erp_reference, changed_at, posted_at
FROM {database}.posting_states FINAL;

CREATE OR REPLACE VIEW {database}.financial_documents_current AS
SELECT documents.key AS key, digest, entity, customer, contract, currency, booked_hour, accounting_period, kind,
       total, lines,
       if(states.posting_key = '', documents.posting_key, states.posting_key) AS posting_key,
       multiIf(states.state != '', toString(states.state), status = 'NOT_POSTED_ZERO', toString(status), 'PENDING')
           AS posting_state,
       states.erp_reference AS erp_reference
FROM (SELECT * FROM {database}.financial_documents FINAL) AS documents
LEFT JOIN (SELECT * FROM {database}.posting_states FINAL) AS states ON states.key = documents.key;
