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
# Gauge: Unix time of the watermark at a stage; its age is computed by the reader of the metric. `reader`: everything
# below was read; `book`: it is booked; `durable`: it is in ClickHouse and the ledger, and a crash loses none of it.
WATERMARK = Gauge("meterbridge_watermark_timestamp_seconds", "Watermark, as Unix time.", ["stage"])
# Gauge: Unix time at which the newest sealed booked hour ends; what is in it never changes again.
SEALED_HOUR = Gauge("meterbridge_sealed_hour_timestamp_seconds", "End of the newest sealed hour.", ["shard"])
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
# Gauge: bytes that wait for a table's writer over the most that may (`queue_bytes_max`); at 1 the flow waits.
QUEUE_RATIO = Gauge("meterbridge_sink_queue_ratio", "Share of a table's queue that is in use.", ["table"])
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
# Gauge: groups in which two accounts differ, by identity, as the last scheduled reconciliation found them.
RECONCILE_BREAKS = Gauge("meterbridge_reconcile_breaks", "Groups that differ.", ["identity"])
# Gauge: events that sources say they sent (control totals) and that were not there, at the last scheduled run.
CONTROL_MISSING = Gauge("meterbridge_control_missing_events", "Events that sources sent and that did not arrive.")
# Gauge: Unix time at which the last scheduled reconciliation began.
RECONCILE_LAST_RUN = Gauge("meterbridge_reconcile_last_run_timestamp_seconds", "Start of the last reconciliation.")
# Gauge: Unix time at which one last came to a result, whatever it was.
RECONCILE_LAST_SUCCESS = Gauge("meterbridge_reconcile_last_success_timestamp_seconds", "End of the last with a result.")
# Gauge: seconds that the last one took.
RECONCILE_SECONDS = Gauge("meterbridge_reconcile_duration_seconds", "Duration of the last reconciliation.")
# Counter: scheduled reconciliations without a result: a server did not answer, or it took too long.
RECONCILE_FAILURES = Counter("meterbridge_reconcile_failures_total", "Reconciliations without a result.")
# Counter: events posted to the API, by what was answered; the reason is a code, empty for accepted ones.
API_EVENTS = Counter("meterbridge_api_events_total", "Events posted to the API.", ["outcome", "reason"])
# Gauge: Unix time at which the oldest posting that is in a state now was made; 0 without any.
POSTINGS_OLDEST = Gauge(
    "meterbridge_postings_oldest_timestamp_seconds", "When the oldest posting in that state was made.", ["state"]
)
# Gauge: open exceptions by kind: events, values and postings that wait for a person.
EXCEPTIONS_OPEN = Gauge("meterbridge_exceptions_open", "Open exceptions.", ["kind"])
# Gauge: Unix time at which the oldest open exception of a kind came up; 0 without any.
EXCEPTIONS_OLDEST = Gauge("meterbridge_exceptions_oldest_timestamp_seconds", "Since when one is open.", ["kind"])
# Gauge: whether the configuration files no longer give the revision that the flow runs (changed, or broken).
CONFIG_DRIFT = Gauge("meterbridge_config_drift", "1 if the files differ from the revision that runs.")
# Gauge: free bytes of the disk under a directory: `state`, `books` (the journal adapter's), `clickhouse`.
DISK_FREE = Gauge("meterbridge_disk_free_bytes", "Free bytes of the disk.", ["directory"])
# Gauge: size of the disk under a directory.
DISK_SIZE = Gauge("meterbridge_disk_size_bytes", "Size of the disk.", ["directory"])
# Gauge: Unix time at which a measurement of the watch was last made; the gauges it sets are that old.
WATCHED = Gauge("meterbridge_watch_timestamp_seconds", "Last measurement.", ["part"])
# Gauge: worker processes of the service that run, as their supervisor says; 0 where there is none.
CONSOLE_WORKERS = Gauge("meterbridge_console_workers", "Worker processes of the service that run.")
# Counter: workers of the service that ended by themselves and were started again.
CONSOLE_RESTARTS = Counter("meterbridge_console_worker_restarts_total", "Workers of the service started again.")
# Histogram: seconds until an operation of the API (by its name; `page`; `other`) was answered, by class of status.
API_SECONDS = Histogram(
    "meterbridge_api_request_seconds",
    "Duration of a request of the service.",
    ["operation", "status"],
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.3, 1, 3, 10, 30),
)
