-- The engine job in Flink SQL: read, validate, drop repeated ids, sum per tenant, model and minute, count the results.
-- flink_job.py fills in ${input}, a directory of NDJSON; settings are there, the reasons in README.md.
CREATE TEMPORARY TABLE events (
    `specversion` STRING,
    `id` STRING,
    `source` STRING,
    `type` STRING,
    `subject` STRING,
    `time` TIMESTAMP_LTZ(3),
    `data` ROW<`input_tokens` BIGINT, `model` STRING>,
    `read_at` AS PROCTIME(),
    WATERMARK FOR `time` AS `time` - INTERVAL '1' HOUR
) WITH (
    'connector' = 'filesystem',
    'path' = 'file://${input}',
    'format' = 'json',
    'json.timestamp-format.standard' = 'ISO-8601',
    'json.ignore-parse-errors' = 'true'
);

CREATE TEMPORARY VIEW valid AS
SELECT `subject`, `source`, `id`, `time`, `read_at`, `data`.`model` AS `model`, `data`.`input_tokens` AS `tokens`
FROM events
WHERE `specversion` = '1.0' AND `type` = 'llm.completion' AND `id` <> '' AND `source` <> '' AND `subject` <> ''
    AND `time` IS NOT NULL AND `data`.`model` IS NOT NULL AND `data`.`input_tokens` >= 0;

CREATE TEMPORARY VIEW first_of_each AS
SELECT `subject`, `time`, `model`, `tokens`
FROM (
    SELECT *, ROW_NUMBER() OVER (PARTITION BY `subject`, `source`, `id` ORDER BY `read_at` ASC) AS `nth` FROM valid
)
WHERE `nth` = 1;

CREATE TEMPORARY VIEW facts AS
SELECT `subject`, `model`, `window_start`, COUNT(*) AS `events`, SUM(`tokens`) AS `tokens`
FROM TABLE(TUMBLE(TABLE first_of_each, DESCRIPTOR(`time`), INTERVAL '1' MINUTE))
GROUP BY `subject`, `model`, `window_start`, `window_end`;

SELECT COUNT(*), SUM(`events`), SUM(`tokens`) FROM facts;
