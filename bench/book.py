"""How fast partial sums and book are: `python -m bench.book`. Prints microseconds and seconds."""

import argparse
import sys
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import polars as pl

from bench.figures import Figure, figure
from config.revision import Configuration, History, Revision
from core.frames import EVENT_SCHEMA, PARTIAL_SCHEMA, QUANTITY
from operators.book import BookLogic
from operators.dedupe_log import IdLog
from operators.items import Marker, Partials
from operators.sums import partial_sums

MINUTE = 29_500_000
EVENTS = 20_000
METERS = {
    "calls": ("count", None),
    "tokens": ("sum", {"model": "$.model"}),
    "peak": ("max", {"model": "$.model"}),
    "level": ("latest", {"model": "$.model"}),
    "users": ("unique_count", None),
}


def _history() -> History:
    meters = [
        {
            "id": name,
            "event_type": "call",
            "aggregation": aggregation,
            "group_by": group_by or {},
            **({} if aggregation == "count" else {"value": "$.n"}),
        }
        for name, (aggregation, group_by) in METERS.items()
    ]
    return History([Revision(Configuration.model_validate({"meters": meters}))])


def _events(rng: np.random.Generator, tenants: int) -> pl.DataFrame:
    entry_ms = np.sort(rng.integers(MINUTE * 60_000, MINUTE * 60_000 + 90_000, EVENTS))
    time_us = entry_ms * 1000 - rng.integers(0, 30_000_000, EVENTS)
    model = [f'{{"model":"gpt-{number}"}}' for number in rng.integers(0, 8, EVENTS)]
    columns: dict[str, Any] = {
        "entry_ms": entry_ms,
        "stream": np.zeros(EVENTS),
        "entry_seq": np.arange(EVENTS),
        "entry_index": np.zeros(EVENTS),
        "event_time_us": time_us,
        "usage_time_us": time_us,
        "tenant": [f"tenant-{number}" for number in rng.integers(0, tenants, EVENTS)],
        "sign": np.ones(EVENTS),
    }
    frame = pl.DataFrame(columns)
    missing = [name for name in EVENT_SCHEMA if name not in columns]
    frame = frame.with_columns(pl.lit(None).alias(name) for name in missing)
    frame = frame.select(pl.col(name).cast(kind) for name, kind in EVENT_SCHEMA.items())
    values = pl.Series(rng.integers(1, 10_000, EVENTS)).cast(pl.Decimal(38, 12))
    users = pl.Series([f"user-{number}" for number in rng.integers(0, 5000, EVENTS)])
    for name, (aggregation, group_by) in METERS.items():
        unique = aggregation == "unique_count"
        frame = frame.with_columns(
            pl.Series(f"v:{name}", [None] * EVENTS if unique else values, dtype=QUANTITY),
            pl.Series(f"u:{name}", users if unique else [None] * EVENTS, dtype=pl.String),
            pl.Series(f"d:{name}", model if group_by else ["{}"] * EVENTS, dtype=pl.String),
        )
    return frame


def bench_sums(history: History, tenant_counts: tuple[int, ...] = (50, 5000)) -> list[Figure]:
    """Return how many events a second partial sums take, for each meter."""
    figures: list[Figure] = []
    for tenants in tenant_counts:
        frame = _events(np.random.default_rng(1), tenants)
        partial_sums(frame, history.latest)
        for name in METERS:
            only = Revision(history.latest.configuration.model_copy(update={"meters": (history.latest.meters[name],)}))
            partial_sums(frame, only)
            started_s = perf_counter()
            rounds = 10
            for _ in range(rounds):
                partials = partial_sums(frame, only)
            us = (perf_counter() - started_s) / rounds / EVENTS * 1e6
            if partials.get_column("inputs").sum() != EVENTS:
                sys.exit("partial sums lost events")
            case = f"partial sums, {METERS[name][0]}, {tenants} tenants"
            figures.append(figure("book", case, 1e6 / us, "events/s"))
    return figures


def _partials(series: int, meter: str, minute: int, entry_ms: int) -> pl.DataFrame:
    unique = METERS[meter][0] == "unique_count"
    number = np.arange(series)
    dimensions = (
        pl.lit("{}") if unique else pl.concat_str(pl.lit('{"model":"gpt-'), pl.col("number") // 1000, pl.lit('"}'))
    )
    frame = pl.DataFrame({"number": number}).with_columns(
        pl.lit(meter).alias("meter"),
        pl.format("tenant-{}", pl.col("number") % 1000).alias("tenant"),
        dimensions.alias("dimensions"),
    )
    defaults: dict[str, Any] = {name: 0 for name in PARTIAL_SCHEMA if name not in frame.columns}
    defaults |= {"usage_minute": minute, "booked_minute": minute, "entry_ms": entry_ms, "events": 1, "inputs": 1}
    defaults |= {"value": None} if unique else {"value": Decimal("1.25")}
    frame = frame.with_columns(pl.lit(value).alias(name) for name, value in defaults.items())
    frame = frame.with_columns(pl.col("number").alias("entry_seq"))
    if unique:
        frame = frame.with_columns((pl.col("number") * 7919).alias("unique_hi"), pl.col("number").alias("unique_lo"))
    return frame.select(pl.col(name).cast(kind) for name, kind in PARTIAL_SCHEMA.items())


def bench_book(history: History, meter: str, series: int) -> list[Figure]:
    """Return what an epoch costs in which every open series changes, or few do, and what sealing costs."""
    figures: list[Figure] = []
    with TemporaryDirectory() as directory:
        log = IdLog.open(Path(directory), None)
        logic = BookLogic("bench", ["id-0", "id-1"], history, log, None)
        for epoch in range(4):
            now_ms = MINUTE * 60_000 + epoch * 2000
            parts = _partials(series, meter, MINUTE, now_ms)
            items = [Partials(0, part) for part in parts.iter_slices(len(parts) // 8)]
            figures += _round(
                f"{meter}, epoch {epoch}, {series} of {series} series changed", logic, items, now_ms + 1000
            )
        quiet = [Partials(0, _partials(10, meter, MINUTE, now_ms + 1500))]
        figures += _round(f"{meter}, epoch, 10 of {series} series changed", logic, quiet, now_ms + 2000)
        figures += _round(f"{meter}, {series} series seal", logic, [], (MINUTE + 10) * 60_000)
        log.close()
    return figures


def _round(what: str, logic: BookLogic, items: list[Partials], watermark_ms: int) -> list[Figure]:
    markers = [Marker(f"id-{number}", watermark_ms) for number in range(2)]
    started_s = perf_counter()
    out = logic.process([*items, *markers])
    process_s = perf_counter() - started_s
    started_s = perf_counter()
    state = logic.snapshot()
    snapshot_s = perf_counter() - started_s
    if not out or not state:
        sys.exit("book emitted nothing")
    return [
        figure("book", f"{what}: process", process_s * 1000, "ms"),
        figure("book", f"{what}: snapshot", snapshot_s * 1000, "ms"),
    ]


def bench_history(history: History, minutes: int) -> list[Figure]:
    """Return what a minute costs while history is read: many minutes seal, one after the other."""
    with TemporaryDirectory() as directory:
        log = IdLog.open(Path(directory), None)
        logic = BookLogic("bench", ["id-0"], history, log, None)
        started_s = perf_counter()
        for number in range(minutes):
            entry_ms = (MINUTE + number) * 60_000
            partials = Partials(0, _partials(200, "tokens", MINUTE + number, entry_ms))
            logic.process([partials, Marker("id-0", entry_ms + 59_999)])
        spent_s = perf_counter() - started_s
        log.close()
    return [figure("book", "history: a minute of 200 series", spent_s / minutes * 1000, "ms")]


def measure(*, quick: bool) -> list[Figure]:
    """Return the figures that say most: sums for each aggregation, an epoch of a `sum` meter, history."""
    history = _history()
    return [
        *bench_sums(history, (1000,)),
        *bench_book(history, "tokens", 10_000 if quick else 100_000)[-6:],
        *bench_history(history, 60 if quick else 300),
    ]


def main() -> None:
    """Run all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, default=100_000)
    arguments = parser.parse_args()
    history = _history()
    figures = bench_sums(history)
    for meter in ("tokens", "level", "users"):
        figures += bench_book(history, meter, arguments.series)
    for one in [*figures, *bench_history(history, 300)]:
        print(f"{one.case}: {one.value:,.2f} {one.unit}")


if __name__ == "__main__":
    main()
