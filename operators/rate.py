"""Rate: from facts to rated rows, one shard of customers at a time (design 2.5)."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import polars as pl

from config.period_closes import ClosesAt, none_recorded
from config.revision import History
from core.errors import InvariantViolation, StateMismatch
from core.metrics import SEALED_HOUR
from core.quantities import exactly
from operators.book_time import SealPoints
from operators.items import Exceptions, Facts, Marker, RatedRows
from operators.rate_fold import FOLD_ROWS, SealedFacts
from operators.rate_hour import HourRater
from operators.rate_live import LiveRows
from operators.rate_resolve import SLICE_SCHEMA, slices
from operators.rate_routing import customer_shards
from operators.rate_terms import TermsIndex, index_of, moment

__all__ = ["RateLogic", "customer_shards"]

VERSION: Final = 3
_VERSIONS_READ: Final = (2, VERSION)
"""2 had no folded facts."""
_MS_PER_HOUR: Final = 3_600_000

Out = RatedRows | Exceptions | Marker


class RateLogic:
    """Rates each booked hour once it is sealed, and sends provisional rows until then.

    Hours in which something happens are rated in order: those with facts, those in which a billing period ends,
    and those in which a revision begins (it may price usage that had no price). Each under the revision known
    at the booked hour.

    Guarantee: sealed rows are a function of the sealed facts, the recorded revisions and period closes alone. If the
    process dies here, the epoch is replayed from the snapshot and gives the same rows.
    Unit of parallelism: one customer shard.
    """

    def __init__(
        self,
        shard_key: str,
        shard: int,
        shards: int,
        senders: Sequence[str],
        history: History,
        state: dict[str, Any] | None,
        closes_at: ClosesAt = none_recorded,
        *,
        fold_rows: int = FOLD_ROWS,
    ) -> None:
        if state is not None and state["version"] not in _VERSIONS_READ:
            message = (
                f"rate shard {shard_key}: state version {state['version']} is not {VERSION}: "
                "run the release that wrote it, or make the state again with `meterbridge rebuild`"
            )
            raise StateMismatch(message)
        state = state or {}
        self._key = shard_key
        self._history = history
        self._closes_at = closes_at
        self._seals = SealPoints(history)
        watermarks = state.get("watermarks", {})
        self._watermarks: dict[str, int | None] = {sender: watermarks.get(sender) for sender in senders}
        self._last_hour: int | None = state.get("last_hour")
        self._first_hour: int | None = state.get("first_hour")
        self._sealed = SealedFacts(shards, state, fold_rows)
        self._rater = HourRater(shard, shards, state.get("rater"))
        self._live = LiveRows(shard, shards)
        self._starts = [-(-revision.known_from_ms // _MS_PER_HOUR) for revision in history.revisions[1:]]
        self._load(self._index(0 if self._last_hour is None else self._last_hour))

    @exactly
    def process(self, items: list[Facts | Marker]) -> list[Out]:
        """Take facts and markers, and return rated rows, exceptions and, behind them, the marker."""
        marked = False
        for item in items:
            if isinstance(item, Marker):
                self._advance(item)
                marked = True
            else:
                self._take(item.frame)
        watermark_ms = self._watermark_ms()
        if not marked or watermark_ms is None:
            return []
        out = self._seal(watermark_ms)
        SEALED_HOUR.labels(self._key).set(self._sealed_until_s(watermark_ms))
        # A round that sealed an hour is late already, and may be one of many while catching up.
        if not out and self._live.is_due(watermark_ms):
            # The watermark's hour has begun, so whatever is known at it is recorded by now.
            closes = self._closes_at(watermark_ms // _MS_PER_HOUR)
            rows = self._live.rows(watermark_ms, self._sealed, self._rater.chains.peek, self._index, closes)
            if len(rows):
                out.append(RatedRows(rows, 0))
        return [*out, Marker(self._key, watermark_ms)]

    def snapshot(self) -> dict[str, Any]:
        """Return the state as plain versioned values."""
        known = {sender: value for sender, value in self._watermarks.items() if value is not None}
        return {
            "version": VERSION,
            "watermarks": known,
            "last_hour": self._last_hour,
            "first_hour": self._first_hour,
            **self._sealed.snapshot(),
            "rater": self._rater.snapshot(),
        }

    def _advance(self, marker: Marker) -> None:
        if marker.sender not in self._watermarks:
            message = f"rate shard {self._key}: marker from unknown sender {marker.sender}: check the shard settings"
            raise InvariantViolation(message)
        known = self._watermarks[marker.sender]
        self._watermarks[marker.sender] = marker.watermark_ms if known is None else max(known, marker.watermark_ms)

    def _watermark_ms(self) -> int | None:
        values = [value for value in self._watermarks.values() if value is not None]
        return min(values) if len(values) == len(self._watermarks) else None

    def _take(self, facts: pl.DataFrame) -> None:
        sealed = facts.filter(pl.col("sealed") == 1)
        if len(sealed) < len(facts):
            self._live.add(facts.filter(pl.col("sealed") == 0))
        if sealed.is_empty():
            return
        for (hour,), part in slices(sealed).group_by(pl.col("booked_minute") // 60):
            if self._last_hour is not None and int(str(hour)) <= self._last_hour:
                message = f"rate shard {self._key}: sealed facts of booked hour {hour} came after it was rated"
                raise InvariantViolation(message)
            self._sealed.add(int(str(hour)), part, self._index(int(str(hour))))
            self._live.seal(int(str(hour)), part)

    def _seal(self, watermark_ms: int) -> list[Out]:
        out: list[Out] = []
        while True:
            hour = self._next_hour()
            if hour is None:
                return out
            point_ms = self._seals.point_ms(hour * 60 + 59)
            if watermark_ms < point_ms:
                return out
            rows, exceptions = self._rate(hour)
            if len(rows):
                out.append(RatedRows(rows, point_ms))
            if len(exceptions):
                out.append(Exceptions(exceptions))

    def _sealed_until_s(self, watermark_ms: int) -> int:
        """Return when the newest sealed hour ends, as Unix time; hours without usage are sealed as well."""
        hour = watermark_ms // _MS_PER_HOUR
        while hour and self._seals.point_ms(hour * 60 - 1) > watermark_ms:
            hour -= 1
        return hour * 3600

    def _next_hour(self) -> int | None:
        last = self._last_hour
        begins = next((start for start in self._starts if last is None or start > last), None)
        hours = (self._sealed.first_hour(), self._rater.period_ends.next_hour(), begins)
        return min((hour for hour in hours if hour is not None), default=None)

    def _rate(self, hour: int) -> tuple[pl.DataFrame, pl.DataFrame]:
        index = self._index(hour)
        frames = self._sealed.take(hour)
        before = index if self._last_hour is None else self._index(self._last_hour)
        changed = self._last_hour is None or before is not index
        if self._first_hour is None and frames:
            self._first_hour = hour
            changed = True
        if changed:
            self._load(index)
        self._last_hour = hour
        self._live.forget(hour)
        facts = pl.concat(frames) if frames else pl.DataFrame(schema=SLICE_SCHEMA)
        return self._rater.rate(hour, facts, index, before if changed else None, self._closes_at(hour))

    def _index(self, hour: int) -> TermsIndex:
        return index_of(self._history.at(hour * _MS_PER_HOUR))

    def _load(self, index: TermsIndex) -> None:
        self._rater.period_ends.load(index, self._open_from(index))

    def _open_from(self, index: TermsIndex) -> datetime | None:
        opened = index.revision.rules.books_open_at
        if opened is None and self._first_hour is not None:
            return moment(self._first_hour * 60)
        return opened
