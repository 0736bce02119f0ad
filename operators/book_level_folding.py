"""Keeps level changes within bounds: folds those that nothing can reach any more, or that are too many."""

from bisect import bisect_right
from dataclasses import dataclass
from typing import Final

from config.revision import Rules
from operators.book_integral import Change, time_of
from operators.book_level_store import US_PER_DAY, Group, LevelStore

_MS_PER_DAY: Final = US_PER_DAY // 1000
_SPARE_PARTS: Final = 10


@dataclass(frozen=True, slots=True)
class Reach:
    """How far back events that are booked from now on can reach."""

    time_us: int
    """To changes from this time on, by a late event."""
    arrival_ms: int
    """And to changes that arrived from this time on, by a void."""

    @classmethod
    def after(cls, day: int, rules: Rules) -> "Reach":
        """Return the reach of everything booked after that day (counted since 1970-01-01).

        A void that is booked by its usage minute may have arrived up to a day before, hence the day to spare.
        """
        return cls(
            (day + 1 - rules.too_old_days) * US_PER_DAY,
            (day - rules.dedupe_horizon_days) * _MS_PER_DAY,
        )

    def includes(self, change: Change) -> bool:
        """Tell whether something can still come before the change, or take it back."""
        return change.time_us >= self.time_us or change.entry_ms >= self.arrival_ms


def fold(store: LevelStore, group: Group, reach: Reach, expiry_us: int | None) -> None:
    """Fold the changes of a meter and tenant that are out of reach.

    The last one of a series stays, since its level may hold still; the series ends if it does not.
    """
    for dimensions, changes in list(store.groups[group].items()):
        count = next((place for place, change in enumerate(changes) if reach.includes(change)), len(changes))
        if count == 0:
            continue
        last = changes[count - 1]
        is_over = last.level == 0 or (expiry_us is not None and last.time_us + expiry_us <= reach.time_us)
        if count == len(changes) and is_over:
            store.drop((*group, dimensions))
        elif count > 1:
            store.settle((*group, dimensions), count - 1)


def limit(store: LevelStore, group: Group, hour_us: int, allowed: int) -> int:
    """Settle the oldest changes of a meter and tenant that has more than allowed; return how many.

    Those that count in the hour that begins at `hour_us`, which is not booked yet, stay all the same.
    """
    excess = store.count(group) - allowed
    if excess <= 0:
        return 0
    old = [
        (change, dimensions)
        for dimensions, changes in store.groups[group].items()
        for change in changes[: max(bisect_right(changes, hour_us, key=time_of) - 1, 0)]
    ]
    counts: dict[str, int] = {}
    # Some more than needed, so that not every minute has to look at all of them.
    for _, dimensions in sorted(old)[: excess + allowed // _SPARE_PARTS]:
        counts[dimensions] = counts.get(dimensions, 0) + 1
    for dimensions, count in counts.items():
        store.settle((*group, dimensions), count)
    return sum(counts.values())
