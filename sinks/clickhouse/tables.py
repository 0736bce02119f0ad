"""From the frames of the dataflow to the rows of the tables: pure functions, whole columns at a time.

Times that are whole minutes or hours become Unix seconds (UInt32), which ClickHouse reads as DateTime; finer ones
become timestamps. Column order is the tables' order.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final, Protocol

import orjson
import polars as pl
import pyarrow as pa

from core.errors import InvariantViolation

_SECONDS_PER_MINUTE: Final = 60
_SECONDS_PER_HOUR: Final = 3600


class StoredDocument(Protocol):
    """What a financial document has to tell for its row."""

    @property
    def key(self) -> str:
        """Return the document's key."""
        ...

    @property
    def digest(self) -> str:
        """Return the digest of the canonical JSON."""
        ...

    def to_json(self) -> str | bytes:
        """Return the whole document as JSON."""
        ...


Item = Any
"""A polars frame, or a document for `financial_documents`."""

Convert = Callable[[Sequence[Item], Sequence[str]], pa.Table]


@dataclass(frozen=True, slots=True)
class TableSpec:
    """A table the flow writes: which columns of a frame it needs, and how they become rows."""

    name: str
    columns: tuple[str, ...]
    convert: Convert
    insert_settings: Mapping[str, int] = field(default_factory=dict)
    """What the server is told of each insert, beside what it is told of all."""

    def trim(self, item: Item) -> Item:
        """Return the item without columns that the table does not need; nothing is copied.

        :raises InvariantViolation: a column is missing.
        """
        if not isinstance(item, pl.DataFrame):
            return item
        missing = [column for column in self.columns if column not in item.columns]
        if missing:
            message = f"rows for {self.name} come without {', '.join(missing)}: the step that made them is at fault"
            raise InvariantViolation(message)
        return item.select(self.columns)


def size_bytes(item: Item) -> int:
    """Return about how much memory an item takes."""
    if isinstance(item, pl.DataFrame):
        return int(item.estimated_size()) + 1024
    return len(item.to_json()) + 1024


def rows_in(item: Item) -> int:
    """Return how many rows an item becomes."""
    return len(item) if isinstance(item, pl.DataFrame) else 1


# --- building blocks -----------------------------------------------------------------------------------


def _seconds(column: str, unit: int) -> pl.Expr:
    name = column.removesuffix("_us")
    return (pl.col(column) * unit).cast(pl.UInt32).alias(name)


def _minute(column: str) -> pl.Expr:
    return _seconds(column, _SECONDS_PER_MINUTE)


def _hour(column: str) -> pl.Expr:
    return _seconds(column, _SECONDS_PER_HOUR)


def _micros(column: str, name: str) -> pl.Expr:
    return pl.col(column).cast(pl.Datetime("us", "UTC")).alias(name)


def _stream(streams: Sequence[str]) -> pl.Expr:
    return pl.col("stream").replace_strict(list(range(len(streams))), list(streams), return_dtype=pl.String)


def _position(streams: Sequence[str]) -> list[pl.Expr]:
    return [
        _stream(streams),
        pl.concat_str("entry_ms", "entry_seq", separator="-").alias("entry_id"),
        pl.col("entry_index").cast(pl.UInt32),
        pl.col("entry_ms").cast(pl.Datetime("ms", "UTC")).alias("ingest_time"),
        pl.col("entry_seq").cast(pl.UInt64),  # else the server reads it from entry_id: half the insert's time
    ]


def _frames(convert: Callable[[Sequence[str]], list[pl.Expr]]) -> Convert:
    def run(items: Sequence[Item], streams: Sequence[str]) -> pa.Table:
        frame = items[0] if len(items) == 1 else pl.concat(items)
        rows: pa.Table = frame.select(convert(streams)).to_arrow()
        return rows

    return run


def _encoded(table: pa.Table, names: Sequence[str]) -> pa.Table:
    """Return the table with those columns as dictionaries, as the server stores them: it need not hash each row."""
    for name in names:
        place = table.schema.get_field_index(name)
        texts: Any = table.column(place).combine_chunks()
        table = table.set_column(place, name, texts.dictionary_encode())
    return table


def dimensions_map(texts: Any) -> Any:
    """Return an Arrow array of canonical JSON objects as one of maps; each distinct text is read once.

    :raises InvariantViolation: a text is not an object of strings.
    """
    encoded = texts.dictionary_encode()
    keys: list[str] = []
    values: list[str] = []
    offsets = [0]
    for text in encoded.dictionary.to_pylist():
        parsed = orjson.loads(text)
        if not isinstance(parsed, dict) or not all(isinstance(value, str) for value in parsed.values()):
            message = f"dimensions {text!r} are not an object of strings: the step that made them is at fault"
            raise InvariantViolation(message)
        keys.extend(parsed)
        values.extend(parsed.values())
        offsets.append(len(keys))
    maps: Any = pa.MapArray  # the stubs know 64-bit offsets only
    # Through polars, because building Arrow arrays from Python lists imports pandas, which takes seconds.
    distinct = maps.from_arrays(
        pl.Series(offsets, dtype=pl.Int32).to_arrow(),
        pl.Series(keys, dtype=pl.String).to_arrow(),
        pl.Series(values, dtype=pl.String).to_arrow(),
    )
    return distinct.take(encoded.indices)


# --- the tables ------------------------------------------------------------------------------------------


def _events(items: Sequence[Item], streams: Sequence[str]) -> pa.Table:
    return _encoded(_frames(_event_columns)(items, streams), ("source", "type", "stream"))


def _event_columns(streams: Sequence[str]) -> list[pl.Expr]:
    stream, entry_id, entry_index, ingest_time, entry_seq = _position(streams)
    return [
        pl.col("tenant", "source", "id", "type"),
        _micros("event_time_us", "event_time"),
        stream,
        entry_id,
        entry_index,
        ingest_time,
        _minute("booked_minute"),
        pl.col("raw").alias("data"),
        entry_seq,
    ]


def _rejects(streams: Sequence[str]) -> list[pl.Expr]:
    return [
        *_position(streams),
        pl.col("reason"),
        pl.col("detail").fill_null(""),
        pl.col("raw").fill_null(b""),
        pl.col("counted").cast(pl.UInt8),
    ]


def _counts(streams: Sequence[str]) -> list[pl.Expr]:
    return [
        _stream(streams),
        pl.col("shard"),
        _minute("ingest_minute"),
        pl.col("outcome", "reason"),
        pl.col("events").cast(pl.UInt64),
    ]


def _exceptions(_streams: Sequence[str]) -> list[pl.Expr]:
    return [
        pl.col("kind", "identity", "tenant", "meter"),
        _minute("booked_minute"),
        pl.col("detail"),
        pl.col("events").cast(pl.UInt64),
    ]


def _facts(items: Sequence[Item], _streams: Sequence[str]) -> pa.Table:
    frame = items[0] if len(items) == 1 else pl.concat(items)
    table: pa.Table = frame.select(
        pl.col("tenant", "meter", "dimensions"),
        _minute("usage_minute"),
        _minute("booked_minute"),
        pl.col("value"),
        _micros("value_time_us", "value_time"),
        pl.col("events", "version", "sealed"),
    ).to_arrow()
    place = table.schema.get_field_index("dimensions")
    texts = table.column(place).combine_chunks()
    return table.set_column(place, "dimensions", dimensions_map(texts))


_RATED_TEXT: Final = ("customer", "contract", "entity", "plan")


def _rated(_streams: Sequence[str]) -> list[pl.Expr]:
    return [
        pl.col(*_RATED_TEXT, "plan_version", "charge", "price_row", "meter"),
        _micros("period_start_us", "period_start"),
        _hour("usage_hour"),
        _hour("booked_hour"),
        pl.col("accounting_period", "original_period", "line_kind", "quantity", "events"),
        pl.col("amount", "revenue_amount", "amount_before", "amount_after", "revenue_after"),
        pl.col("currency", "config_version", "status", "version", "tenant"),
    ]


def _document_row(document: StoredDocument) -> dict[str, Any]:
    header = orjson.loads(document.to_json())
    names = ("entity", "customer", "contract", "currency", "accounting_period", "kind", "status")
    return {
        "key": document.key,
        "digest": document.digest,
        **{name: header[name] for name in names},
        "booked_hour": header["booked_hour"] * _SECONDS_PER_HOUR,
        "total": Decimal(header["total"]),
        "lines": orjson.dumps(header["lines"]).decode(),
    }


_DOCUMENT_SCHEMA: Final[dict[str, pl.DataType | type[pl.DataType]]] = {
    **dict.fromkeys(("key", "digest", "entity", "customer", "contract", "currency"), pl.String),
    "booked_hour": pl.UInt32,
    "accounting_period": pl.String,
    "kind": pl.String,
    "total": pl.Decimal(38, 12),
    "lines": pl.String,
    "status": pl.String,
}


def _documents(items: Sequence[Item], _streams: Sequence[str]) -> pa.Table:
    frame = pl.DataFrame([_document_row(document) for document in items], schema=_DOCUMENT_SCHEMA)
    rows: pa.Table = frame.to_arrow()
    return rows


_POSITION: Final = ("entry_ms", "stream", "entry_seq", "entry_index")
_FACT: Final = ("usage_minute", "booked_minute", "value", "value_time_us", "events", "version", "sealed")

TABLES: Final[dict[str, TableSpec]] = {
    spec.name: spec
    for spec in (
        TableSpec(
            "usage_events",
            (*_POSITION, "tenant", "source", "id", "type", "event_time_us", "booked_minute", "raw"),
            _events,
            # No two rows of an insert share a position, so the server need not look for such before it stores them.
            {"optimize_on_insert": 0},
        ),
        TableSpec("usage_rejects", (*_POSITION, "reason", "detail", "raw", "counted"), _frames(_rejects)),
        TableSpec(
            "intake_counts",
            ("stream", "shard", "ingest_minute", "outcome", "reason", "events"),
            _frames(_counts),
        ),
        TableSpec("usage_facts", ("tenant", "meter", "dimensions", *_FACT), _facts),
        TableSpec(
            "rated_usage",
            (
                *_RATED_TEXT,
                *("plan_version", "charge", "price_row", "meter", "period_start_us", "usage_hour", "booked_hour"),
                *("accounting_period", "original_period", "line_kind", "quantity", "events", "amount"),
                *("revenue_amount", "amount_before", "amount_after", "revenue_after", "currency", "config_version"),
                *("status", "version", "tenant"),
            ),
            _frames(_rated),
        ),
        TableSpec(
            "exceptions",
            ("kind", "identity", "tenant", "meter", "booked_minute", "detail", "events"),
            _frames(_exceptions),
        ),
        TableSpec("financial_documents", (), _documents),
    )
}
