-- Roll-ups for dashboards: views over the current facts, by the time of use. Facts of a meter merge by its own
-- function, which `meters` names; a sum is the rule for count, sum, unique_count and weighted_sum (their values
-- add up by construction), and for a meter that is not listed. Views and not materialized tables, because a
-- fact row is replaced many times before it is sealed, and a materialized sum would count every version.

CREATE TABLE IF NOT EXISTS {database}.meters
(
    meter String,
    aggregation LowCardinality(String),
    config_version String,
    known_from DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(known_from)
ORDER BY meter
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, non_replicated_deduplication_window = 0;

CREATE OR REPLACE VIEW {database}.usage_by_hour AS
WITH (SELECT mapFromArrays(groupArray(meter), groupArray(toString(aggregation))) FROM {database}.meters FINAL) AS functions
SELECT tenant, meter, dimensions, toStartOfHour(usage_minute) AS usage_hour,
       multiIf(functions[meter] = 'max', max(facts.value),
               functions[meter] = 'min', min(facts.value),
               functions[meter] = 'latest', argMax(facts.value, (facts.value_time, facts.booked_minute)),
               sum(facts.value)) AS value,
       sum(facts.events) AS events,
       min(facts.sealed) AS sealed
FROM {database}.usage_facts_current AS facts
GROUP BY tenant, meter, dimensions, usage_hour;

CREATE OR REPLACE VIEW {database}.usage_by_day AS
WITH (SELECT mapFromArrays(groupArray(meter), groupArray(toString(aggregation))) FROM {database}.meters FINAL) AS functions
SELECT tenant, meter, dimensions, toDate(usage_minute, 'UTC') AS usage_day,
       multiIf(functions[meter] = 'max', max(facts.value),
               functions[meter] = 'min', min(facts.value),
               functions[meter] = 'latest', argMax(facts.value, (facts.value_time, facts.booked_minute)),
               sum(facts.value)) AS value,
       sum(facts.events) AS events,
       min(facts.sealed) AS sealed
FROM {database}.usage_facts_current AS facts
GROUP BY tenant, meter, dimensions, usage_day;

CREATE OR REPLACE VIEW {database}.usage_by_month AS
WITH (SELECT mapFromArrays(groupArray(meter), groupArray(toString(aggregation))) FROM {database}.meters FINAL) AS functions
SELECT tenant, meter, dimensions, toStartOfMonth(usage_minute, 'UTC') AS usage_month,
       multiIf(functions[meter] = 'max', max(facts.value),
               functions[meter] = 'min', min(facts.value),
               functions[meter] = 'latest', argMax(facts.value, (facts.value_time, facts.booked_minute)),
               sum(facts.value)) AS value,
       sum(facts.events) AS events,
       min(facts.sealed) AS sealed
FROM {database}.usage_facts_current AS facts
GROUP BY tenant, meter, dimensions, usage_month;
