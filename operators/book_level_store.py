"""The level changes that may still matter, by series; and their bytes for the snapshot, by day of the change."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence
from io import BytesIO
from typing import Final

import polars as pl

from operators.book_integral import Change, time_of
from operators.book_limit import OVERFLOW
from operators.book_time import US_PER_MINUTE

US_PER_DAY: Final = 1440 * US_PER_MINUTE
_MASK: Final = (1 << 64) - 1

Group = tuple[str, str]
"""Meter and tenant."""
Series = tuple[str, str, str]
"""Meter, tenant and dimensions."""

_SCHEMA: Final = {
    "meter": pl.String,
    "tenant": pl.String,
    "dimensions": pl.String,
    "time_us": pl.Int64,
    "entry_ms": pl.Int64,
    "stream": pl.UInt16,
    "entry_seq": pl.Int64,
    "entry_index": pl.Int32,
    "level_hi": pl.Int64,
    "level_lo": pl.UInt64,
    "identity_hi": pl.UInt64,
    "identity_lo": pl.UInt64,
    "is_settled": pl.Boolean,
}


class LevelStore:
    """Changes per series, in order. Every call keeps track of the days whose bytes it makes stale.

    Most changes happen today, so an epoch encodes today's again and hands out the others' bytes as they are.
    """

    def __init__(self, days: dict[int, bytes] | None = None) -> None:
        self.groups: dict[Group, dict[str, list[Change]]] = {}
        """Read only; a series that is listed has at least one change."""
        self._counts: dict[Group, int] = {}
        self._bytes: dict[int, bytes] = dict(days or {})
        self._days: dict[int, set[Series]] = {}
        """Series that had a change on a day when it was last looked at; a bound, not the truth."""
        for data in self._bytes.values():
            self._load(data)
        for group in self.groups.values():
            for changes in group.values():
                changes.sort()

    def __len__(self) -> int:
        """Return the number of changes kept."""
        return sum(self._counts.values())

    def count(self, group: Group) -> int:
        """Return the number of changes kept of that meter and tenant."""
        return self._counts.get(group, 0)

    def changes(self, series: Series) -> Sequence[Change]:
        """Return the changes of a series, in order; a view that later calls may change."""
        return self.groups.get(series[:2], {}).get(series[2], ())

    def add(self, series: Series, change: Change) -> None:
        """Add a change at its place."""
        insort(self.groups.setdefault(series[:2], {}).setdefault(series[2], []), change)
        self._counts[series[:2]] = self.count(series[:2]) + 1
        self._note(series, change)

    def remove(self, series: Series, change: Change) -> None:
        """Remove a change, and the series with its last one."""
        changes = self.groups[series[:2]][series[2]]
        del changes[bisect_left(changes, change)]
        self._removed(series, [change], is_empty=not changes)

    def drop(self, series: Series) -> None:
        """Forget a series."""
        self._removed(series, self.groups[series[:2]][series[2]], is_empty=True)

    def settle(self, series: Series, count: int) -> None:
        """Forget a series' first `count` changes, but not the last of all; the next one stands for them."""
        changes = self.groups[series[:2]][series[2]]
        gone = changes[:count]
        del changes[:count]
        changes[0] = changes[0]._replace(is_settled=True)
        self._note(series, changes[0])
        self._removed(series, gone, is_empty=False)

    def find(self, series: Series, usage_us: int, identity: int) -> tuple[Series, Change] | None:
        """Return the change of that event and the series it is in.

        It took place in the minute that begins at `usage_us`, mostly in the series that its void names, else in the
        overflow, or where another revision's `group_by` had put it.
        """
        group = self.groups.get(series[:2], {})
        for dimensions in dict.fromkeys((series[2], OVERFLOW, *group)):
            changes = group.get(dimensions, [])
            begin = bisect_left(changes, usage_us, key=time_of)
            end = bisect_left(changes, usage_us + US_PER_MINUTE, key=time_of)
            # An id may come again when its horizon is over: the later one is meant.
            for change in reversed(changes[begin:end]):
                if change.identity == identity:
                    return (*series[:2], dimensions), change
        return None

    def encode(self) -> dict[int, bytes]:
        """Return each day's changes as Arrow IPC bytes; a day that did not change has the same bytes object."""
        for day in sorted(self._days.keys() - self._bytes.keys()):
            rows = [
                _row(series, change)
                for series in sorted(self._days[day])
                for change in _of_day(self.changes(series), day)
            ]
            if not rows:
                del self._days[day]
                continue
            buffer = BytesIO()
            pl.DataFrame(rows, schema=_SCHEMA, orient="row").write_ipc(buffer, compression="zstd")
            self._bytes[day] = buffer.getvalue()
        return {day: self._bytes[day] for day in sorted(self._days)}

    def _load(self, data: bytes) -> None:
        for meter, tenant, dimensions, *rest in pl.read_ipc(BytesIO(data)).iter_rows():
            time_us, entry_ms, stream, seq, index, high, low, identity_hi, identity_lo, settled = rest
            level, identity = high << 64 | low, identity_hi << 64 | identity_lo
            change = Change(time_us, entry_ms, stream, seq, index, level, identity, settled)
            group = (meter, tenant)
            self.groups.setdefault(group, {}).setdefault(dimensions, []).append(change)
            self._counts[group] = self.count(group) + 1
            self._days.setdefault(change.time_us // US_PER_DAY, set()).add((meter, tenant, dimensions))

    def _note(self, series: Series, change: Change) -> None:
        day = change.time_us // US_PER_DAY
        self._days.setdefault(day, set()).add(series)
        self._bytes.pop(day, None)

    def _removed(self, series: Series, gone: Sequence[Change], *, is_empty: bool) -> None:
        for change in gone:
            self._note(series, change)
        group = series[:2]
        self._counts[group] -= len(gone)
        if is_empty:
            del self.groups[group][series[2]]
            if not self.groups[group]:
                del self.groups[group], self._counts[group]


def _of_day(changes: Sequence[Change], day: int) -> Sequence[Change]:
    begin = bisect_left(changes, day * US_PER_DAY, key=time_of)
    return changes[begin : bisect_right(changes, (day + 1) * US_PER_DAY - 1, key=time_of)]


def _row(series: Series, change: Change) -> tuple[object, ...]:
    level, identity = change.level, change.identity
    words = (level >> 64, level & _MASK, identity >> 64, identity & _MASK)
    return (*series, *change[:5], *words, change.is_settled)
