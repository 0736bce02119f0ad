"""The rows of booked minutes that are not sealed, and their bytes for the snapshot."""

from io import BytesIO
from typing import Final

import polars as pl

from core.errors import InvariantViolation
from core.frames import PARTIAL_SCHEMA, empty
from operators.book_limit import SeriesMax, fold
from operators.book_merge import OPEN_SCHEMA, UNIQUE, Aggregations, merge_into
from operators.book_unique import Periods, with_keys

_PENDING_ROWS_MIN: Final = 50_000
_STORED: Final = [name for name in OPEN_SCHEMA if name not in ("booked_minute", "key_hi", "key_lo")]


class OpenSlots:
    """Open rows, merged lazily: what came since the last merge waits in a list of frames.

    The list is merged before it outgrows what is merged already, so that memory stays within twice the number of
    open rows, and the cost per row within a constant.
    """

    def __init__(self, aggregations: Aggregations, series_max: SeriesMax, periods: Periods) -> None:
        self._aggregations = aggregations
        self._series_max = series_max
        self._periods = periods
        self._merged = empty(OPEN_SCHEMA)
        self._pending: list[pl.DataFrame] = []
        self._pending_rows = 0
        self._minutes: set[int] = set()
        self._bytes: dict[int, bytes] = {}
        """The encoded slots; a slot that changed since is missing here."""

    def __len__(self) -> int:
        return len(self._merged) + self._pending_rows

    def absorb(self, partials: pl.DataFrame, border: int) -> None:
        """Take partial results (PARTIAL_SCHEMA).

        Raises InvariantViolation if they belong to a minute below `border`, which is sealed, or to an unknown meter.
        """
        if partials.is_empty():
            return
        rows = partials.select(
            *PARTIAL_SCHEMA,
            self._aggregations.kinds().alias("kind"),
            pl.lit(0, dtype=pl.Int64).alias("emitted"),
            *(pl.lit(None, dtype=pl.UInt64).alias(name) for name in ("key_hi", "key_lo")),
        )
        _check(rows, border)
        minutes = rows.get_column("booked_minute").unique().to_list()
        self._minutes.update(minutes)
        self._changed(minutes)
        self._pending.append(rows)
        self._pending_rows += len(rows)
        if self._pending_rows > max(_PENDING_ROWS_MIN, len(self._merged)):
            self._merge_pending()

    def take(self, border: int, watermark_ms: int) -> pl.DataFrame | None:
        """Remove and return the merged rows of all minutes below `border`; None if there are none."""
        done = [minute for minute in self._minutes if minute < border]
        if not done:
            return None
        below = pl.col("booked_minute") < border
        taken = self._merged.filter(below)
        coming = [part for rows in self._pending if not (part := rows.filter(below)).is_empty()]
        if coming:  # of a minute that was handed on while open, few rows came since
            taken = merge_into(taken, coming)
        self._merged = self._merged.filter(~below)
        self._pending = [part for rows in self._pending if not (part := rows.filter(~below)).is_empty()]
        self._pending_rows = sum(map(len, self._pending))
        self._minutes.difference_update(done)
        self._changed(done)
        return fold(taken, self._series_max, watermark_ms)[0]

    def rows(self, watermark_ms: int) -> pl.DataFrame:
        """Return all open rows, merged, within the cardinality limit as far as it is decided, keys filled in."""
        self._merge_pending()
        self._merged, folded = fold(self._merged, self._series_max, watermark_ms)
        self._changed(folded)
        is_unique = pl.col("kind") == UNIQUE
        unique = self._merged.filter(is_unique & pl.col("key_hi").is_null())
        if not unique.is_empty():
            others = self._merged.filter(~is_unique | pl.col("key_hi").is_not_null())
            self._merged = pl.concat([others, with_keys(unique, self._periods)])
        return self._merged

    def replace(self, rows: pl.DataFrame, changed: list[int]) -> None:
        """Store what `rows` returned with other values; `changed` are the minutes that differ."""
        self._merged = rows
        self._changed(changed)

    def encode(self) -> dict[int, bytes]:
        """Return each slot's rows as Arrow IPC bytes; a slot that did not change has the same bytes object."""
        self._merge_pending()
        for minute in sorted(self._minutes - self._bytes.keys()):
            buffer = BytesIO()
            slot = self._merged.filter(pl.col("booked_minute") == minute).select(_STORED)
            slot.write_ipc(buffer, compression="zstd")
            self._bytes[minute] = buffer.getvalue()
        return dict(self._bytes)

    def restore(self, slots: dict[int, bytes]) -> None:
        """Take the slots of a snapshot."""
        frames = [empty(OPEN_SCHEMA)]
        for minute, data in sorted(slots.items()):
            rows = pl.read_ipc(BytesIO(data))
            known = {"booked_minute": minute, "key_hi": None, "key_lo": None}
            frames.append(
                rows.with_columns(
                    pl.lit(value, dtype=OPEN_SCHEMA[name]).alias(name) for name, value in known.items()
                ).select(*OPEN_SCHEMA)
            )
        self._merged = pl.concat(frames)
        self._minutes = set(slots)
        self._bytes = dict(slots)

    def _merge_pending(self) -> None:
        if self._pending:
            self._merged = merge_into(self._merged, self._pending)
            self._pending, self._pending_rows = [], 0

    def _changed(self, minutes: list[int]) -> None:
        for minute in minutes:
            self._bytes.pop(minute, None)


def _check(rows: pl.DataFrame, border: int) -> None:
    late = rows.filter(pl.col("booked_minute") < border)
    if not late.is_empty():
        row = late.row(0, named=True)
        message = (
            f"book: {late.get_column('inputs').sum()} events of booked minutes below {border}, which are sealed; the "
            f"first: minute {row['booked_minute']}, tenant {row['tenant']}, meter {row['meter']}, entry ms "
            f"{row['entry_ms']}. A watermark ran ahead of its data; do not delete state, keep the log and report this"
        )
        raise InvariantViolation(message)
    unknown = rows.filter(pl.col("kind").is_null())
    if not unknown.is_empty():
        message = (
            f"book: meter {unknown.item(0, 'meter')} is in no configuration revision; the flow was started with an "
            "older journal than the one its events were decoded with"
        )
        raise InvariantViolation(message)
