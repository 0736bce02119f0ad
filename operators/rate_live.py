"""Provisional rows: what the open hours come to so far, for the live spend dashboard.

They are outside the promise of determinism: open facts are not in the snapshot, and after a restart the rows
come back as facts change or seal. A sealed row of the same identity replaces them.
"""

from collections.abc import Callable
from typing import Final

import polars as pl

from config.period_closes import NONE_RECORDED, PeriodCloses
from core.frames import FACT_KEY, FACT_SCHEMA, RATED_SCHEMA
from operators.rate_chains import Chain, ChainKey, rate_usage
from operators.rate_fold import SealedFacts
from operators.rate_live_sealed import SealedTouches, add_to, with_kind
from operators.rate_recognition import recognise, recognition_of
from operators.rate_resolve import resolve, slices
from operators.rate_rows import PROVISIONAL, Rows
from operators.rate_terms import TermsIndex, microseconds
from operators.rate_touches import BookedAt, touched

INTERVAL_MS: Final = 5000
"""The watermark advances at least this much between two rounds of provisional rows."""
INTERVAL_MS_PER_ROW: Final = 1
"""And this much more per open row: a round costs about 30 microseconds a row."""
_PARTS_MAX: Final = 32
_IDENTITY: Final = (
    "customer",
    "contract",
    "plan",
    "plan_version",
    "charge",
    "price_row",
    "period_start_us",
    "usage_hour",
    "booked_hour",
    "accounting_period",
    "line_kind",
)


class LiveRows:
    """Open facts of one shard, what the sealed ones come to, and the versions of the provisional rows sent for them."""

    def __init__(self, shard: int, shards: int) -> None:
        self._shard = shard
        self._shards = shards
        self._open: list[pl.DataFrame] = []
        self._ended: list[pl.DataFrame] = []
        """Keys that were sealed since the last round; open facts of these are over."""
        self._sealed = SealedTouches(shard, shards)
        self._sent = pl.DataFrame(schema={name: RATED_SCHEMA[name] for name in (*_IDENTITY, "version")})
        self._next_ms: int | None = None

    def add(self, facts: pl.DataFrame) -> None:
        """Take open facts; the highest version of a fact is its latest value."""
        self._open.append(facts)
        if len(self._open) > _PARTS_MAX:
            self._open = [_newest(self._open)]

    def seal(self, hour: int, part: pl.DataFrame) -> None:
        """Take sealed slices of a booked hour, which end the open facts of the same keys."""
        self._sealed.add(hour, part)
        if self._open:  # what is sealed never comes open again
            self._ended.append(part.select(list(FACT_KEY)))
        if len(self._ended) > _PARTS_MAX:
            self._end()

    def forget(self, hour: int) -> None:
        """Drop what belongs to booked hours up to that one: they are sealed."""
        self._sealed.forget(hour)
        later = pl.col("booked_minute") // 60 > hour
        self._open = [part for part in (part.filter(later) for part in self._open) if len(part)]
        self._ended = [part for part in (part.filter(later) for part in self._ended) if len(part)]
        self._sent = self._sent.filter(pl.col("booked_hour") > hour)

    def is_due(self, watermark_ms: int) -> bool:
        """Return whether the watermark has advanced enough for another round."""
        return self._next_ms is None or watermark_ms >= self._next_ms

    def rows(
        self,
        watermark_ms: int,
        sealed: SealedFacts,
        peek: Callable[[ChainKey], Chain | None],
        index_at: Callable[[int], TermsIndex],
        closes: PeriodCloses = NONE_RECORDED,
    ) -> pl.DataFrame:
        """Return the provisional rows that changed since the last round.

        `closes` decide their accounting period, as they will for the sealed rows that replace them.
        """
        self._next_ms = watermark_ms + INTERVAL_MS
        self._end()
        facts = self._open[0] if self._open else pl.DataFrame(schema=FACT_SCHEMA)
        hours = set(sealed.hours()) | set((facts.get_column("booked_minute") // 60).unique().to_list())
        for hour in hours:
            self._sealed.update(hour, sealed, index_at(hour), closes)
        overlay: dict[ChainKey, Chain] = {}
        frames = [self._hour(hour, facts, overlay, peek, index_at(hour), closes) for hour in sorted(hours)]
        frames = [frame for frame in frames if len(frame)]
        if not frames:
            return pl.DataFrame(schema=RATED_SCHEMA)
        rows = pl.concat(frames)
        self._next_ms += len(rows) * INTERVAL_MS_PER_ROW
        changed = rows.join(self._sent, on=[*_IDENTITY, "version"], how="anti")
        self._sent = rows.select(*_IDENTITY, "version")
        return changed

    def _end(self) -> None:
        """Keep the latest value of each open fact that was not sealed meanwhile."""
        if not self._open:
            return
        facts = _newest(self._open)
        if self._ended:
            facts = facts.join(pl.concat(self._ended), on=list(FACT_KEY), how="anti")
        self._open, self._ended = [facts] if len(facts) else [], []

    def _hour(
        self,
        hour: int,
        facts: pl.DataFrame,
        overlay: dict[ChainKey, Chain],
        peek: Callable[[ChainKey], Chain | None],
        index: TermsIndex,
        closes: PeriodCloses,
    ) -> pl.DataFrame:
        touches, merging = self._sealed.of(hour)
        still_open = slices(facts.filter(pl.col("booked_minute") // 60 == hour))
        revision = index.revision
        rows = Rows(hour, revision.version, PROVISIONAL)
        resolved = resolve(with_kind(pl.concat([*merging, still_open]), hour), index, self._shards)
        add_to(touches, touched(resolved, revision, self._shard, hour, closes))
        for key, target in sorted(touches.items(), key=lambda item: item[0]):
            chain = overlay.get(key)
            if chain is None:
                found = peek(key)
                end_us = microseconds(target.terms.period_end)
                chain = overlay[key] = found.copy() if found else Chain(period_end_us=end_us)
            steps = rate_usage(chain, target.charge, target.in_order(), hour, target.merge, final=False)
            timeline = index.timelines[target.terms.customer, target.terms.contract.id]
            recognition = recognition_of(timeline, target.terms, target.charge, BookedAt(hour))
            for step in recognise(chain, steps, recognition):
                rows.add(key, target.terms.entity.id, target.charge.meter, target.terms.currency, step)
        return rows.frame()


def _newest(parts: list[pl.DataFrame]) -> pl.DataFrame:
    return pl.concat(parts).sort("version").unique(subset=list(FACT_KEY), keep="last", maintain_order=True)
