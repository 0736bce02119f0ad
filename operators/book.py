"""Books usage: merges partial sums into facts per series, usage minute and booked minute, and seals them."""

from collections.abc import Sequence
from typing import Any, Final

import polars as pl

from config.revision import History
from core.errors import InvariantViolation, StateMismatch
from core.frames import empty
from core.metrics import OPEN_FACTS, WATERMARK
from operators.book_facts import in_order, open_facts, sealed_facts
from operators.book_levels import LevelBook
from operators.book_limit import exceptions
from operators.book_merge import LEVEL, OPEN_SCHEMA, Aggregations
from operators.book_slots import OpenSlots
from operators.book_time import MS_PER_MINUTE, SealPoints
from operators.book_unique import Periods, UniqueSet
from operators.items import Exceptions, Facts, Marker, Partials
from operators.rate_terms import index_of

_VERSION: Final = 2
_MS_PER_SECOND: Final = 1000
MINUTES_PER_HOUR: Final = 60

Output = Facts | Exceptions | Marker


class BookLogic:
    """One tenant shard's open facts.

    A booked minute is open until the smallest watermark of all senders passes its seal point; then its facts leave
    once more, sealed, and it never opens again. Open facts leave as absolute values with a growing version (inputs
    applied) so that dashboards are fresh; they are provisional. Levels (`weighted_sum`) have no open facts.

    Guarantee: the sealed facts are a function of the set of events, whatever the order, batches, epochs and
    restarts. If the process dies here, state and exact set go back to the last durable snapshot together, and the
    epoch is replayed with the same result.
    Unit of parallelism: one tenant shard.
    """

    def __init__(
        self,
        shard_key: str,
        senders: Sequence[str],
        history: History,
        unique_log: UniqueSet,
        state: dict[str, Any] | None,
    ) -> None:
        """Start empty, or from `state`, which `snapshot` returned; `unique_log` must be resumed from the same one.

        Raises StateMismatch if the state was written by another release or for other senders.
        """
        self._shard_key = shard_key
        self._watermarks: dict[str, int | None] = dict.fromkeys(senders)
        self._history = history
        self._unique = unique_log
        self._points = SealPoints(history)
        self._periods = Periods(history)
        self._open = OpenSlots(Aggregations(history), self._series_max, self._periods)
        self._levels = LevelBook(history, self._pieces, state and state.get("levels"))
        self._border: int | None = None
        self._forwarded_ms: int | None = None
        self._heard: set[str] = set()
        self._snapshot_taken = False
        self._refreshed = False
        if state is not None:
            self._restore(state)

    def process(self, items: list[Partials | Marker]) -> list[Output]:
        """Take partial sums and markers; return sealed facts, open facts, exceptions and last the own marker.

        Within one call the order of the items does not matter: what a marker speaks for came before it, and what
        comes after it is booked in minutes that it does not seal.

        Raises InvariantViolation if something belongs to a sealed minute, or a marker to no known sender.
        """
        if self._snapshot_taken:
            self._unique.committed()
            self._snapshot_taken = self._refreshed = False
        for item in items:
            if isinstance(item, Partials):
                self._open.absorb(item.frame, self._border or 0)
            else:
                self._hear(item)
        watermark_ms = self._complete_tick()
        if watermark_ms is None:
            return []
        out = self._tick(watermark_ms)
        OPEN_FACTS.labels(self._shard_key).set(len(self._open))
        WATERMARK.labels("book").set(watermark_ms / _MS_PER_SECOND)
        return out

    def finish(self) -> list[Output]:
        """Return the open facts that wait for the next epoch: a drain that catches up would end without them.

        Their marker is sent again in any case, because rating waits until all shards have spoken.
        """
        if self._forwarded_ms is None:
            return []
        return [*self._refresh(self._forwarded_ms), Marker(self._shard_key, self._forwarded_ms)]

    def snapshot(self) -> dict[str, Any]:
        """Return the state as plain values; the exact set is made durable first."""
        self._snapshot_taken = True
        return {
            "version": _VERSION,
            "watermarks": dict(self._watermarks),
            "border": self._border,
            "forwarded_ms": self._forwarded_ms,
            "slots": self._open.encode(),
            "unique": self._unique.snapshot(),
            "levels": self._levels.snapshot(),
        }

    def _restore(self, state: dict[str, Any]) -> None:
        if state.get("version") != _VERSION:
            message = (
                f"book {self._shard_key}: state version {state.get('version')} is not {_VERSION}: "
                "run the release that wrote it, or make the state again with `meterbridge rebuild`"
            )
            raise StateMismatch(message)
        if state["watermarks"].keys() != self._watermarks.keys():
            message = (
                f"book {self._shard_key}: the state is for the senders {sorted(state['watermarks'])}, the settings "
                f"say {sorted(self._watermarks)}; the number of shards is fixed at `migrate`"
            )
            raise StateMismatch(message)
        self._watermarks = dict(state["watermarks"])
        self._border = state["border"]
        self._forwarded_ms = state["forwarded_ms"]
        self._open.restore(state["slots"])

    def _series_max(self, booked_minute: int) -> int:
        return self._history.at(booked_minute * MS_PER_MINUTE).rules.series_per_tenant_minute_max

    def _pieces(self, tenant: str, usage_hour: int, booked_minute: int) -> list[tuple[int, int]]:
        """Return the stretches of minutes of an hour in which the same terms hold, as rating will see them."""
        revision = self._history.at(booked_minute // MINUTES_PER_HOUR * MINUTES_PER_HOUR * MS_PER_MINUTE)
        return [(segment.begins, segment.ends) for segment in index_of(revision).segments(tenant, usage_hour)]

    def _hear(self, marker: Marker) -> None:
        if marker.sender not in self._watermarks:
            message = f"book {self._shard_key}: a marker of {marker.sender}, which is no sender of this deployment"
            raise InvariantViolation(message)
        # What was once claimed stays true, so a lower marker says nothing new.
        before_ms = self._watermarks[marker.sender]
        self._watermarks[marker.sender] = max(marker.watermark_ms, before_ms or 0)
        self._heard.add(marker.sender)

    def _complete_tick(self) -> int | None:
        """Return the smallest watermark if it advanced, or if every sender spoke since the last tick."""
        heard = [watermark_ms for watermark_ms in self._watermarks.values() if watermark_ms is not None]
        if not self._heard or len(heard) < len(self._watermarks):
            return None
        smallest_ms = min(heard)
        advanced = self._forwarded_ms is None or smallest_ms > self._forwarded_ms
        if not advanced and len(self._heard) < len(self._watermarks):
            return None
        self._heard.clear()
        self._forwarded_ms = smallest_ms
        return smallest_ms

    def _tick(self, watermark_ms: int) -> list[Output]:
        out: list[Output] = []
        problems: list[Output] = []
        border = self._points.border(watermark_ms)
        crossed = self._border is None or border > self._border
        if crossed:
            facts, problems = self._seal(border, watermark_ms)
            out.extend([Facts(facts)] if len(facts) else [])
        # While it catches up, many minutes seal in one epoch; dashboards need what is open only once.
        if not (crossed and self._refreshed):
            self._refreshed = True
            out.extend(self._refresh(watermark_ms))
        return [*out, *problems, Marker(self._shard_key, watermark_ms)]

    def _seal(self, border: int, watermark_ms: int) -> tuple[pl.DataFrame, list[Output]]:
        """Return the final facts of all minutes below the border, and what a person should look at."""
        first, self._border = self._border or 0, border
        rows = self._open.take(border, watermark_ms)
        rows = empty(OPEN_SCHEMA) if rows is None else rows
        is_level = pl.col("kind") == LEVEL
        merged = sealed_facts(rows.filter(~is_level), self._periods, self._unique)
        self._unique.expire(self._periods.horizon(border))
        levels = self._levels.seal(rows.filter(is_level), first, border)
        found = [exceptions(merged, self._series_max), levels.exceptions()]
        return in_order(merged, levels.facts()), [Exceptions(frame) for frame in found if len(frame)]

    def _refresh(self, watermark_ms: int) -> list[Output]:
        rows = self._open.rows(watermark_ms)
        if rows.is_empty():
            return []
        facts, marked = open_facts(rows, watermark_ms, self._periods, self._unique)
        if facts.is_empty():
            return []
        self._open.replace(marked, facts.get_column("booked_minute").unique().to_list())
        return [Facts(facts)]
