"""From merged rows to facts (FACT_SCHEMA)."""

import polars as pl

from core.frames import FACT_KEY, FACT_SCHEMA
from operators.book_merge import LEVEL, UNIQUE
from operators.book_unique import Periods, UniqueSet, first_seen, remember, with_keys

_ORDER = ("booked_minute", "tenant", "meter", "dimensions", "usage_minute")


def sealed_facts(rows: pl.DataFrame, periods: Periods, seen: UniqueSet) -> pl.DataFrame:
    """Return the final facts of whole booked minutes, and remember their values."""
    plain, unique = _split(rows)
    parts = [_facts(plain)]
    if not unique.is_empty():
        counts, new = first_seen(with_keys(unique, periods), periods, seen)
        remember(new, seen)
        parts.append(_facts(_counted(unique, counts)))
    return pl.concat(parts).with_columns(pl.lit(1, dtype=pl.UInt8).alias("sealed"))


def in_order(*facts: pl.DataFrame) -> pl.DataFrame:
    """Return all facts in the order of their booked minutes."""
    return pl.concat(facts).sort(_ORDER)


def open_facts(
    rows: pl.DataFrame, watermark_ms: int, periods: Periods, seen: UniqueSet
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the facts to hand on while open, and `rows` with `emitted` brought up to date.

    A fact is handed on if it changed since the last time, and its series began below the watermark: then no
    other series can push it over the cardinality limit, so that no open fact is ever left behind. Level changes
    have no facts until their hour is booked.
    """
    plain, unique = _split(rows)
    changed = (pl.col("inputs") != pl.col("emitted")) & (pl.col("entry_ms") < watermark_ms) & (pl.col("kind") != LEVEL)
    parts = [_facts(plain.filter(changed))]
    out = [_mark(plain, changed)]
    if not unique.is_empty():
        totals = unique.group_by(FACT_KEY).agg(
            pl.col("inputs", "emitted").sum(), pl.col("entry_ms").min(), pl.col("kind").first()
        )
        going = totals.filter(changed).select(FACT_KEY)
        if not going.is_empty():
            counts, _ = first_seen(unique, periods, seen)
            parts.append(_facts(_counted(unique.join(going, on=FACT_KEY, how="semi"), counts)))
            flagged = unique.join(going.with_columns(pl.lit(value=True).alias("going")), on=FACT_KEY, how="left")
            unique = _mark(flagged, pl.col("going").is_not_null()).drop("going")
        out.append(unique)
    return pl.concat(parts), pl.concat(out)


def _split(rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    is_unique = pl.col("kind") == UNIQUE
    return rows.filter(~is_unique), rows.filter(is_unique)


def _mark(rows: pl.DataFrame, going: pl.Expr) -> pl.DataFrame:
    return rows.with_columns(pl.when(going).then(pl.col("inputs")).otherwise(pl.col("emitted")).alias("emitted"))


def _counted(unique: pl.DataFrame, counts: pl.DataFrame) -> pl.DataFrame:
    """Return one row per fact: a fact whose values were all seen before counts 0, but has its events."""
    totals = unique.group_by(FACT_KEY).agg(
        pl.lit(0, dtype=pl.Int64).alias("value_time_us"), pl.col("events", "inputs").sum()
    )
    return totals.join(counts, on=FACT_KEY, how="left").with_columns(pl.col("value").fill_null(0))


def _facts(rows: pl.DataFrame) -> pl.DataFrame:
    named = rows.with_columns(pl.col("inputs").alias("version"), pl.lit(0).alias("sealed"))
    return named.select(pl.col(name).cast(kind) for name, kind in FACT_SCHEMA.items())
