"""All metric names, one comment each. Labels are bounded: streams, shards, tables, states; never tenants.

Counters end in `_total`, units are base units. Instruments count batches, not events, one call per batch.
"""

from prometheus_client import Counter, Gauge, Histogram

# Counter: events by outcome and reason code, as intake decided them.
EVENTS = Counter("meterbridge_events_total", "Events by outcome and reason.", ["outcome", "reason"])
# Counter: stream entries read.
ENTRIES = Counter("meterbridge_entries_total", "Stream entries read.", ["stream"])
# Counter: payload bytes read from streams.
BYTES = Counter("meterbridge_read_bytes_total", "Payload bytes read.", ["stream"])
# Gauge: entries in the stream behind our position.
LAG_ENTRIES = Gauge("meterbridge_lag_entries", "Entries not read yet.", ["stream"])
# Gauge: age of our position against the stream's last id.
LAG_SECONDS = Gauge("meterbridge_lag_seconds", "Stream time between our position and its last id.", ["stream"])
# Gauge: Unix time of the watermark that left the reader; its age is computed by the reader of the metric.
WATERMARK = Gauge("meterbridge_watermark_timestamp_seconds", "Watermark, as Unix time.", ["stage"])
# Gauge: Unix time at which the current epoch began, by the process clock.
EPOCH_STARTED = Gauge("meterbridge_epoch_started_timestamp_seconds", "Start of the current epoch.")
# Histogram: events per item of the dataflow.
BATCH_EVENTS = Histogram(
    "meterbridge_batch_events", "Events per item.", buckets=(1, 10, 100, 1000, 5000, 10000, 20000, 50000)
)
# Histogram: seconds one call of a step took.
STEP_SECONDS = Histogram(
    "meterbridge_step_seconds",
    "Duration of one call of a step.",
    ["step"],
    buckets=(0.0001, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 30),
)
# Gauge: fact rows of minutes that are not sealed.
OPEN_FACTS = Gauge("meterbridge_open_facts", "Open fact rows.", ["shard"])
# Gauge: ids in the dedupe horizon.
DEDUPE_IDS = Gauge("meterbridge_dedupe_ids", "Ids in the dedupe horizon.", ["shard"])
# Gauge: bytes of the dedupe log and its segments.
DEDUPE_BYTES = Gauge("meterbridge_dedupe_bytes", "Dedupe log and segments on disk.", ["shard"])
# Counter: rows written to a table.
SINK_ROWS = Counter("meterbridge_sink_rows_total", "Rows written.", ["table"])
# Histogram: seconds one insert took.
SINK_SECONDS = Histogram("meterbridge_sink_insert_seconds", "Duration of one insert.", ["table"])
# Counter: inserts that failed and will be repeated.
SINK_RETRIES = Counter("meterbridge_sink_retries_total", "Inserts repeated.", ["table"])
# Gauge: seconds of the last flush inside snapshot(), against the epoch's length.
FLUSH_RATIO = Gauge("meterbridge_flush_epoch_ratio", "Flush time over epoch length; alert at 0.5.", ["table"])
# Gauge: Unix time since which a sink waits for its server; 0 when it does not.
WAITING_SINCE = Gauge("meterbridge_waiting_since_timestamp_seconds", "Waiting for a server since.", ["server"])
# Gauge: Unix time since which an entity's ERP does not answer; 0 when it does. Entities are few and configured.
ERP_WAITING_SINCE = Gauge(
    "meterbridge_erp_waiting_since_timestamp_seconds", "Waiting for the ERP of an entity since.", ["entity"]
)
# Gauge: postings and documents by state.
OUTBOX = Gauge("meterbridge_outbox_documents", "Documents in the outbox by state.", ["state"])
# Counter: posting attempts by outcome.
POST_ATTEMPTS = Counter("meterbridge_post_attempts_total", "Posting attempts by outcome.", ["adapter", "outcome"])
# Counter: events posted to the API, by what was answered; the reason is a code, empty for accepted ones.
API_EVENTS = Counter("meterbridge_api_events_total", "Events posted to the API.", ["outcome", "reason"])
