"""Rated rows (RATED_SCHEMA) and exceptions, gathered column by column."""

from collections.abc import Mapping
from typing import Any, Final

import polars as pl

from core.frames import EXCEPTION_SCHEMA, RATED_SCHEMA
from operators.rate_chains import LINE_KINDS, ZERO, ChainKey, Step

PROVISIONAL, SEALED, UNRATED = "provisional", "sealed", "unrated"


class Rows:
    """Collects rows of one booked hour."""

    def __init__(self, booked_hour: int, config_version: str, status: str) -> None:
        self._hour = booked_hour
        self._config_version = config_version
        self._status = status
        self._rows: list[tuple[Any, ...]] = []

    def __len__(self) -> int:
        """Return how many rows were added."""
        return len(self._rows)

    def add(self, key: ChainKey, entity: str, meter: str, currency: str, step: Step) -> None:
        """Add a chain's step."""
        self._rows.append(
            (
                key.customer,
                key.contract,
                entity,
                key.plan,
                key.plan_version,
                key.charge,
                key.price_row,
                meter,
                key.period_start_us,
                step.usage_hour,
                self._hour,
                step.accounting_period,
                step.original_period,
                step.line_kind,
                step.quantity,
                step.events,
                step.amount,
                step.revenue,
                step.before,
                step.after,
                step.revenue_after,
                currency,
                self._config_version,
                self._status,
                step.version,
                "",
            )
        )

    def frame(self) -> pl.DataFrame:
        """Return the rows in the order they were added."""
        if not self._rows:
            return pl.DataFrame(schema=RATED_SCHEMA)
        columns = zip(*self._rows, strict=True)
        return pl.DataFrame(
            [
                pl.Series(name, values, dtype=dtype)
                for (name, dtype), values in zip(RATED_SCHEMA.items(), columns, strict=True)
            ]
        )


_UNRATED_BY: Final = ["customer", "tenant", "meter", "month", "usage_hour", "kind"]


def unrated_groups(unpriced: pl.DataFrame, aggregations: Mapping[str, str]) -> pl.DataFrame:
    """Sum unpriced slices by customer, subject, meter, UTC month, usage hour and kind, sorted.

    Where a meter's values do not add up the quantity is its own merge of the hour's values.
    """
    frame = unpriced.with_columns(
        pl.from_epoch(pl.col("usage_minute") * 60).dt.truncate("1mo").alias("month"),
        pl.col("meter").replace_strict(aggregations, default="sum", return_dtype=pl.String).alias("merge"),
    )
    series = [*_UNRATED_BY, "merge", "dimensions"]
    value = (
        pl.when(pl.col("merge").first() == "max")
        .then(pl.col("value").max())
        .when(pl.col("merge").first() == "min")
        .then(pl.col("value").min())
        .when(pl.col("merge").first() == "latest")
        .then(pl.col("value").sort_by("value_time_us", "booked_minute").last())
        .otherwise(pl.col("value").sum())
    )
    per_series = frame.group_by(series).agg(value, pl.col("events").sum(), pl.col("version").sum())
    sums = [pl.col("value").sum(), pl.col("events").sum(), pl.col("version").sum()]
    return per_series.group_by(_UNRATED_BY).agg(*sums, pl.col("dimensions").min().alias("example")).sort(_UNRATED_BY)


def unrated_rows(groups: pl.DataFrame, booked_hour: int, config_version: str, sign: int) -> pl.DataFrame:
    """Return the `unrated` rows of the groups; sign -1 takes them back when they get a price."""
    month = pl.col("month").dt.strftime("%Y-%m")
    kind = pl.col("kind").replace_strict(LINE_KINDS, return_dtype=pl.String)
    nothing = pl.lit(ZERO)
    texts = {name: pl.lit("") for name in ("contract", "entity", "plan", "charge", "price_row", "currency")}
    columns = texts | {
        "plan_version": pl.lit(0),
        "period_start_us": pl.col("month").dt.epoch("us"),
        "booked_hour": pl.lit(booked_hour),
        "accounting_period": month,
        "original_period": month,
        "line_kind": kind,
        "quantity": pl.col("value") * sign,
        "events": pl.col("events") * sign,
        "amount": nothing,
        "revenue_amount": nothing,
        "amount_before": nothing,
        "amount_after": nothing,
        "revenue_after": nothing,
        "config_version": pl.lit(config_version),
        "status": pl.lit(UNRATED),
    }
    frame = groups.with_columns(expression.alias(name) for name, expression in columns.items())
    return frame.select(pl.col(name).cast(dtype) for name, dtype in RATED_SCHEMA.items())


def exceptions(groups: pl.DataFrame, booked_hour: int) -> pl.DataFrame:
    """Return one `unrated` exception per customer or subject, meter and month, with an example of its dimensions."""
    per_owner = groups.group_by("customer", "meter", "month").agg(
        pl.col("tenant").min(), pl.col("events").sum(), pl.col("example").min()
    )
    of_subject = groups.filter(pl.col("customer") == "").select("tenant", "meter", "month", "events")
    of_subject = of_subject.group_by("tenant", "meter", "month").agg(pl.col("events").sum())
    rows = []
    for customer, meter, month, tenant, events, example in per_owner.filter(pl.col("customer") != "").iter_rows():
        usage = "this usage" if example == "{}" else f"usage such as {example}"
        detail = f"no charge of a contract in force prices {usage} of customer {customer}: add a price"
        rows.append((f"customer:{customer}", tenant, meter, month, detail, events))
    for tenant, meter, month, events in of_subject.iter_rows():
        detail = f"no customer has the subject {tenant}: add it to a customer"
        rows.append((f"subject:{tenant}", tenant, meter, month, detail, events))
    result = [
        ("unrated", f"{owner}|{meter}|{month:%Y-%m}", tenant, meter, booked_hour * 60, detail, events)
        for owner, tenant, meter, month, detail, events in sorted(rows)
    ]
    return pl.DataFrame(result, schema=EXCEPTION_SCHEMA, orient="row")


def not_kept(groups: pl.DataFrame, booked_hour: int, rows_max: int) -> pl.DataFrame:
    """Return one `unrated_not_kept` exception per customer or subject, meter and month whose usage found no room."""
    per_owner = groups.group_by("customer", "tenant", "meter", "month").agg(pl.col("events").sum())
    detail = (
        f"more than {rows_max} rows of usage wait for a price: this usage stays unrated, also once a price is added."
        " Add customers and prices for what waits, or stop whoever sends usage of subjects that nobody knows"
    )
    result = []
    for customer, tenant, meter, month, events in sorted(per_owner.iter_rows()):
        owner = f"customer:{customer}" if customer else "subject"
        identity = f"not_kept|{owner}:{tenant}|{meter}|{month:%Y-%m}"
        result.append(("unrated_not_kept", identity, tenant, meter, booked_hour * 60, detail, events))
    return pl.DataFrame(result, schema=EXCEPTION_SCHEMA, orient="row")
