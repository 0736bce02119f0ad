"""Which events of a batch count: decided in columns, by position, against the batch itself and the id log.

Events whose identity stands alone, or whose repetitions all fall under one record, are decided in columns.
Identities with a void in the batch, or whose record leaves the horizon within the batch, are decided one by
one in position order; they are few.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from core.digests import VOID_XOR
from operators.dedupe_log import IdLog
from operators.dedupe_run import U64, digest_order

ACCEPTED: Final = 0
DUPLICATE: Final = 1
CONFLICT: Final = 2
UNMATCHED_VOID: Final = 3
ALREADY_VOIDED: Final = 4

_VOID_HI: Final = np.uint64(VOID_XOR[0])
_VOID_LO: Final = np.uint64(VOID_XOR[1])

I64 = npt.NDArray[np.int64]
Places = npt.NDArray[np.intp]
Record = tuple[int, int]
"""Payload and arrival minute of what the log holds for an id."""


@dataclass(frozen=True, slots=True)
class Events:
    """What deciding needs to know of a batch in position order, in columns."""

    hi: U64
    lo: U64
    content: U64
    void_content: U64
    is_void: npt.NDArray[np.bool_]
    minute: I64
    horizon_from: I64
    """First arrival minute whose records count for this event."""

    def __len__(self) -> int:
        return len(self.hi)


@dataclass(frozen=True, slots=True)
class Decisions:
    """One element per event. `known` and `original_minute` are those of the record it was compared with."""

    outcome: npt.NDArray[np.uint8]
    known: U64
    original_minute: I64


def decide(events: Events, log: IdLog) -> Decisions:
    """Return what becomes of each event, without changing the log.

    Order of the checks for a void: the same void seen before, another void of this original, the original.
    """
    size = len(events)
    decisions = Decisions(np.zeros(size, np.uint8), events.content.copy(), events.minute.copy())
    if not size:
        return decisions
    order, begins = digest_order(events.hi, events.lo)
    starts = np.flatnonzero(begins)
    first = order[starts]
    seen, content, minute = log.find(events.hi[first], events.lo[first], 0)
    minutes = minute.astype(np.int64)

    in_reach = seen & (minutes >= events.horizon_from[first])
    base_content = np.where(in_reach, content, events.content[first])
    base_minute = np.where(in_reach, minutes, events.minute[first])

    group = np.cumsum(begins) - 1
    slow_rows = events.is_void[order] | (base_minute[group] < events.horizon_from[order])
    slow_groups = np.zeros(len(starts), np.bool_)
    slow_groups[group[slow_rows]] = True

    if len(starts) < size or in_reach.any():
        repeated = np.where(begins, in_reach[group], True)
        same = events.content[order] == base_content[group]
        decisions.outcome[order] = np.where(repeated, np.where(same, DUPLICATE, CONFLICT), ACCEPTED)
        decisions.known[order] = base_content[group]
        decisions.original_minute[order] = base_minute[group]
    if slow_groups.any():
        records = {
            (int(events.hi[row]), int(events.lo[row])): (int(content[at]), int(minutes[at]))
            for at in np.flatnonzero(slow_groups & seen).tolist()
            for row in (first[at],)
        }
        _decide_one_by_one(events, np.sort(order[slow_groups[group]]), records, log, decisions)
    return decisions


def _decide_one_by_one(
    events: Events,
    rows: Places,
    originals: dict[tuple[int, int], Record],
    log: IdLog,
    decisions: Decisions,
) -> None:
    """Decide these rows in order; `originals` are the log's records of their identities."""
    voids = _logged_voids(events, rows[events.is_void[rows]], log)
    for row in rows.tolist():
        key = (int(events.hi[row]), int(events.lo[row]))
        horizon_from, minute = int(events.horizon_from[row]), int(events.minute[row])
        original = _in_reach(originals.get(key), horizon_from)
        content = int(events.content[row])
        if not events.is_void[row]:
            if original is None:
                outcome, originals[key] = ACCEPTED, (content, minute)
            else:
                outcome = DUPLICATE if original[0] == content else CONFLICT
            known = originals[key]
        else:
            void = _in_reach(voids.get(key), horizon_from)
            outcome, known = _decide_void(content, int(events.void_content[row]), original, void)
            if outcome == ACCEPTED:
                voids[key] = (int(events.void_content[row]), minute)
        decisions.outcome[row] = outcome
        decisions.known[row], decisions.original_minute[row] = known


def _decide_void(content: int, void_content: int, original: Record | None, void: Record | None) -> tuple[int, Record]:
    """Return the outcome of a void, and the record it was compared with."""
    if void is not None:
        if void[0] == void_content:
            return DUPLICATE, void
        # An earlier life of the id may have been voided; once its horizon is over, the next life can be too.
        if original is None or void[1] >= original[1]:
            return ALREADY_VOIDED, void
    if original is None:
        return UNMATCHED_VOID, (0, 0)
    return (ACCEPTED if original[0] == content else UNMATCHED_VOID), original


def _logged_voids(events: Events, rows: Places, log: IdLog) -> dict[tuple[int, int], Record]:
    if not len(rows):
        return {}
    seen, content, minute = log.find(events.hi[rows] ^ _VOID_HI, events.lo[rows] ^ _VOID_LO, 0)
    return {
        (int(events.hi[rows[at]]), int(events.lo[rows[at]])): (int(content[at]), int(minute[at]))
        for at in np.flatnonzero(seen).tolist()
    }


def _in_reach(record: Record | None, horizon_from: int) -> Record | None:
    return record if record is not None and record[1] >= horizon_from else None


def append_accepted(events: Events, accepted: Places, log: IdLog) -> None:
    """Record accepted events in the log, voids under the void's name."""
    is_void = events.is_void[accepted]
    hi, lo, content = events.hi[accepted], events.lo[accepted], events.content[accepted]
    if is_void.any():
        hi = np.where(is_void, hi ^ _VOID_HI, hi)
        lo = np.where(is_void, lo ^ _VOID_LO, lo)
        content = np.where(is_void, events.void_content[accepted], content)
    log.append(hi, lo, content, events.minute[accepted].astype(np.uint32))
