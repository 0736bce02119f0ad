"""Intake counts of one shard: absolute events per stream, arrival minute, outcome and reason.

A count goes out whenever it changed and a marker comes, as an absolute value that replaces the former one. Once
the watermark is past a minute its counts cannot change, so after going out they are forgotten.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from core.errors import InvariantViolation
from core.frames import COUNT_SCHEMA
from core.metrics import EVENTS
from core.reasons import REASONS, UNMETERED
from operators.dedupe_decide import ACCEPTED, ALREADY_VOIDED, CONFLICT, DUPLICATE, UNMATCHED_VOID

MS_PER_MINUTE: Final = 60_000
OPEN_COUNTS_MAX: Final = 1_000_000
_UNMETERED_CODE: Final = 5
NAMES: Final = {
    ACCEPTED: ("accepted", ""),
    DUPLICATE: ("duplicate", ""),
    CONFLICT: ("conflicting_duplicate", "conflicting_duplicate"),
    UNMATCHED_VOID: ("rejected", "unmatched_void"),
    ALREADY_VOIDED: ("rejected", "already_voided"),
    _UNMETERED_CODE: ("accepted", UNMETERED),
}

# A counter that is born at 1 shows no increase: its first conflict would alarm nobody.
for _labels in {*NAMES.values(), *(("rejected", _reason) for _reason in REASONS if _reason != NAMES[CONFLICT][1])}:
    EVENTS.labels(*_labels)

Key = tuple[int, int, str, str]
"""(stream, arrival minute, outcome, reason)."""


class IntakeCounts:
    """Counts of the minutes that the watermark has not passed."""

    def __init__(self, shard_key: str, state: dict[str, Any] | None) -> None:
        self._shard_key = shard_key
        self._events: dict[Key, int] = {}
        self._changed: set[Key] = set()
        self._passed_before = 0
        if state is not None:
            self._passed_before = state["passed_before"]
            for stream, minute, outcome, reason, events, changed in state["events"]:
                key = (stream, minute, outcome, reason)
                self._events[key] = events
                if changed:
                    self._changed.add(key)

    def snapshot(self) -> dict[str, Any]:
        """Return the counts as plain values."""
        rows = [(*key, events, key in self._changed) for key, events in sorted(self._events.items())]
        return {"passed_before": self._passed_before, "events": rows}

    def add_decided(
        self,
        stream: npt.NDArray[np.uint16],
        entry_ms: npt.NDArray[np.int64],
        outcome: npt.NDArray[np.uint8],
        unmetered: npt.NDArray[np.bool_],
    ) -> None:
        """Count decided events; `unmetered` says of each accepted one whether no meter uses its type."""
        code = np.where((outcome == ACCEPTED) & unmetered, _UNMETERED_CODE, outcome).astype(np.int64)
        packed = (entry_ms // MS_PER_MINUTE << 20) | (stream.astype(np.int64) << 4) | code
        values, counts = np.unique(packed, return_counts=True)
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            self._add((value >> 4 & 0xFFFF, value >> 20, *NAMES[value & 0xF]), count)

    def add_rejects(self, rejects: pl.DataFrame) -> None:
        """Count decode's rejects (REJECT_SCHEMA, counted rows only)."""
        if rejects.is_empty():
            return
        minute = pl.col("entry_ms") // MS_PER_MINUTE
        groups = rejects.group_by("stream", minute.alias("minute"), "reason").len()
        for stream, at, reason, events in groups.iter_rows():
            self._add((stream, at, "rejected", reason), events)

    def _add(self, key: Key, events: int) -> None:
        if key[1] < self._passed_before:
            message = (
                f"shard {self._shard_key}: an event of stream {key[0]} arrived in minute {key[1]}, which the "
                f"watermark passed at {self._passed_before}: the stream went backward"
            )
            raise InvariantViolation(message)
        self._events[key] = self._events.get(key, 0) + events
        self._changed.add(key)
        EVENTS.labels(key[2], key[3]).inc(events)
        if len(self._events) > OPEN_COUNTS_MAX:
            message = (
                f"shard {self._shard_key}: more than {OPEN_COUNTS_MAX} counts wait for the watermark: one reader is "
                "far behind the others; let it catch up"
            )
            raise InvariantViolation(message)

    def emit(self, watermark_ms: int) -> pl.DataFrame:
        """Return the counts that changed (COUNT_SCHEMA), and forget minutes wholly below the watermark."""
        rows = [(key[0], self._shard_key, key[1], key[2], key[3], self._events[key]) for key in sorted(self._changed)]
        self._changed.clear()
        passed_before = watermark_ms // MS_PER_MINUTE
        if passed_before > self._passed_before:
            self._passed_before = passed_before
            self._events = {key: events for key, events in self._events.items() if key[1] >= passed_before}
        return pl.DataFrame(rows, schema=COUNT_SCHEMA, orient="row")
