"""`whatif`: reads booked facts and amounts from ClickHouse and rates the facts under other plans.

Reads only: nothing is written to any store.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import polars as pl

from config.plan_file import with_plans
from config.revision import Configuration, History, Revision
from config.settings import Settings
from core.errors import InvalidRequest
from core.frames import FACT_SCHEMA
from operators.rate_terms import TermsIndex, first_minute
from operators.rate_whatif import (
    AMOUNTS_SCHEMA,
    FACT_COLUMNS,
    Collapse,
    Window,
    amounts,
    differences,
    history_minute,
    rerate,
)
from sinks import ledger
from sinks.clickhouse.client import Client, connect
from sinks.ledger import progress, revisions

FACTS_PER_QUERY_MAX: Final = 1_000_000
"""Facts are read subject by subject, in groups of about this many, so that memory stays bounded."""
_MS_PER_HOUR: Final = 3_600_000


@dataclass(frozen=True)
class Report:
    """What other plans would have come to in a window of booked hours."""

    window: Window
    config_version: str
    """The recorded revision whose meters, entities and customers were used."""
    facts: int
    """How many facts were re-rated, those before the window included that decide where in the tiers it begins."""
    rows: pl.DataFrame
    """See `operators.rate_whatif.differences`: one row per customer, contract, charge, period and currency."""
    unpriced: pl.DataFrame
    """Usage of the window that has no price under the other plans (UNPRICED_SCHEMA)."""

    def totals(self) -> dict[str, dict[str, Decimal]]:
        """Return the sums by currency."""
        names = ("amount_booked", "amount_whatif", "difference")
        sums = self.rows.group_by("currency").agg(pl.col(name).sum() for name in names).sort("currency")
        return {currency: dict(zip(names, values, strict=True)) for currency, *values in sums.iter_rows()}


def whatif(
    settings: Settings,
    plans: Path,
    begins: int | None = None,
    ends: int | None = None,
    advance: Callable[[int], None] = lambda _facts: None,
) -> Report:
    """Rate the facts booked from hour `begins` to `ends` (exclusive; hours since 1970) under the file's plans.

    Without `begins` it starts where the books begin, without `ends` it ends with the last complete hour.
    Customers, contracts, meters and entities are those of the latest recorded revision.

    :raises InvalidRequest: nothing is booked in that window.
    :raises ConfigError: the plans have problems.
    :raises RetryableError, FatalError: of ClickHouse or the ledger.
    """
    return compare(settings, lambda recorded: with_plans(recorded, plans), begins, ends, advance)


def compare(
    settings: Settings,
    changed: Callable[[Configuration], Configuration],
    begins: int | None = None,
    ends: int | None = None,
    advance: Callable[[int], None] = lambda _facts: None,
) -> Report:
    """Rate booked facts under what `changed` makes of the latest recorded configuration; see `whatif`."""
    engine = ledger.connect(settings.ledger_url)
    try:
        latest = History(revisions.load_history(engine)).latest
        watermark_ms = progress.watermark_ms(engine)
    finally:
        engine.dispose()
    other = Revision(changed(latest.configuration), latest.known_from_ms)
    complete = (watermark_ms - latest.rules.grace_s * 1000) // _MS_PER_HOUR
    with connect(settings.clickhouse) as client:
        reader = _Reader(client, settings.clickhouse.database)
        first_hour, earliest = reader.first_booked_hours()
        opened = other.rules.books_open_at
        if opened is not None:
            earliest = min(earliest, first_minute(opened) // 60)
        window = _window(begins, ends, earliest, complete)
        index = TermsIndex(other)
        collapse = Collapse(index, window)
        facts, parts = 0, []
        for frame in reader.facts(window, history_minute(index, window), index.priced_meters):
            facts += len(frame)
            advance(len(frame))
            parts.append(collapse.merge(frame))
        booked = reader.booked(window)
    if not parts:
        parts.append(collapse.merge(pl.DataFrame(schema=FACT_SCHEMA)))
    result = rerate(pl.concat(parts), index, window, first_hour)
    return Report(window, latest.version, facts, differences(booked, result.amounts), result.unpriced)


def _window(begins: int | None, ends: int | None, earliest: int, complete: int) -> Window:
    """Return the window asked for, cut to where the books begin and to what is complete."""
    first = earliest if begins is None else max(begins, earliest)
    window = Window(first, complete if ends is None else min(ends, complete))
    if window.begins >= window.ends:
        message = (
            "no booked hour is complete in that window: choose an earlier --from or a later --to; an hour is complete"
            " once the flow has sealed it"
        )
        raise InvalidRequest(message)
    return window


# A fact is never booked before its usage, so the bound on the usage time bounds the booked time too, and lets
# ClickHouse skip older months.
_FACTS: Final = """
    sealed = 1 AND meter IN {meters:Array(String)}
    AND booked_minute >= toDateTime({history:UInt32}, 'UTC') AND booked_minute < toDateTime({ends:UInt32}, 'UTC')
    AND usage_minute >= toDateTime({history:UInt32}, 'UTC')
"""
_COUNTS: Final = f"""
    SELECT tenant, count() FROM {{database:Identifier}}.usage_facts WHERE {_FACTS} GROUP BY tenant ORDER BY tenant
"""  # noqa: S608 - the text is constant
# The inner query filters by the table's columns; names of the outer one would hide them.
_FACTS_OF_SUBJECTS: Final = f"""
    SELECT tenant, toString(meter) AS meter, series AS dimensions,
        intDiv(toInt64(toUnixTimestamp(usage_minute)), 60) AS usage_minute,
        intDiv(toInt64(toUnixTimestamp(booked_minute)), 60) AS booked_minute,
        value, toUnixTimestamp64Micro(value_time) AS value_time_us, events, version
    FROM (
        SELECT tenant, meter, series, usage_minute, booked_minute, value, value_time, events, version
        FROM {{database:Identifier}}.usage_facts FINAL
        WHERE {_FACTS} AND tenant >= {{first:String}} AND tenant <= {{last:String}}
        SETTINGS do_not_merge_across_partitions_select_final = 1
    )
"""  # noqa: S608 - the text is constant
_FIRST_BOOKED: Final = """
    SELECT count(), toUnixTimestamp(min(booked_minute)),
        (SELECT toUnixTimestamp(minOrNull(booked_hour)) FROM {database:Identifier}.rated_usage WHERE status = 'sealed')
    FROM {database:Identifier}.usage_facts WHERE sealed = 1
"""
_BOOKED: Final = """
    SELECT customer, contract, toString(charge) AS charge, toString(currency) AS currency,
        toUnixTimestamp64Micro(period_start) AS period_start_us, sum(quantity) AS quantity, sum(amount) AS amount
    FROM {database:Identifier}.rated_usage_current
    WHERE status = 'sealed'
        AND booked_hour >= toDateTime({begins:UInt32}, 'UTC') AND booked_hour < toDateTime({ends:UInt32}, 'UTC')
    GROUP BY customer, contract, charge, currency, period_start
"""


class _Reader:
    """The queries."""

    def __init__(self, client: Client, database: str) -> None:
        self._client = client
        self._database = database

    def first_booked_hours(self) -> tuple[int, int]:
        """Return the first hour in which usage was booked, and the first in which anything was (fees without usage)."""
        count, first, rated = self._rows(_FIRST_BOOKED)[0]
        if not count:
            message = "nothing is booked yet: send events and run the flow first, until an hour is complete"
            raise InvalidRequest(message)
        return int(first) // 3600, min(int(first), int(first if rated is None else rated)) // 3600

    def facts(self, window: Window, history: int, meters: frozenset[str]) -> Iterator[pl.DataFrame]:
        """Yield the sealed facts (FACT_COLUMNS) that decide the window's amounts, whole subjects at a time."""
        values = {"history": history * 60, "ends": window.ends * 3600, "meters": sorted(meters)}
        for first, last in _groups(self._rows(_COUNTS, values)):
            yield self._frame(_FACTS_OF_SUBJECTS, values | {"first": first, "last": last}, FACT_COLUMNS)

    def booked(self, window: Window) -> pl.DataFrame:
        """Return what is booked in the window (AMOUNTS_SCHEMA)."""
        values = {"begins": window.begins * 3600, "ends": window.ends * 3600}
        return amounts(self._frame(_BOOKED, values, tuple(AMOUNTS_SCHEMA)))

    def _rows(self, text: str, values: dict[str, Any] | None = None) -> Sequence[Sequence[Any]]:
        return self._client.query(text, {"database": self._database, **(values or {})}).result_rows

    def _frame(self, text: str, values: dict[str, Any], columns: Sequence[str]) -> pl.DataFrame:
        table = self._client.query_arrow(text, {"database": self._database, **values})
        schema = FACT_SCHEMA | AMOUNTS_SCHEMA
        frame = pl.DataFrame(pl.from_arrow(table))
        return frame.select(pl.col(name).cast(schema[name]) for name in columns)


def _groups(counts: Sequence[Sequence[Any]]) -> Iterator[tuple[str, str]]:
    """Yield the first and last subject of groups of about FACTS_PER_QUERY_MAX facts."""
    first, last, total = "", "", 0
    for subject, count in counts:
        if total and total + count > FACTS_PER_QUERY_MAX:
            yield first, last
            total = 0
        if not total:
            first = subject
        last, total = subject, total + count
    if total:
        yield first, last
