"""How fast `whatif` re-rates booked facts, end to end on the embedded ClickHouse: `python -m bench.whatif`."""

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, Final

import numpy as np
import polars as pl
import yaml

from bench.figures import Figure, figure
from config.revision import Configuration, Revision
from config.settings import Settings
from core.frames import FACT_SCHEMA, QUANTITY, RATED_SCHEMA
from flows.whatif import whatif
from operators.rate_terms import first_minute
from sinks import clickhouse, ledger
from sinks.clickhouse.tables import TABLES
from sinks.clickhouse.writer import TableWriter
from sinks.ledger import progress, revisions
from sinks.ledger.database import write
from tests.stack.servers import ClickHouseProcess

FACTS: Final = 1_000_000
CUSTOMERS: Final = 500
DAYS: Final = 30
START: Final = datetime(2026, 9, 1, tzinfo=UTC)
_MODELS: Final = ("a", "b", "c", "d")
_ROWS_PER_INSERT: Final = 100_000


def _charges(price: str) -> list[dict[str, Any]]:
    tiers = [{"up_to": "100000", "unit_amount": price}, {"up_to": None, "unit_amount": "0.001"}]
    per_model = [
        {"id": f"tokens_{model}", "meter": "tokens", "filter": {"model": model}, "model": "graduated", "tiers": tiers}
        for model in _MODELS
    ]
    calls = {"id": "calls", "meter": "calls", "model": "package", "package_size": "1000", "package_amount": "2"}
    return [*per_model, calls | {"minimum": "5"}]


def _plan(price: str) -> dict[str, Any]:
    return {
        "id": "p",
        "versions": [{"effective_from": "2026-01-01T00:00:00Z", "currency": "USD", "charges": _charges(price)}],
    }


def _configuration() -> Configuration:
    entity = {
        "id": "US01",
        "functional_currency": "USD",
        "timezone": "UTC",
        "accounts": {"unbilled_receivable": "1150", "usage_revenue": "4001", "shortfall_revenue": "4003"},
        "erp": {"company": "US01"},
    }
    contract = {"plan": "p", "entity": "US01", "from": "2026-01-01T00:00:00Z"}
    customers = [
        {"id": f"c{number}", "subjects": [f"s{number}"], "contracts": [contract | {"id": f"k{number}"}]}
        for number in range(CUSTOMERS)
    ]
    group_by = {"model": "$.model"}
    meters = [
        {"id": "tokens", "event_type": "t", "aggregation": "sum", "value": "$.tokens", "group_by": group_by},
        {"id": "calls", "event_type": "t", "aggregation": "count"},
    ]
    plain = {"meters": meters, "plans": [_plan("0.003")], "entities": [entity], "customers": customers}
    return Configuration.model_validate(plain | {"rules": {"books_open_at": START.isoformat()}})


def _facts(count: int) -> pl.DataFrame:
    """Return distinct facts of random minutes; one of five is of the calls, one of fifty is late."""
    rng = np.random.default_rng(7)
    series = len(_MODELS) + 1
    place = rng.choice(CUSTOMERS * series * DAYS * 1440, count, replace=False)
    which, minute = np.divmod(place, DAYS * 1440)
    customer, kind = np.divmod(which, series)
    usage = minute + first_minute(START)
    booked = usage + np.where(rng.integers(0, 50, count) == 0, rng.integers(61, 3000, count), 0)
    texts = [*(f'{{"model":"{model}"}}' for model in _MODELS), "{}"]
    columns = {
        "tenant": [f"s{number}" for number in customer],
        "meter": np.where(kind == len(_MODELS), "calls", "tokens"),
        "dimensions": [texts[number] for number in kind],
        "usage_minute": usage,
        "booked_minute": booked,
        "value": pl.Series(rng.integers(1, 5000, count)).cast(QUANTITY),
        "value_time_us": np.zeros(count, dtype=np.int64),
        "events": rng.integers(1, 50, count),
        "version": np.ones(count, dtype=np.int64),
        "sealed": np.ones(count, dtype=np.int64),
    }
    frame = pl.DataFrame(columns)
    return frame.select(pl.col(name).cast(dtype) for name, dtype in FACT_SCHEMA.items())


def _rated(facts: pl.DataFrame) -> pl.DataFrame:
    """Return one rated row per customer, charge, usage hour and booked hour of the facts; amounts are made up."""
    charge = (
        pl.when(pl.col("meter") == "calls")
        .then(pl.lit("calls"))
        .otherwise("tokens_" + pl.col("dimensions").str.slice(10, 1))
    )
    hours = facts.select(
        pl.col("tenant").str.replace("s", "c").alias("customer"),
        charge.alias("charge"),
        (pl.col("usage_minute") // 60).alias("usage_hour"),
        (pl.col("booked_minute") // 60).alias("booked_hour"),
        pl.col("value").alias("quantity"),
    )
    rows = hours.group_by("customer", "charge", "usage_hour", "booked_hour").agg(pl.col("quantity").sum())
    texts = {name: pl.lit("") for name, dtype in RATED_SCHEMA.items() if dtype == pl.String}
    numbers = {name: pl.lit(0) for name, dtype in RATED_SCHEMA.items() if dtype != pl.String}
    fixed = (
        texts
        | numbers
        | {
            "contract": pl.col("customer").str.replace("c", "k"),
            "plan": pl.lit("p"),
            "plan_version": pl.lit(1),
            "period_start_us": pl.lit(int(START.timestamp()) * 1_000_000),
            "line_kind": pl.lit("usage"),
            "amount": pl.col("quantity"),
            "currency": pl.lit("USD"),
            "status": pl.lit("sealed"),
        }
    )
    for name in rows.columns:
        fixed[name] = pl.col(name)
    return rows.select(fixed[name].cast(dtype).alias(name) for name, dtype in RATED_SCHEMA.items())


def _insert(found: Settings, table: str, rows: pl.DataFrame) -> None:
    writer = TableWriter(TABLES[table], found.clickhouse, (), stop=threading.Event(), epoch_s=60)
    for offset in range(0, len(rows), _ROWS_PER_INSERT):
        writer.write([rows.slice(offset, _ROWS_PER_INSERT)])
        writer.flush()
    writer.close()


@contextmanager
def _deployment(directory: Path, count: int) -> Iterator[Settings]:
    server = ClickHouseProcess(directory / "clickhouse")
    server.start()
    try:
        base = Settings()
        found = base.model_copy(
            update={
                "state_dir": directory,
                "clickhouse": base.clickhouse.model_copy(update={"url": server.url, "database": "bench"}),
            }
        )
        clickhouse.migrate(found.clickhouse)
        ledger.migrate(found.ledger_url)
        engine = ledger.connect(found.ledger_url)
        revisions.record_revision(engine, Revision(_configuration()), START)
        end_ms = int((START + timedelta(days=DAYS + 5)).timestamp() * 1000)
        with write(engine) as connection:
            progress.put(connection, progress.PROMOTED, progress.Progress(1, end_ms))
        engine.dispose()
        facts = _facts(count)
        _insert(found, "usage_facts", facts)
        _insert(found, "rated_usage", _rated(facts))
        yield found
    finally:
        server.stop()


def measure(*, quick: bool) -> list[Figure]:
    """Return seconds of a what-if over a month, reading included."""
    count = 20_000 if quick else FACTS
    with tempfile.TemporaryDirectory(prefix="meterbridge-bench-") as name:
        directory = Path(name)
        plans = directory / "plans.yaml"
        plans.write_text(yaml.safe_dump({"plans": [_plan("0.002")]}))
        with _deployment(directory, count) as found:
            seconds, processor_seconds = [], []
            for _ in range(1 if quick else 3):
                began_s, began_processor_s = perf_counter(), process_time()
                report = whatif(found, plans)
                seconds.append(perf_counter() - began_s)
                processor_seconds.append(process_time() - began_processor_s)
                if report.facts != count:
                    message = f"{report.facts} of {count} facts were read"
                    raise AssertionError(message)
    case = f"{count:,} facts of a month, {CUSTOMERS} customers"
    return [
        figure("whatif", f"{case}, reading included", seconds, "s"),
        figure("whatif", f"{case}, processor time without ClickHouse's", processor_seconds, "s"),
    ]


if __name__ == "__main__":
    for one in measure(quick=False):
        print(f"{one.case}: {one.value:.2f} {one.unit} ({one.lowest:.2f} to {one.highest:.2f})")
