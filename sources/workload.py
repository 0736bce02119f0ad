"""Deterministic load: CloudEvents of many tenants for the default configuration, with everything that goes wrong.

The same arguments give the same bytes. Tenants differ in size by Zipf's law, traffic has a daily and a weekly
rhythm, token counts are lognormal. A part of the events is sent twice, with changed content, late by minutes to
days, taken back, or broken; `Workload.expected` says exactly what the intake must make of them.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from core.errors import InvalidRequest
from sources.trace import TraceWorkload, trace_workload
from sources.workload_events import (
    COMPLETION,
    Columns,
    draw,
    mixed,
    tenant_names,
    texts,
    time_text,
    totals_of,
    void,
    zipf_bounds,
)

__all__ = ["Record", "TraceWorkload", "Workload", "trace_workload"]

Record = tuple[int, str, bytes]
"""Arrival (Unix milliseconds), subject that chooses the stream, the event."""

CHUNK_EVENTS: Final = 16_384
TENANTS_MAX: Final = 1_000_000
_HOUR_MS: Final = 3_600_000
_DAY_US: Final = 86_400_000_000
_REPEAT_AGE_MS_MAX: Final = 20 * 24 * _HOUR_MS
"""Copies and voids come this soon: within the dedupe horizon, and never `too_old`."""
_POOL_EVENTS_MAX: Final = 4_096
_LOOK_BACK_EVENTS: Final = 2_000
_LOOK_BACK_STEPS: Final = 64

NEW, DUPLICATE, CONFLICT, VOID, MALFORMED = range(5)

_BROKEN: Final = (
    "malformed_json",
    "missing_field",
    "invalid_field",
    "invalid_quantity",
    "future_time",
    "too_old",
    "unmatched_void",
    "already_voided",
)


@dataclass(slots=True)
class _Sent:
    """An event that was sent and may come again."""

    arrival_ms: int
    subject: str
    payload: bytes
    is_completion: bool
    tokens: tuple[int, int]
    is_voided: bool = False


@dataclass
class _Progress:
    """What one pass has sent so far."""

    pool: list[_Sent] = field(default_factory=list)
    voided: list[_Sent] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)


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
        self._progress = _Progress()

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
        self._progress = _Progress()
        for first in range(0, self.events, CHUNK_EVENTS):
            yield from self._chunk(first, min(CHUNK_EVENTS, self.events - first))

    def _chunk(self, first: int, count: int) -> list[Record]:
        random = np.random.default_rng([self.seed, first])
        numbers = np.arange(first, first + count)
        knots_share, knots_ms = self._clock
        arrivals_ms = np.interp((numbers + random.random(count)) / self.events, knots_share, knots_ms).astype(np.int64)
        is_late = random.random(count) < self._late_share
        prompt_us = random.lognormal(0.0, 1.0, count).clip(0.02, 20) * 1e6
        late_us = (random.lognormal(8.9, 1.6, count) * 1e6).clip(120e6, 5 * _DAY_US)
        times_us = arrivals_ms * 1000 - np.where(is_late, late_us, prompt_us).astype(np.int64)
        columns = draw(random, mixed(numbers.astype(np.uint64), self.seed), self._bounds, times_us)
        fates = np.searchsorted(self._special, random.random(count), side="right")
        fates = np.array([DUPLICATE, CONFLICT, VOID, MALFORMED, NEW])[fates]
        chunk = _Chunk(columns, texts(columns, self._names), arrivals_ms.tolist(), self._names, fates, self._progress)
        records = chunk.records(random)
        self._progress.counts["late"] += int((is_late & (chunk.fates == NEW)).sum())
        self._progress.counts.update(totals_of(columns, chunk.fates == NEW))
        return records


class _Chunk:
    """Turns one chunk of would-be new events into what is really sent."""

    def __init__(
        self,
        columns: Columns,
        payloads: list[bytes],
        arrivals_ms: list[int],
        names: tuple[str, ...],
        fates: npt.NDArray[np.int64],
        progress: _Progress,
    ) -> None:
        self.columns = columns
        self.payloads = payloads
        self.arrivals_ms = arrivals_ms
        self.subjects = [names[tenant] for tenant in columns.tenants.tolist()]
        self.fates = fates
        self.progress = progress
        self._sent: dict[int, _Sent] = {}

    def records(self, random: np.random.Generator) -> list[Record]:
        """Return the records; `fates` is corrected where an event had to stay new."""
        special = np.flatnonzero(self.fates != NEW)
        dice = random.random((len(special), 3))
        for place, (which, where, kind) in zip(special.tolist(), dice.tolist(), strict=True):
            self._apply(place, which, where, kind)
        counts = self.progress.counts
        counts["events"] += len(self.payloads)
        counts["accepted"] += int((self.fates == NEW).sum())
        self._remember(random)
        return list(zip(self.arrivals_ms, self.subjects, self.payloads, strict=True))

    def _apply(self, place: int, which: float, where: float, kind: float) -> None:
        """Carry out one special fate; without a fitting earlier event the event stays new."""
        fate = int(self.fates[place])
        if fate == MALFORMED:
            reason = _BROKEN[int(kind * len(_BROKEN))]
            payload = self._broken(place, reason)
            if payload is None:
                self.fates[place] = NEW
                return
            self.payloads[place] = payload
            self.progress.rejected[reason] += 1
            return
        earlier = self._earlier(place, which, where)
        if earlier is None or (fate == VOID and (earlier.is_voided or not earlier.is_completion)):
            self.fates[place] = NEW
            return
        self.subjects[place] = earlier.subject
        counts = self.progress.counts
        if fate == DUPLICATE:
            self.payloads[place] = earlier.payload
            counts["duplicates"] += 1
        elif fate == CONFLICT:
            self.payloads[place] = earlier.payload.replace(b'"data":{', b'"data":{"revised":true,', 1)
            counts["conflicts"] += 1
        else:
            self.payloads[place] = self._void(place, earlier)
            earlier.is_voided = True
            self.progress.voided = [*self.progress.voided[-255:], earlier]
            counts["voids"] += 1
            counts["accepted"] += 1
            counts["requests"] -= 1
            counts["input_tokens"] -= earlier.tokens[0]
            counts["output_tokens"] -= earlier.tokens[1]

    def _void(self, place: int, original: _Sent) -> bytes:
        time = time_text(int(self.columns.times_us[place]))
        return void(int(self.columns.ids[place]), original.subject, time, original.payload)

    def _earlier(self, place: int, which: float, where: float) -> _Sent | None:
        """Return a new event sent before: mostly a recent one, else one from the pool."""
        pool = self.progress.pool
        if which < 0.3 and pool:
            found = pool[int(where * len(pool))]
            return found if self._is_recent(found, place) else None
        candidate = place - 1 - int(where * min(place, _LOOK_BACK_EVENTS))
        for position in range(candidate, max(candidate - _LOOK_BACK_STEPS, -1), -1):
            if self.fates[position] == NEW:
                found = self._at(position)
                return found if self._is_recent(found, place) else None
        return None

    def _is_recent(self, sent: _Sent, place: int) -> bool:
        return self.arrivals_ms[place] - sent.arrival_ms < _REPEAT_AGE_MS_MAX

    def _at(self, position: int) -> _Sent:
        if position not in self._sent:
            columns = self.columns
            self._sent[position] = _Sent(
                self.arrivals_ms[position],
                self.subjects[position],
                self.payloads[position],
                int(columns.kinds[position]) == COMPLETION,
                (int(columns.first[position]), int(columns.second[position])),
            )
        return self._sent[position]

    def _broken(self, place: int, reason: str) -> bytes | None:
        """Return the event broken so that intake gives this reason, or None if it cannot be."""
        payload, time_us = self.payloads[place], int(self.columns.times_us[place])
        time = time_text(time_us).encode()
        if reason == "malformed_json":
            return payload[: len(payload) // 2]
        if reason == "missing_field":
            return payload.replace(b'"type":', b'"kind":', 1)
        if reason == "invalid_field":
            return payload.replace(time + b"Z", b"yesterday", 1)
        if reason == "invalid_quantity":
            # No meter can read a level that is no number; a completion would still count as a request.
            subject = self.subjects[place].encode()
            head = b'{"specversion":"1.0","id":"%016x","source":"/object-storage","type":"storage.level",'
            rest = b'"subject":"%b","time":"%bZ","data":{"gib":"plenty","volume":"vol-0000","tier":"standard"}}'
            return (head + rest) % (int(self.columns.ids[place]), subject, time)
        if reason in ("future_time", "too_old"):
            shift_us = _DAY_US * (7 if reason == "future_time" else -41)
            return payload.replace(time, time_text(time_us + shift_us).encode(), 1)
        if reason == "unmatched_void":
            if int(self.columns.kinds[place]) != COMPLETION:
                return None
            return void(int(self.columns.ids[place]), self.subjects[place], time.decode(), payload)
        voided = [sent for sent in self.progress.voided if self._is_recent(sent, place)]
        if not voided:
            return None
        original = voided[place % len(voided)]
        self.subjects[place] = original.subject
        return self._void(place, original)

    def _remember(self, random: np.random.Generator) -> None:
        """Keep a sample of the new events for copies in later chunks, without those that grew too old."""
        fresh = np.flatnonzero(self.fates == NEW)
        chosen = random.choice(fresh, min(len(fresh), _POOL_EVENTS_MAX // 4), replace=False) if len(fresh) else fresh
        last = len(self.arrivals_ms) - 1
        pool = [sent for sent in self.progress.pool if self._is_recent(sent, last)]
        pool = pool[-(_POOL_EVENTS_MAX * 3 // 4) :]
        self.progress.pool = pool + [self._at(position) for position in sorted(chosen.tolist())]


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
