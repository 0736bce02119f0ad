-- Revenue to date beside the amount to date: ratable charges are revenue as time passes.

ALTER TABLE {database}.rated_usage
    ADD COLUMN IF NOT EXISTS revenue_after Decimal(38, 12) DEFAULT amount_after CODEC(ZSTD(1)) AFTER amount_after;

CREATE OR REPLACE VIEW {database}.rated_usage_current AS
SELECT customer, contract, entity, plan, plan_version, charge, price_row, meter, period_start, usage_hour,
       booked_hour, accounting_period, original_period, line_kind, quantity, events, amount, revenue_amount,
       amount_before, amount_after, revenue_after, currency, config_version, status, version, tenant
FROM {database}.rated_usage FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;
