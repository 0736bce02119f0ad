"""Dedupe as a person would do it: all events one at a time, in position order."""

from collections import Counter
from dataclasses import dataclass, field

from config.revision import History

DAY_MS = 86_400_000
DAY0_MS = 20_000 * DAY_MS
TENANT_SHARDS = 3
SENDER = "reader-00"

Position = tuple[int, int, int, int]


@dataclass
class Event:
    """One decoded event, or a reject or exception row of decode where `reason` is set."""

    position: Position
    number: int = 0
    content: int = 1
    void: int = 0
    type: str = "call"
    tenant: str = "acme"
    has_time: bool = True
    reason: str = ""
    counted: bool = True


@dataclass
class Expected:
    accepted: list[tuple[Position, int]] = field(default_factory=list)
    """Position and usage time."""
    refused: list[tuple[Position, str]] = field(default_factory=list)
    counts: Counter[tuple[int, int, str, str]] = field(default_factory=Counter)
    sums: Counter[str] = field(default_factory=Counter)


def reach_day(history: History, arrival_ms: int) -> int:
    """First arrival day that counts: never less far than an earlier revision had reached at its end."""
    days = []
    for number, revision in enumerate(history.revisions):
        if number and revision.known_from_ms > arrival_ms:
            break
        last_ms = arrival_ms
        if number + 1 < len(history.revisions):
            last_ms = min(last_ms, history.revisions[number + 1].known_from_ms - 1)
        days.append(last_ms // DAY_MS - revision.rules.dedupe_horizon_days)
    return max(days)


def oracle(events: list[Event], history: History) -> Expected:  # noqa: PLR0912
    expected = Expected()
    originals: dict[int, tuple[int, int]] = {}
    voids: dict[int, tuple[int, int]] = {}
    fates: dict[Position, str] = {}
    for event in sorted(events, key=lambda event: event.position):
        if event.reason:
            continue
        arrival_ms = event.position[0]
        reach = reach_day(history, arrival_ms)
        original = originals.get(event.number)
        if original is not None and original[1] // DAY_MS < reach:
            original = None
        void = voids.get(event.number)
        if void is not None and void[1] // DAY_MS < reach:
            void = None
        meters = history.at(arrival_ms).meters.values()
        metered = any(meter.event_type == event.type for meter in meters)
        if event.void == 0:
            if original is None:
                fate = "accepted"
                originals[event.number] = (event.content, arrival_ms)
            else:
                fate = "duplicate" if original[0] == event.content else "conflicting_duplicate"
            usage_us = arrival_ms * 1000
        else:
            # A void taken back in an earlier life of the id does not stand in the way of a new life.
            other_life = void and original and void[1] // 60_000 < original[1] // 60_000
            if void is not None and void[0] == event.void:
                fate = "duplicate"
            elif void is not None and not other_life:
                fate = "already_voided"
            elif original is None or original[0] != event.content:
                fate = "unmatched_void"
            else:
                fate = "accepted"
                voids[event.number] = (event.void, arrival_ms)
            usage_us = 7 if event.has_time or original is None else original[1] // 60_000 * 60_000_000
        fates[event.position] = fate
        place = (event.position[1], arrival_ms // 60_000)
        if fate == "accepted":
            expected.accepted.append((event.position, usage_us))
            expected.counts[(*place, "accepted", "" if metered else "unmetered")] += 1
            if metered:
                expected.sums[event.tenant] += -1 if event.void else 1
        elif fate == "duplicate":
            expected.counts[(*place, "duplicate", "")] += 1
        elif fate == "conflicting_duplicate":
            expected.counts[(*place, "conflicting_duplicate", "conflicting_duplicate")] += 1
            expected.refused.append((event.position, fate))
        else:
            expected.counts[(*place, "rejected", fate)] += 1
            expected.refused.append((event.position, fate))
    for event in events:
        if event.reason and (event.counted or fates[event.position] == "accepted"):
            expected.refused.append((event.position, event.reason))
            if event.counted:
                expected.counts[event.position[1], event.position[0] // 60_000, "rejected", event.reason] += 1
    expected.refused.sort()
    return expected


# --- from events to frames and back --------------------------------------------------------------------------
