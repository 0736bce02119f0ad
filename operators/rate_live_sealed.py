"""Sealed facts of hours that are still open, resolved and added up once instead of in every provisional round."""

from dataclasses import dataclass, field
from typing import Final

import polars as pl

from config.period_closes import PeriodCloses
from operators.rate_chains import ChainKey
from operators.rate_fold import SealedFacts, fold
from operators.rate_resolve import LATE, SLICE_SCHEMA, USAGE, resolve
from operators.rate_terms import TermsIndex
from operators.rate_touches import Touched, merging_meters, touched

_NEW_PARTS_MAX: Final = 64
"""More than this between two rounds, as while catching up, and the hour is added up anew by the next round."""


@dataclass(slots=True)
class _Hour:
    """What is added up of one booked hour, and under which closes."""

    closes: PeriodCloses
    touches: dict[ChainKey, Touched] = field(default_factory=dict)
    merging: list[pl.DataFrame] = field(default_factory=list)
    """Slices of meters whose values do not add up, folded; they are resolved again in every round."""


class SealedTouches:
    """What sealed facts come to, by booked hour; kept up to date by what is new. Not in the snapshot."""

    def __init__(self, shard: int, shards: int) -> None:
        self._shard, self._shards = shard, shards
        self._hours: dict[int, _Hour] = {}
        self._new: dict[int, list[pl.DataFrame]] = {}

    def add(self, hour: int, part: pl.DataFrame) -> None:
        """Note newly sealed slices (SLICE_SCHEMA) of a booked hour; they are in the store as well, perhaps folded."""
        if hour not in self._hours:
            return  # the whole hour is taken from the store when it is asked for
        parts = self._new.setdefault(hour, [])
        parts.append(part)
        if len(parts) > _NEW_PARTS_MAX:
            del self._hours[hour], self._new[hour]

    def forget(self, hour: int) -> None:
        """Drop booked hours up to that one."""
        for known in [one for one in self._hours if one <= hour]:
            del self._hours[known]
            self._new.pop(known, None)

    def update(self, hour: int, stored: SealedFacts, index: TermsIndex, closes: PeriodCloses) -> None:
        """Add up what is new of an hour."""
        found = self._hours.get(hour)
        parts = self._new.pop(hour, [])
        if found is None or found.closes != closes:
            found = self._hours[hour] = _Hour(closes)
            parts = stored.rows(hour)
        if parts:
            self._add(found, hour, pl.concat(parts), index)

    def _add(self, found: _Hour, hour: int, frame: pl.DataFrame, index: TermsIndex) -> None:
        merges = pl.col("meter").is_in(merging_meters(index.revision))
        kept = frame.filter(merges)
        if len(kept):
            found.merging = [pl.concat(fold(pl.concat([*found.merging, kept]), index, self._shards))]
        resolved = resolve(with_kind(frame.filter(~merges), hour), index, self._shards)
        add_to(found.touches, touched(resolved, index.revision, self._shard, hour, found.closes))

    def of(self, hour: int) -> tuple[dict[ChainKey, Touched], list[pl.DataFrame]]:
        """Return copies of the touches added up, which the caller may change, and the slices that do not add up."""
        found = self._hours[hour]
        touches = {
            key: Touched(one.terms, one.charge, one.merge, dict(one.by_place)) for key, one in found.touches.items()
        }
        return touches, found.merging


def add_to(touches: dict[ChainKey, Touched], more: list[tuple[ChainKey, Touched]]) -> None:
    """Add touches to those of the same chains."""
    for key, target in more:
        known = touches.get(key)
        if known is None:
            touches[key] = target
            continue
        for touch in target.in_order():
            known.add(touch)


def with_kind(frame: pl.DataFrame, hour: int) -> pl.DataFrame:
    """Return slices with the kind they have in provisional rows: late or not."""
    late = pl.when(pl.col("usage_minute") // 60 < hour).then(LATE).otherwise(USAGE).cast(pl.UInt8)
    return frame.with_columns(late.alias("kind")).select(list(SLICE_SCHEMA))
