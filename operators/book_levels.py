"""`weighted_sum`: the integral of a level held over time, in level-seconds per series and usage hour (design 2.4).

Booked minutes are taken in order, and the state after a minute is a function of the changes booked until then. So
neither the order in which they came matters, nor how many minutes seal at once.

- A usage hour is booked in its last minute, from all changes booked by then; an hour in which nothing happened is
  booked too as long as a level other than 0 is held.
- Changes that lie in hours booked already book, in their own booked minute, the difference they make together to
  each of these hours: the integral with them less the integral without.
- Where terms change inside an hour (half-hour time zones, plan versions), the hour is booked in pieces. Each minute's
  integral is rounded on its own, so pieces, and corrections in other pieces, add up to the last digit.
- Changes so old that nothing can arrive before them any more are folded into the one that follows them.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from itertools import groupby
from typing import Any, Final, NamedTuple

import orjson
import polars as pl

from config.meters import Meter
from config.revision import History, Rules
from core.errors import StateMismatch
from core.frames import POSITION
from operators.book_integral import Change, level_seconds, time_of
from operators.book_level_facts import LIMITED, SETTLED, UNMATCHED, BookedLevels, Tally
from operators.book_level_folding import Reach, fold, limit
from operators.book_level_store import Group, LevelStore, Series
from operators.book_limit import KIND, OVERFLOW
from operators.book_time import MS_PER_MINUTE, US_PER_MINUTE

VERSION: Final = 1
_HOUR: Final = 60
_DAY: Final = 1440
_US_PER_HOUR: Final = _HOUR * US_PER_MINUTE
_MICROSECOND: Final = timedelta(microseconds=1)
_COLUMNS: Final = (
    *("booked_minute", "meter", "tenant", "dimensions", "usage_minute", "events", "value_time_us"),
    *(*POSITION, "value", "unique_hi", "unique_lo"),
)

Piece = tuple[int, int]
"""First minute, and the minute after the last."""
Pieces = Callable[[str, int, int], Sequence[Piece]]
"""From tenant, usage hour and booked minute to the pieces of the hour in which the same terms hold."""


class Row(NamedTuple):
    """One level change, or the void of one (`sign` -1), as it came."""

    booked_minute: int
    series: Series
    usage_minute: int
    sign: int
    change: Change


class LevelBook:
    """The levels that one tenant shard holds.

    Guarantee: facts and state are a function of the level changes and their booked minutes.
    Unit of parallelism: one tenant shard.
    """

    def __init__(self, history: History, pieces: Pieces, state: dict[str, Any] | None) -> None:
        """Start empty, or from `state`, which `snapshot` returned.

        Raises StateMismatch if the state was written by another release.
        """
        if state is not None and state["version"] != VERSION:
            message = f"levels: state version {state['version']} is not {VERSION}: run the release that wrote it"
            raise StateMismatch(message)
        self._history = history
        self._pieces = pieces
        self._store = LevelStore(state["days"] if state else None)
        self._tally = Tally(state["tally"] if state else None)
        plain = orjson.loads(state["voids"]) if state else ()
        self._voids = {(meter, tenant, int(digest, 16)): entry_ms for meter, tenant, digest, entry_ms in plain}
        """Voids that found nothing: where the grace changes, a void may be booked before its original."""

    def __len__(self) -> int:
        """Return the number of changes kept."""
        return len(self._store)

    def snapshot(self) -> dict[str, Any]:
        """Return the state as plain values; days that did not change have the same bytes as before."""
        voids = sorted([meter, tenant, f"{digest:x}", at_ms] for (meter, tenant, digest), at_ms in self._voids.items())
        return {
            "version": VERSION,
            "days": self._store.encode(),
            "tally": self._tally.plain(),
            "voids": orjson.dumps(voids),
        }

    def seal(self, rows: pl.DataFrame, first: int, border: int) -> BookedLevels:
        """Book all minutes below `border` from `first` on.

        `rows` (OPEN_SCHEMA) are the changes booked in them; some may be earlier than `first` at the very start.
        """
        out = BookedLevels()
        arrived = groupby(_rows(rows), key=lambda row: row.booked_minute)
        coming = next(arrived, None)
        while True:
            minute = border if coming is None else coming[0]
            if self._store.groups or self._tally or self._voids:
                minute = min(minute, first // _HOUR * _HOUR + _HOUR - 1)
            if minute >= border:
                return out
            if coming is not None and coming[0] == minute:
                self._apply(minute, list(coming[1]), out)
                coming = next(arrived, None)
            if minute % _HOUR == _HOUR - 1:
                self._book_hour(minute, out)
            if minute % _DAY == _DAY - 1:
                self._fold(minute)
            first = minute + 1

    # --- changes ---------------------------------------------------------------------------------------------

    def _apply(self, minute: int, rows: list[Row], out: BookedLevels) -> None:
        """Take the changes booked in one minute, and book what they correct."""
        hour_us = minute // _HOUR * _US_PER_HOUR
        has_late = any(row.change.time_us < hour_us for row in rows)
        before: dict[Series, tuple[Change, ...]] = {}
        times_us: dict[Series, list[int]] = {}
        late = Tally()
        # Originals first, so that a void of the same minute finds them; each kind by position.
        for row in sorted(rows, key=lambda row: -row.sign):
            series, change = self._add(row, out) if row.sign > 0 else self._take_back(row, out)
            tally = late if row.usage_minute // _HOUR < minute // _HOUR else self._tally
            tally.add(series, row.usage_minute, row.sign)
            if change is None:
                continue
            if has_late and series not in before:
                before[series] = tuple(self._store.changes(series))
            times_us.setdefault(series, []).append(change.time_us)
            if row.sign > 0:
                self._store.add(series, change)
            else:
                self._store.remove(series, change)
        for series in sorted({*before, *late.series()}):
            unchanged = tuple(self._store.changes(series))
            self._correct(series, before.get(series, unchanged), times_us.get(series, []), late, minute, out)
        allowed = self._rules(minute).level_changes_per_meter_max
        for group in sorted({series[:2] for series in times_us}):
            if count := limit(self._store, group, minute // _HOUR * _US_PER_HOUR, allowed):
                out.complain(LIMITED, (*group, ""), minute, count)

    def _add(self, row: Row, out: BookedLevels) -> tuple[Series, Change | None]:
        """Return the series that takes the change, and the change if it has an effect."""
        series, group = row.series, row.series[:2]
        held = self._store.groups.get(group, {})
        if series[2] not in held:
            if self._meter(group[0], row.booked_minute) is None:
                return series, None
            allowed = self._rules(row.booked_minute).series_per_tenant_minute_max
            if len(held) - (OVERFLOW in held) >= allowed:
                out.complain(KIND, series, row.booked_minute)
                series = (*group, OVERFLOW)
        if self._voids and self._voids.pop((*group, row.change.identity), None) is not None:
            return series, None
        changes = held.get(series[2])
        if changes and changes[0].is_settled and row.change < changes[0]:
            out.complain(SETTLED, series, row.booked_minute)
            return series, None
        return series, row.change

    def _take_back(self, row: Row, out: BookedLevels) -> tuple[Series, Change | None]:
        """Return the series that a void concerns, and the change that it takes back if there is one."""
        found = self._store.find(row.series, row.change.time_us, row.change.identity)
        if found is None:
            out.complain(UNMATCHED, row.series, row.booked_minute)
            self._voids[*row.series[:2], row.change.identity] = row.change.entry_ms
            return row.series, None
        series, change = found
        if change.is_settled:
            out.complain(SETTLED, series, row.booked_minute)
            return series, None
        return series, change

    def _correct(
        self,
        series: Series,
        before: Sequence[Change],
        times_us: Sequence[int],
        late: Tally,
        minute: int,
        out: BookedLevels,
    ) -> None:
        """Book the difference to each booked hour; `times_us` are those of the changes added or removed."""
        after = self._store.changes(series)
        expiry_us = self._expiry_us(series, minute)
        hours = late.hours(series)
        if times_us:
            # From the first change that all share again, or when each has expired, nothing differs any more.
            last_us = max(times_us)
            place = bisect_right(after, last_us, key=time_of)
            until_us = minute // _HOUR * _US_PER_HOUR
            if place < len(after):
                until_us = min(until_us, after[place].time_us)
            if expiry_us is not None:
                until_us = min(until_us, last_us + expiry_us)
            hours |= set(range(min(times_us) // _US_PER_HOUR, -(-until_us // _US_PER_HOUR)))
        for hour in sorted(hours):
            for begin, end in self._pieces(series[1], hour, minute):
                value = level_seconds(after, begin, end, expiry_us) - level_seconds(before, begin, end, expiry_us)
                out.book(series, begin, minute, value, late.take(series, begin, end))

    # --- time ------------------------------------------------------------------------------------------------

    def _book_hour(self, minute: int, out: BookedLevels) -> None:
        """Book the usage hour whose last minute this is."""
        pieces: dict[str, Sequence[Piece]] = {}
        for group in list(self._store.groups):
            name, tenant = group
            held = self._store.groups[group]
            if self._meter(name, minute) is None:
                # A meter that the configuration no longer has holds nothing.
                for dimensions in list(held):
                    self._store.drop((name, tenant, dimensions))
                continue
            if tenant not in pieces:
                pieces[tenant] = self._pieces(tenant, minute // _HOUR, minute)
            expiry_us = self._expiry_us(group, minute)
            for dimensions, changes in held.items():
                series = (name, tenant, dimensions)
                for begin, end in pieces[tenant]:
                    value = level_seconds(changes, begin, end, expiry_us)
                    out.book(series, begin, minute, value, self._tally.take(series, begin, end))
        for series in self._tally.series():
            for begin, end in self._pieces(series[1], minute // _HOUR, minute):
                out.book(series, begin, minute, 0, self._tally.take(series, begin, end))

    def _fold(self, minute: int) -> None:
        """At the end of a day, fold what no event can reach any more: a function of the minute, not of the process."""
        reach = Reach.after(minute // _DAY, self._rules(minute))
        self._voids = {void: at_ms for void, at_ms in self._voids.items() if at_ms >= reach.arrival_ms}
        for group in list(self._store.groups):
            fold(self._store, group, reach, self._expiry_us(group, minute))

    def _rules(self, minute: int) -> Rules:
        return self._history.at(minute * MS_PER_MINUTE).rules

    def _meter(self, name: str, minute: int) -> Meter | None:
        """Return the meter as known at the minute, or at the beginning of its hour, if it holds levels there."""
        for known_minute in (minute, minute // _HOUR * _HOUR):
            meter = self._history.at(known_minute * MS_PER_MINUTE).meters.get(name)
            if meter is not None and meter.aggregation == "weighted_sum":
                return meter
        return None

    def _expiry_us(self, series: Series | Group, minute: int) -> int | None:
        meter = self._meter(series[0], minute)
        if meter is None or meter.level_expiry is None:
            return None
        return meter.level_expiry // _MICROSECOND


def _rows(frame: pl.DataFrame) -> Iterator[Row]:
    """Return the rows by booked minute and position."""
    # The integer below a decimal is the level scaled by 10^12.
    ordered = frame.sort("booked_minute", *POSITION).with_columns(pl.col("value").to_physical())
    for booked, meter, tenant, dimensions, usage, sign, *rest in ordered.select(_COLUMNS).iter_rows():
        time_us, entry_ms, stream, seq, index, level, high, low = rest
        change = Change(time_us, entry_ms, stream, seq, index, level, high << 64 | low)
        yield Row(booked, (meter, tenant, dimensions), usage, sign, change)
