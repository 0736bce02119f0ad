"""What becomes of a chunk of generated events: copies, conflicts, voids and broken ones, with their counts."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from sources.workload_events import COMPLETION, Columns, time_text, void

Record = tuple[int, str, bytes]
"""Arrival (Unix milliseconds), subject that chooses the stream, the event."""

DAY_US: Final = 86_400_000_000
_REPEAT_AGE_MS_MAX: Final = 20 * DAY_US // 1000
"""Copies and voids come this soon: within the dedupe horizon, and never `too_old`."""
_POOL_EVENTS_MAX: Final = 4_096
_LOOK_BACK_EVENTS: Final = 2_000
_LOOK_BACK_STEPS: Final = 64
_VOIDED_EVENTS_MAX: Final = 256

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
class Sent:
    """An event that was sent and may come again."""

    arrival_ms: int
    subject: str
    payload: bytes
    is_completion: bool
    tokens: tuple[int, int]
    is_voided: bool = False


@dataclass
class Progress:
    """What one pass has sent so far."""

    pool: list[Sent] = field(default_factory=list)
    voided: list[Sent] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)


class Chunk:
    """Turns one chunk of would-be new events into what is really sent."""

    def __init__(
        self,
        columns: Columns,
        payloads: list[bytes],
        arrivals_ms: list[int],
        names: tuple[str, ...],
        fates: npt.NDArray[np.int64],
        progress: Progress,
    ) -> None:
        self.columns = columns
        self.payloads = payloads
        self.arrivals_ms = arrivals_ms
        self.subjects = [names[tenant] for tenant in columns.tenants.tolist()]
        self.fates = fates
        self.progress = progress
        self._sent: dict[int, Sent] = {}

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
            self.progress.voided = [*self.progress.voided[1 - _VOIDED_EVENTS_MAX :], earlier]
            counts["voids"] += 1
            counts["accepted"] += 1
            counts["requests"] -= 1
            counts["input_tokens"] -= earlier.tokens[0]
            counts["output_tokens"] -= earlier.tokens[1]

    def _void(self, place: int, original: Sent) -> bytes:
        time = time_text(int(self.columns.times_us[place]))
        return void(int(self.columns.ids[place]), original.subject, time, original.payload)

    def _earlier(self, place: int, which: float, where: float) -> Sent | None:
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

    def _is_recent(self, sent: Sent, place: int) -> bool:
        return self.arrivals_ms[place] - sent.arrival_ms < _REPEAT_AGE_MS_MAX

    def _at(self, position: int) -> Sent:
        if position not in self._sent:
            columns = self.columns
            self._sent[position] = Sent(
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
            shift_us = DAY_US * (7 if reason == "future_time" else -41)
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
