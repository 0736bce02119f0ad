-- Digests behind the signed summary of a sealed period, one per hour, owner and item: they say where something changed.
-- The summary, in the ledger, has the digest of all of them; these rows alone prove nothing.

CREATE TABLE IF NOT EXISTS {database}.sealed_leaves
(
    seal String,
    part LowCardinality(String),
    hour Int64 CODEC(Delta, ZSTD(1)),
    owner String,
    item String,
    rows Int64 CODEC(ZSTD(1)),
    events Int64 CODEC(ZSTD(1)),
    total String CODEC(ZSTD(1)),
    digest String CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree
ORDER BY (seal, part, hour, owner, item)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, non_replicated_deduplication_window = 0;
