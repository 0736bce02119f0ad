-- Views made for dashboards. They hide versions, states and how meters merge; docs/dashboards.md has example queries.
-- All read the current tables, so what they show is what the books say, open minutes included.

CREATE OR REPLACE VIEW {database}.usage_by_minute AS
WITH (SELECT mapFromArrays(groupArray(meter), groupArray(toString(aggregation))) FROM {database}.meters FINAL) AS functions
SELECT tenant, meter, dimensions, usage_minute,
       multiIf(functions[meter] = 'max', max(facts.value),
               functions[meter] = 'min', min(facts.value),
               functions[meter] = 'latest', argMax(facts.value, (facts.value_time, facts.booked_minute)),
               sum(facts.value)) AS value,
       sum(facts.events) AS events,
       min(facts.sealed) AS sealed
FROM {database}.usage_facts_current AS facts
GROUP BY tenant, meter, dimensions, usage_minute;

-- One tenant by hour, for a span: what a tenant's own page asks for. Usage is never booked before it was used, so the
-- span's beginning bounds booked_minute too, which is in the key and decides the partition. The other views know no
-- span while they group, and read all months of a tenant. It groups by the series' text, which is in the key, and asks
-- for the latest value only where a meter means that: both halve the time.

CREATE OR REPLACE VIEW {database}.tenant_usage_by_hour AS
WITH (SELECT mapFromArrays(groupArray(meter), groupArray(toString(aggregation))) FROM {database}.meters FINAL) AS functions
SELECT meter, JSONExtract(series, 'Map(String, String)') AS dimensions, toStartOfHour(usage_minute) AS usage_hour,
       multiIf(functions[meter] = 'max', max(facts.value),
               functions[meter] = 'min', min(facts.value),
               sum(facts.value)) AS value,
       sum(facts.events) AS events,
       min(facts.sealed) AS sealed
FROM {database}.usage_facts AS facts FINAL
WHERE tenant = {tenant:String}
  AND booked_minute >= {since:DateTime('UTC')}
  AND usage_minute >= {since:DateTime('UTC')} AND usage_minute < {until:DateTime('UTC')}
  AND meter NOT IN (SELECT meter FROM {database}.meters FINAL WHERE aggregation = 'latest')
GROUP BY meter, series, usage_hour
UNION ALL
SELECT meter, JSONExtract(series, 'Map(String, String)') AS dimensions, toStartOfHour(usage_minute) AS usage_hour,
       argMax(facts.value, (facts.value_time, facts.booked_minute)) AS value,
       sum(facts.events) AS events,
       min(facts.sealed) AS sealed
FROM {database}.usage_facts AS facts FINAL
WHERE tenant = {tenant:String}
  AND booked_minute >= {since:DateTime('UTC')}
  AND usage_minute >= {since:DateTime('UTC')} AND usage_minute < {until:DateTime('UTC')}
  AND meter IN (SELECT meter FROM {database}.meters FINAL WHERE aggregation = 'latest')
GROUP BY meter, series, usage_hour
SETTINGS do_not_merge_across_partitions_select_final = 1;

-- What each contract's billing period comes to so far. Provisional is what the hours that are still open add.

CREATE OR REPLACE VIEW {database}.live_spend AS
SELECT customer, contract, entity, currency, period_start,
       sum(rated.amount) AS amount,
       sumIf(rated.amount, status = 'provisional') AS provisional,
       sum(rated.revenue_amount) AS revenue,
       sum(rated.events) AS events,
       max(booked_hour) AS newest_hour
FROM {database}.rated_usage_current AS rated
WHERE status IN ('sealed', 'provisional')
GROUP BY customer, contract, entity, currency, period_start;

-- The newest row of each table, from the partitions' own minima and maxima: no row is read.

CREATE OR REPLACE VIEW {database}.freshness AS
SELECT stage, newest, dateDiff('second', newest, now('UTC')) AS age_s
FROM
(
    SELECT 'events' AS stage, toDateTime(max(ingest_time), 'UTC') AS newest FROM {database}.usage_events
    UNION ALL
    SELECT 'facts' AS stage, max(booked_minute) AS newest FROM {database}.usage_facts
    UNION ALL
    SELECT 'rated' AS stage, max(booked_hour) AS newest FROM {database}.rated_usage
    UNION ALL
    SELECT 'documents' AS stage, max(booked_hour) AS newest FROM {database}.financial_documents
)
WHERE newest > toDateTime(0, 'UTC');

-- Usage of the 24 hours up to the newest booked minute, against the same 24 hours a week before; meters whose values
-- add up. By the time it was booked: a week ago is compared as it stood then, without what came late since.

CREATE OR REPLACE VIEW {database}.top_movers AS
WITH (SELECT mapFromArrays(groupArray(meter), groupArray(toString(aggregation))) FROM {database}.meters FINAL) AS functions,
     (SELECT max(booked_minute) FROM {database}.usage_facts) AS newest
SELECT tenant, meter,
       sumIf(facts.value, booked_minute > newest - INTERVAL 1 DAY) AS value_now,
       sumIf(facts.value, booked_minute <= newest - INTERVAL 7 DAY) AS value_before,
       value_now - value_before AS change,
       if(value_before = 0, NULL, toFloat64(change) / toFloat64(value_before)) AS change_ratio
FROM {database}.usage_facts_current AS facts
WHERE functions[meter] NOT IN ('max', 'min', 'latest')
  AND (booked_minute > newest - INTERVAL 1 DAY
       OR (booked_minute > newest - INTERVAL 8 DAY AND booked_minute <= newest - INTERVAL 7 DAY))
GROUP BY tenant, meter;

-- Which part of a booked hour's events had been used earlier: they came after the grace, or took something back.

CREATE OR REPLACE VIEW {database}.late_share AS
SELECT meter, toStartOfHour(booked_minute) AS booked_hour,
       sum(facts.events) AS events_net,
       sumIf(facts.events, usage_minute < booked_minute) AS events_late,
       if(events_net = 0, NULL, events_late / events_net) AS late_ratio
FROM {database}.usage_facts_current AS facts
GROUP BY meter, booked_hour;

CREATE OR REPLACE VIEW {database}.intake_by_minute AS
SELECT ingest_minute, outcome, reason, sum(counts.events) AS events
FROM {database}.intake_counts_current AS counts
GROUP BY ingest_minute, outcome, reason;

-- What waits for a person or was refused, by hour; `meterbridge exceptions list` groups the same by cause.

CREATE OR REPLACE VIEW {database}.exceptions_by_hour AS
SELECT kind, hour, sum(n) AS events
FROM
(
    SELECT if(counted = 1, toString(reason), 'unusable_value') AS kind, toStartOfHour(toDateTime(ingest_time, 'UTC')) AS hour,
           count() AS n
    FROM {database}.usage_rejects_current GROUP BY kind, hour
    UNION ALL
    SELECT toString(kind) AS kind, toStartOfHour(booked_minute) AS hour, sum(found.events) AS n
    FROM {database}.exceptions_current AS found GROUP BY kind, hour
)
GROUP BY kind, hour;
