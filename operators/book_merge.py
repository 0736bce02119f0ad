"""Merges partial results of the same series and minutes by their meter's own function.

Exact and independent of order and grouping: merging in any steps gives the same rows.
"""

from decimal import Decimal
from typing import Final

import polars as pl

from config.meters import Aggregation
from config.revision import History
from core.errors import InvariantViolation
from core.frames import FACT_KEY, PARTIAL_SCHEMA, POSITION, SCALE
from operators.book_time import MS_PER_MINUTE

ADD, MAX, MIN, LATEST, UNIQUE, LEVEL = 0, 1, 2, 3, 4, 5
"""How values merge; level changes do not, each stays a row. The numbers are stored in snapshots: never renumber."""

KINDS: Final[dict[Aggregation, int]] = {
    "count": ADD,
    "sum": ADD,
    "max": MAX,
    "min": MIN,
    "latest": LATEST,
    "unique_count": UNIQUE,
    "weighted_sum": LEVEL,
}

OPEN_SCHEMA: Final = PARTIAL_SCHEMA | {
    "kind": pl.UInt8,
    "emitted": pl.Int64,  # `inputs` when the fact was last handed on; 0: never
    "key_hi": pl.UInt64,  # unique_count: digest in the exact set; null: not computed yet
    "key_lo": pl.UInt64,
}
"""Rows of minutes that are not sealed: partial results with what book knows about them."""

_UNIQUE: Final = ("unique_hi", "unique_lo")
_KEY: Final = [*FACT_KEY, *_UNIQUE]
_VALUES: Final = {
    ADD: pl.col("value").sum(),
    MAX: pl.col("value").max(),
    MIN: pl.col("value").min(),
    LATEST: pl.col("value").first(),
    UNIQUE: pl.col("value").first(),
}
_WINNER: Final = ("value_time_us", "winner_ms", "winner_stream", "winner_seq", "winner_index")
_TOUCHED_SHARE: Final = 4
"""Merging fewer rows than one in so many by looking up those they touch is faster than merging all."""
_UNSCALED_MAX: Final = 10**38 - 1
"""The greatest value of Decimal(38, 12), as an integer scaled by 10^12."""


class Aggregations:
    """Knows how each meter's values merge.

    A meter keeps its aggregation for life. Should a revision change it all the same, a booked minute uses the
    one known at its beginning (or the first one, in minutes before the meter was known).
    """

    def __init__(self, history: History) -> None:
        spans: dict[str, list[tuple[int, int]]] = {}
        for revision in history.revisions:
            for meter in revision.meters.values():
                kind = KINDS[meter.aggregation]
                known = spans.setdefault(meter.id, [])
                if not known or known[-1][1] != kind:
                    known.append((revision.known_from_ms, kind))
        self._first = {meter: known[0][1] for meter, known in spans.items()}
        self._changes = [(meter, *change) for meter, known in spans.items() for change in known[1:]]

    def kinds(self) -> pl.Expr:
        """Return the kind of each row from `meter` and `booked_minute`; null for a meter no revision has."""
        kind = pl.col("meter").replace_strict(self._first, default=None, return_dtype=pl.UInt8)
        for meter, from_ms, changed in self._changes:
            applies = (pl.col("meter") == meter) & (pl.col("booked_minute") * MS_PER_MINUTE >= from_ms)
            kind = pl.when(applies).then(pl.lit(changed, dtype=pl.UInt8)).otherwise(kind)
        return kind


def merge(rows: pl.DataFrame) -> pl.DataFrame:
    """Return `rows` (OPEN_SCHEMA) with one row per fact key and counted value, or level change.

    Raises InvariantViolation if a sum leaves Decimal(38, 12): the engine under polars would wrap it silently.
    """
    kinds = rows.get_column("kind").unique().to_list()
    if len(kinds) <= 1:
        return _merge_kind(rows, kinds[0]) if kinds else rows
    return pl.concat(_merge_kind(rows.filter(pl.col("kind") == kind), kind) for kind in sorted(kinds))


def merge_into(merged: pl.DataFrame, pending: list[pl.DataFrame]) -> pl.DataFrame:
    """Return what `merge` returns for all of them; `merged` is merged already, and left alone where nothing came."""
    coming = pl.concat(pending)
    if len(coming) * _TOUCHED_SHARE > len(merged):
        return merge(pl.concat([merged, coming]))
    touched = merged.join(coming, on=_KEY, how="semi")
    untouched = merged.join(coming, on=_KEY, how="anti")
    return pl.concat([untouched, merge(pl.concat([touched, coming]))], rechunk=True)


def _merge_kind(rows: pl.DataFrame, kind: int) -> pl.DataFrame:
    if kind == LEVEL:
        return rows
    if kind == ADD:
        _check_sums(rows)
    key = _KEY if kind == UNIQUE else FACT_KEY
    # Sorted, because `min` of a struct of the four columns is null in a group-by.
    grouped = (
        rows.sort(POSITION)
        .group_by(key)
        .agg(
            _VALUES[kind],
            *(pl.col(name).first() for name in (*POSITION, *_WINNER)),
            *(pl.col(name).first() for name in _UNIQUE if kind != UNIQUE),
            pl.col("events", "inputs", "emitted").sum(),
            pl.col("key_hi", "key_lo").max(),
            pl.lit(kind, dtype=pl.UInt8).alias("kind"),
        )
    )
    if kind == LATEST:
        winners = rows.sort(_WINNER).group_by(key).agg(pl.col("value", *_WINNER).last())
        grouped = grouped.drop("value", *_WINNER).join(winners, on=key, validate="1:1")
    return grouped.select(*OPEN_SCHEMA)


def _check_sums(rows: pl.DataFrame) -> None:
    """Refuse sums beyond the type: by a bound that is nearly always enough, else exactly."""
    largest = rows.select(pl.col("value").abs().max()).item()
    if largest is None or _unscaled(largest) * len(rows) <= _UNSCALED_MAX:
        return
    sums: dict[tuple[object, ...], int] = {}
    for *key, value in rows.select(*FACT_KEY, "value").iter_rows():
        sums[tuple(key)] = sums.get(tuple(key), 0) + _unscaled(value)
    # A sum that leaves the type on its way only is right again at its end.
    for (meter, _, _, _, booked_minute), total in sums.items():
        if abs(total) > _UNSCALED_MAX:
            message = (
                f"book: the sum of meter {meter} exceeds 10^{38 - SCALE} in booked minute {booked_minute}; "
                "look for a producer that sends absurd quantities, and use a larger unit for the meter"
            )
            raise InvariantViolation(message)


def _unscaled(value: Decimal) -> int:
    """Return the value as an integer scaled by 10^12, exactly."""
    sign, digits, exponent = value.as_tuple()
    number = int("".join(map(str, digits))) * int(10 ** (SCALE + int(exponent)))
    return -number if sign else number
