"""The sealed facts of booked hours that are not rated yet, folded to one slice per series where that changes nothing.

Rating adds up what a series has in one usage hour, so slices that have the same terms over a stretch of minutes may
stand as one. Memory and snapshots grow with the series of an hour then, not with its facts.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Final

import polars as pl

from operators.rate_resolve import SLICE_SCHEMA, resolve
from operators.rate_store import FrameStore
from operators.rate_terms import TermsIndex
from operators.rate_touches import merge_of, merging_meters

FOLD_ROWS: Final = 20_000
"""An hour is folded whenever it has this many slices that were not: below that it is not worth the look-up."""

_KEY: Final = ("tenant", "meter", "dimensions", "usage_minute", "kind")
_WINS: Final = {
    "max": (["value"], True),
    "min": (["value"], False),
    "latest": (["value_time_us", "booked_minute"], True),
}
"""How slices of a meter whose values do not add up are sorted so that the one that counts comes first."""


def fold(frame: pl.DataFrame, index: TermsIndex, shards: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return slices of one booked hour (SLICE_SCHEMA) in two parts: those with a price, folded, and the others.

    A folded slice is at the first minute of the stretch in which the terms of its series stay the same, so it finds
    the same terms and prices under the same index, and folded slices can be folded with others by their key alone.
    Usage without a price is left as it is, since a later revision may divide the hour elsewhere. Usage of meters that
    no plan prices is in neither part: rating leaves it out.
    """
    numbered = frame.with_row_index("row")
    resolved = resolve(numbered, index, shards)
    priced = resolved.priced.unique("row").with_columns(pl.col("begins").alias("usage_minute"))
    return together([priced.select(list(SLICE_SCHEMA))], index), resolved.unpriced.select(list(SLICE_SCHEMA))


def together(frames: Sequence[pl.DataFrame], index: TermsIndex) -> pl.DataFrame:
    """Return the slices with one row per series, minute and kind; booked hour and terms must be the same for a minute.

    Numbers of events and versions add up, and so do values; of a meter whose values do not, the one that counts stays.
    """
    frame = pl.concat(frames)
    merging = merging_meters(index.revision)
    sums = [pl.col("events").sum(), pl.col("version").sum()]
    one = [pl.col("booked_minute").min(), pl.col("value").sum(), pl.col("value_time_us").max()]
    folded = [frame.filter(~pl.col("meter").is_in(merging)).group_by(_KEY).agg(*one, *sums)]
    for meter in merging:
        by, descending = _WINS[merge_of(index.revision, meter)]
        part = frame.filter(pl.col("meter") == meter).sort(by, descending=descending)
        firsts = [pl.col(name).first() for name in ("booked_minute", "value", "value_time_us")]
        folded.append(part.group_by(_KEY, maintain_order=True).agg(*firsts, *sums))
    return pl.concat([part.select(list(SLICE_SCHEMA)) for part in folded])


class SealedFacts:
    """Sealed slices by booked hour, until the hour is rated: as they came, folded, or found to have no price."""

    def __init__(self, shards: int, state: dict[str, Any], fold_rows: int) -> None:
        self._shards = shards
        self._fold_rows = fold_rows
        self._as_sealed = FrameStore(state.get("sealed"))
        self._folded = FrameStore(state.get("folded"))
        self._unpriced = FrameStore(state.get("unpriced"))

    def snapshot(self) -> dict[str, Any]:
        """Return the state as plain values."""
        return {
            "sealed": self._as_sealed.snapshot(),
            "folded": self._folded.snapshot(),
            "unpriced": self._unpriced.snapshot(),
        }

    def add(self, hour: int, part: pl.DataFrame, index: TermsIndex) -> None:
        """Add slices of that booked hour, which is rated under that index."""
        self._as_sealed.add(hour, part)
        if self._as_sealed.count(hour) < self._fold_rows:
            return
        folded, unpriced = fold(pl.concat(self._as_sealed.take(hour)), index, self._shards)
        self._as_sealed.add(hour, part.clear())  # the hour has facts, and is rated
        if len(folded):
            self._folded.add(hour, folded, partial(together, index=index))
        if len(unpriced):
            self._unpriced.add(hour, unpriced)

    def hours(self) -> Iterator[int]:
        """Return the booked hours that have facts, ascending."""
        return self._as_sealed.hours()

    def first_hour(self) -> int | None:
        """Return the earliest booked hour that has facts."""
        return self._as_sealed.first_hour()

    def rows(self, hour: int) -> list[pl.DataFrame]:
        """Return the slices of that hour."""
        return [frame for store in self._stores() for frame in store.rows(hour)]

    def take(self, hour: int) -> list[pl.DataFrame]:
        """Remove and return the slices of that hour."""
        return [frame for store in self._stores() for frame in store.take(hour)]

    def _stores(self) -> tuple[FrameStore, ...]:
        return self._as_sealed, self._folded, self._unpriced
