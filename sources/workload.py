"""Deterministic load: CloudEvents of many tenants for the default configuration, with everything that goes wrong.

The same arguments give the same bytes. Tenants differ in size by Zipf's law, traffic has a daily and a weekly
rhythm, token counts are lognormal. A part of the events is sent twice, with changed content, late by minutes to
days, taken back, or broken; `Workload.expected` says exactly what the intake must make of them.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from core.errors import InvalidRequest
from sources.trace import TraceWorkload, trace_workload
from sources.workload_chunk import CONFLICT, DAY_US, DUPLICATE, MALFORMED, NEW, VOID, Chunk, Progress, Record
from sources.workload_events import draw, mixed, tenant_names, texts, totals_of, zipf_bounds

__all__ = ["Record", "TraceWorkload", "Workload", "trace_workload"]

CHUNK_EVENTS: Final = 16_384
TENANTS_MAX: Final = 1_000_000
_HOUR_MS: Final = 3_600_000


class Workload:
    """Iterate for the records, in order of arrival; each pass begins anew with the same records.

    `events` is the number of records, copies and broken ones included. The shares are of all records; late ones are
    new events whose time is 2 minutes to 5 days before their arrival. `start` and `end` (aware) bound the arrivals.
    After a full pass `expected` holds the exact counts.
    """

    def __init__(
        self,
        seed: int = 7,
        tenants: int = 14,
        events: int = 100_000,
        *,
        start: datetime,
        end: datetime,
        duplicate_share: float = 0.01,
        late_share: float = 0.02,
        void_share: float = 0.002,
        malformed_share: float = 0.002,
        conflict_share: float = 0.001,
    ) -> None:
        shares = (duplicate_share, conflict_share, void_share, malformed_share)
        if start.tzinfo is None or end.tzinfo is None or end <= start:
            message = f"the workload needs aware times with start before end (got {start} and {end})"
            raise InvalidRequest(message)
        if not 1 <= tenants <= TENANTS_MAX or events < 0 or seed < 0:
            message = f"the workload needs 1 to {TENANTS_MAX} tenants, and events and seed not below 0"
            raise InvalidRequest(message)
        if min(*shares, late_share) < 0 or sum(shares) > 0.9 or late_share > 1:
            message = "shares lie between 0 and 1, and those of copies, voids and broken events add up to 0.9 at most"
            raise InvalidRequest(message)
        self.seed = seed
        self.events = events
        self._names = tenant_names(tenants)
        self._bounds = zipf_bounds(tenants)
        self._special = np.cumsum(shares)
        self._late_share = late_share
        self._clock = _rhythm(int(start.timestamp() * 1000), int(end.timestamp() * 1000))
        self._progress = Progress()

    @property
    def expected(self) -> dict[str, Any]:
        """Return the exact counts of the records given out so far (all of them after a full pass).

        `events` = `accepted` (voids included) + `duplicates` + `conflicts` + `rejected`; `rejected_by_reason` splits
        the latter. `requests`, `input_tokens` and `output_tokens` are the meters' totals, voids taken off.
        """
        counts, rejected = self._progress.counts, self._progress.rejected
        names = ("events", "accepted", "duplicates", "conflicts", "voids", "late")
        meters = ("requests", "input_tokens", "output_tokens")
        return {name: counts[name] for name in names} | {
            "rejected": sum(rejected.values()),
            "rejected_by_reason": dict(sorted(rejected.items())),
            **{name: counts[name] for name in meters},
        }

    def __iter__(self) -> Iterator[Record]:
        self._progress = Progress()
        for first in range(0, self.events, CHUNK_EVENTS):
            yield from self._chunk(first, min(CHUNK_EVENTS, self.events - first))

    def _chunk(self, first: int, count: int) -> list[Record]:
        random = np.random.default_rng([self.seed, first])
        numbers = np.arange(first, first + count)
        knots_share, knots_ms = self._clock
        arrivals_ms = np.interp((numbers + random.random(count)) / self.events, knots_share, knots_ms).astype(np.int64)
        is_late = random.random(count) < self._late_share
        prompt_us = random.lognormal(0.0, 1.0, count).clip(0.02, 20) * 1e6
        late_us = (random.lognormal(8.9, 1.6, count) * 1e6).clip(120e6, 5 * DAY_US)
        times_us = arrivals_ms * 1000 - np.where(is_late, late_us, prompt_us).astype(np.int64)
        columns = draw(random, mixed(numbers.astype(np.uint64), self.seed), self._bounds, times_us)
        fates = np.searchsorted(self._special, random.random(count), side="right")
        fates = np.array([DUPLICATE, CONFLICT, VOID, MALFORMED, NEW])[fates]
        chunk = Chunk(columns, texts(columns, self._names), arrivals_ms.tolist(), self._names, fates, self._progress)
        records = chunk.records(random)
        self._progress.counts["late"] += int((is_late & (chunk.fates == NEW)).sum())
        self._progress.counts.update(totals_of(columns, chunk.fates == NEW))
        return records


def _rhythm(start_ms: int, end_ms: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return knots of the inverse of the cumulated traffic: share of all events, and the time it is reached.

    Traffic peaks at 15:00 UTC, is a quarter of that at night, and half as high at weekends.
    """
    step_ms = max(min(_HOUR_MS // 4, (end_ms - start_ms) // 4), (end_ms - start_ms) // 1_000_000, 1)
    knots_ms = np.append(np.arange(start_ms, end_ms, step_ms), end_ms).astype(np.float64)
    middles_ms = (knots_ms[1:] + knots_ms[:-1]) / 2
    hours = middles_ms / _HOUR_MS
    is_weekend = ((hours // 24 + 3) % 7) >= 5  # day 0 was a Thursday; Monday counts as 0
    intensity = (1 + 0.6 * np.cos((hours % 24 - 15) * np.pi / 12)) * np.where(is_weekend, 0.5, 1.0)
    cumulated = np.concatenate([[0.0], np.cumsum(intensity * np.diff(knots_ms))])
    return cumulated / cumulated[-1], knots_ms
