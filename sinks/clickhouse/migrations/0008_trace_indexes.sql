-- Look-ups by id where a scan would grow with the table: refused events by the id they name, voids by the id they
-- take back. Both are made from the row itself by the server, so nothing that writes has to know them.

ALTER TABLE {database}.usage_rejects
    ADD COLUMN IF NOT EXISTS event_id String MATERIALIZED JSONExtractString(raw, 'id') CODEC(ZSTD(1));

ALTER TABLE {database}.usage_rejects
    ADD INDEX IF NOT EXISTS by_event_id event_id TYPE bloom_filter(0.001) GRANULARITY 1;

ALTER TABLE {database}.usage_events
    ADD COLUMN IF NOT EXISTS void_of String
    MATERIALIZED if(type = 'meterbridge.void', JSONExtractString(data, 'data', 'id'), '') CODEC(ZSTD(1));

ALTER TABLE {database}.usage_events
    ADD INDEX IF NOT EXISTS by_void_of void_of TYPE bloom_filter(0.001) GRANULARITY 1;

-- Rare types (voids, control totals) are found without reading the others.

ALTER TABLE {database}.usage_events
    ADD INDEX IF NOT EXISTS by_type type TYPE set(64) GRANULARITY 1;

-- Rows that are there already: in the background.

ALTER TABLE {database}.usage_rejects MATERIALIZE COLUMN event_id;

ALTER TABLE {database}.usage_rejects MATERIALIZE INDEX by_event_id;

ALTER TABLE {database}.usage_events MATERIALIZE COLUMN void_of;

ALTER TABLE {database}.usage_events MATERIALIZE INDEX by_void_of;

ALTER TABLE {database}.usage_events MATERIALIZE INDEX by_type;
