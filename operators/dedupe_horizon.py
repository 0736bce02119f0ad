"""How far back a duplicate is found: a rule per event, from the configuration revisions alone."""

from typing import Final

import numpy as np
import numpy.typing as npt

from config.revision import History

MS_PER_MINUTE: Final = 60_000
MS_PER_DAY: Final = 86_400_000
MINUTES_PER_DAY: Final = 1440

I64 = npt.NDArray[np.int64]


class Horizon:
    """The first arrival minute that still counts, for an event by its own arrival.

    That is the start of the UTC day `dedupe_horizon_days` before the event's. Where a later revision has a
    longer horizon, it grows from where the former one ended: what was out of reach once stays out of reach, so
    that the answer cannot depend on which records were already deleted.
    """

    def __init__(self, history: History) -> None:
        revisions = history.revisions
        self._starts_ms = np.array([revision.known_from_ms for revision in revisions], dtype=np.int64)
        self._starts_ms[0] = np.iinfo(np.int64).min
        self._days = np.array([revision.rules.dedupe_horizon_days for revision in revisions], dtype=np.int64)
        ends_ms = self._starts_ms[1:] - 1
        reached = ends_ms // MS_PER_DAY - self._days[:-1]
        floor = np.concatenate(([np.int64(0)], reached))
        self._floor_days = np.maximum.accumulate(np.maximum(floor, 0))

    def from_minutes(self, entry_ms: I64) -> I64:
        """Return the first arrival minute that counts, for each arrival time."""
        revision = np.searchsorted(self._starts_ms, entry_ms, side="right") - 1
        day = entry_ms // MS_PER_DAY - self._days[revision]
        minutes: I64 = np.maximum(day, self._floor_days[revision]) * MINUTES_PER_DAY
        return minutes

    def from_minute(self, entry_ms: int) -> int:
        """Return the same for one arrival time."""
        return int(self.from_minutes(np.array([entry_ms], dtype=np.int64))[0])
