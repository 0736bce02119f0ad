"""The events behind a document: how many, what they add up to, first and last, and the full list as a file."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final

import polars as pl
import pyarrow.parquet as pq

from core.errors import InvalidRequest
from core.quantities import exactly
from queries.document_trace import ChargeTrace, DocumentTrace
from queries.meter_sql import MeterSql
from queries.stores import Row, Stores
from sinks.ledger import retention

EVENTS_MAX: Final = 5_000_000
"""More than this does not fit a file a person opens; ask for the events of fewer hours."""

COLUMNS: Final = (
    "charge",
    "meter",
    "tenant",
    "source",
    "id",
    "type",
    "event_time",
    "ingest_time",
    "stream",
    "entry_id",
    "entry_index",
    "usage_minute",
    "booked_minute",
    "dimensions",
    "sign",
    "value",
)
_READ: Final = (
    "tenant",
    "source",
    "id",
    "type",
    "event_time",
    "ingest_time",
    "stream",
    "entry_id",
    "entry_index",
    "booked_minute",
    "sign",
    "value",
    "series",
    "usage_minute",
)
_ROUNDING: Final = timedelta(minutes=1)
_ROWS_PER_PART: Final = 50_000
_KINDS: Final[dict[str, pl.DataType]] = {
    "event_time": pl.Datetime("us", "UTC"),
    "ingest_time": pl.Datetime("ms", "UTC"),
    "usage_minute": pl.Datetime("us", "UTC"),
    "booked_minute": pl.Datetime("us", "UTC"),
    "entry_index": pl.Int64(),
    "sign": pl.Int64(),
}
_SCHEMA: Final[dict[str, pl.DataType]] = {name: _KINDS.get(name, pl.String()) for name in COLUMNS}

_Key = tuple[str, tuple[tuple[str, str], ...], datetime, datetime]


@dataclass(slots=True)
class Summary:
    """The events of one charge in a document. `sum` is None where values do not add up by nature."""

    charge: str
    meter: str
    events: int = 0
    voids: int = 0
    sum: Decimal | None = None
    first: datetime | None = None
    last: datetime | None = None
    facts_events: int = 0
    expired: bool = False
    """Raw events of it are gone by policy: how many they were is in `kept_usage`, by tenant and hour."""

    @property
    def ties(self) -> bool:
        """Tell whether the events, voids taken off, are those the facts count."""
        return self.events - self.voids == self.facts_events


@exactly
def summaries(stores: Stores, trace: DocumentTrace) -> list[Summary]:
    """Return one summary per charge that has facts, read from the stored events."""
    found = []
    expired = retention.expired_before(stores.engine).get("usage_events")
    for charge in trace.charges:
        if not charge.facts:
            continue
        summary = Summary(charge.name[2], charge.name[4], facts_events=sum(fact["events"] for fact in charge.facts))
        meter = stores.history.meters[summary.meter]
        sums = charge.additive and meter.aggregation == "sum" and meter.per_event is None
        total = Decimal(0)
        for row in _events(stores, charge):
            summary.voids += row["sign"] < 0
            summary.events += row["sign"] > 0
            summary.first = min(summary.first or row["event_time"], row["event_time"])
            summary.last = max(summary.last or row["event_time"], row["event_time"])
            if sums:
                total += row["sign"] * Decimal(row["value"])
        summary.sum = total if sums else None
        if expired is not None:
            summary.expired = any(fact["booked_minute"] < expired for fact in charge.facts)
        found.append(summary)
    return found


def charge_events(stores: Stores, charges: Iterable[ChargeTrace], limit: int) -> list[Row]:
    """Return the first events of some of a document's charges, in order of their arrival."""
    rows = (row for charge in charges for row in _events(stores, charge))
    with closing(rows):
        return list(islice(rows, limit))


def write_events(stores: Stores, trace: DocumentTrace, path: Path) -> int:
    """Write every event of the document to a .csv or .parquet file and return how many.

    The file appears when it is complete; memory holds one part of it.

    :raises InvalidRequest: the ending is another one, or there are more than EVENTS_MAX events.
    """
    if path.suffix not in (".csv", ".parquet"):
        message = f"{path}: the file must end in .csv or .parquet"
        raise InvalidRequest(message)
    unfinished = path.with_name(f"{path.name}.part")
    count = 0
    try:
        with unfinished.open("wb") as file, _writer(file, path.suffix) as write:
            for frame in _frames(stores, trace):
                count += len(frame)
                if count > EVENTS_MAX:
                    message = f"the document has more than {EVENTS_MAX:,} events: read them from usage_events by SQL"
                    raise InvalidRequest(message)
                write(frame)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return count


def _frames(stores: Stores, trace: DocumentTrace) -> Iterator[pl.DataFrame]:
    """Yield the events in parts, at least one, which may be empty."""
    rows = (tuple(row[name] for name in COLUMNS) for charge in trace.charges for row in _events(stores, charge))
    part = list(islice(rows, _ROWS_PER_PART))
    yield pl.DataFrame(part, schema=_SCHEMA, orient="row")
    while part := list(islice(rows, _ROWS_PER_PART)):
        yield pl.DataFrame(part, schema=_SCHEMA, orient="row")


@contextmanager
def _writer(file: BinaryIO, suffix: str) -> Iterator[Callable[[pl.DataFrame], None]]:
    if suffix == ".parquet":
        with pq.ParquetWriter(file, pl.DataFrame(schema=_SCHEMA).to_arrow().schema) as writer:
            yield lambda frame: writer.write_table(frame.to_arrow())
        return
    yield lambda frame: frame.write_csv(file, include_header=file.tell() == 0)


def _events(stores: Stores, charge: ChargeTrace) -> Iterator[Row]:
    """Yield the events of the charge's facts, voids with sign -1.

    An event arrived in the minute it is booked, or in time for that minute: this bounds the read to a narrow range
    of the sorting key.
    """
    if not charge.facts:
        return
    revision = stores.history.at(int(max(fact["booked_minute"] for fact in charge.facts).timestamp() * 1000))
    meter = revision.meters[charge.name[4]]
    sql = MeterSql.of(meter)
    place = _hour_of if meter.aggregation == "weighted_sum" else _as_it_is
    wanted: set[_Key] = {
        (fact["tenant"], _sorted(fact["dimensions"]), *place(fact["usage_minute"], fact["booked_minute"]))
        for fact in charge.facts
    }
    text = (
        "SELECT tenant, source, id, type, event_time, ingest_time, stream, entry_id, entry_index, booked_minute,"  # noqa: S608
        f" {sql.sign} AS sign, {sql.text} AS value, {sql.dimensions} AS series,"
        " toStartOfMinute(if(sign = 1, event_time, ifNull(parseDateTime64BestEffortOrNull("
        "JSONExtractString(data, 'data', 'time'), 6, 'UTC'), event_time))) AS usage_minute"
        " FROM @usage_events_current WHERE ingest_time >= {first:DateTime64(3)} AND ingest_time < {last:DateTime64(3)}"
        " AND tenant IN {tenants:Array(String)} AND booked_minute IN {minutes:Array(DateTime)}"
        f" AND {sql.applies} ORDER BY ingest_time, stream, entry_id, entry_index"
    )
    minutes = sorted({key[3] for key in wanted})
    if place is _hour_of:
        minutes = sorted({*minutes, *(minute.replace(minute=past) for minute in minutes for past in range(60))})
    parameters = sql.parameters | {
        "first": minutes[0] - timedelta(seconds=revision.rules.future_s) - _ROUNDING,
        "last": minutes[-1] + timedelta(seconds=revision.rules.grace_s) + _ROUNDING,
        "tenants": sorted({key[0] for key in wanted}),
        "minutes": minutes,
    }
    for block in stores.client.blocks(stores.resolved(text), parameters):
        for values in block:
            row = dict(zip(_READ, values, strict=True))
            series = row.pop("series")
            if (row["tenant"], _sorted(series), *place(row["usage_minute"], row["booked_minute"])) in wanted:
                dimensions = ", ".join(f"{name}={value}" for name, value in sorted(series.items()))
                yield row | {"charge": charge.name[2], "meter": charge.name[4], "dimensions": dimensions}


def _as_it_is(usage_minute: datetime, booked_minute: datetime) -> tuple[datetime, datetime]:
    return usage_minute, booked_minute


def _hour_of(usage_minute: datetime, booked_minute: datetime) -> tuple[datetime, datetime]:
    """Return where a level change is counted: in its hour, which is booked in its last minute, or as a correction."""
    hour = usage_minute.replace(minute=0)
    return hour, booked_minute.replace(minute=59) if booked_minute.replace(minute=0) == hour else booked_minute


def _sorted(dimensions: dict[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(dimensions.items()))
