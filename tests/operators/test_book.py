from random import Random
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config.revision import History
from operators.book import BookLogic
from operators.items import Marker, Partials
from operators.sums import partial_sums
from tests.operators.book_oracle import (
    BORDER_MINUTE,
    CHANGE_MS,
    METERS,
    TENANTS,
    Collected,
    Event,
    MemorySet,
    exact,
    history,
    sealed,
    to_frame,
)

SENDERS = ("id-0", "id-1", "id-2")
END_MS = (BORDER_MINUTE + 200) * 60_000

Item = Partials | Marker


@st.composite
def events_strategy(draw: st.DrawFn, models: int = 3) -> list[Event]:
    """Events around the border of a month and of two revisions: in time, late, early, voided, tied."""
    events: list[Event] = []
    entry_ms = CHANGE_MS - 200_000
    for place in range(draw(st.integers(1, 30))):
        entry_ms += draw(st.sampled_from([0, 0, 1, 700, 15_000, 59_999, 60_000]))
        offset_us = draw(st.sampled_from([0, 1, -1, -10_000_000, -70_000_000, -130_000_000, -600_000_000, 250_000_000]))
        tied = draw(st.booleans()) and bool(events)
        event = Event(
            position=(entry_ms, draw(st.integers(0, 1)), place, draw(st.integers(0, 3))),
            tenant=draw(st.sampled_from(TENANTS)),
            time_us=events[-1].time_us if tied else entry_ms * 1000 + offset_us,
            value=exact(draw(st.integers(-(10**30) + 1, 10**30 - 1))),
            model=f"m{draw(st.integers(0, models - 1))}",
            user=f"u{draw(st.integers(0, 4))}",
            sign=draw(st.sampled_from([1, 1, 1, -1])),
            excluded=tuple(meter["id"] for meter in METERS if draw(st.integers(0, 5)) == 0),
        )
        events.append(event)
    return sorted(events, key=lambda event: event.position)


def deliveries(random: Random, events: list[Event], revisions: History) -> list[Item]:
    """Return what book gets: each sender its share in position order, markers behind, senders interleaved."""
    times = sorted({event.position[0] for event in events})
    marks = sorted({*random.sample(times, random.randint(0, min(6, len(times)))), END_MS})
    streams: list[list[Item]] = []
    share = [random.randint(0, len(SENDERS) - 1) for _ in events]
    for number, sender in enumerate(SENDERS):
        mine = [event for event, owner in zip(events, share, strict=True) if owner == number]
        streams.append(_stream(random, sender, mine, marks, revisions))
    out: list[Item] = []
    while any(streams):
        number = random.choice([number for number, stream in enumerate(streams) if stream])
        count = random.randint(1, 4)
        out.extend(streams[number][:count])
        del streams[number][:count]
    return out


def _stream(random: Random, sender: str, mine: list[Event], marks: list[int], revisions: History) -> list[Item]:
    out: list[Item] = []
    rest = list(mine)
    for mark_ms in marks:
        due = [event for event in rest if event.position[0] < mark_ms]
        # A marker may come late, never early: more than it speaks for may be in front of it.
        upto = len(due) + random.choice([0, 0, 1, 2, 8])
        out.extend(_partials(random, rest[:upto], revisions))
        rest = rest[upto:]
        out.append(Marker(sender, mark_ms))
    assert not rest
    return out


def _partials(random: Random, events: list[Event], revisions: History) -> list[Item]:
    out: list[Item] = []
    for revision in revisions.revisions:
        part = [event for event in events if revisions.at(event.position[0]) is revision]
        while part:
            count = random.randint(1, len(part))
            out.append(Partials(0, partial_sums(to_frame(part[:count]), revision)))
            part = part[count:]
    return out


def run(random: Random, items: list[Item], revisions: History) -> Collected:
    """Feed the items in calls of any size; snapshot and fall back to the snapshot at any time."""
    got = Collected()
    log = MemorySet()
    logic = BookLogic("book", SENDERS, revisions, log, None)
    durable: tuple[int, dict[str, Any]] | None = None
    place = crashes = 0
    while place < len(items):
        count = random.randint(1, 6)
        got.add(logic.process(items[place : place + count]))
        place += count
        action = random.randint(0, 4)
        if action == 0:
            durable = place, logic.snapshot()
        elif action == 1 and crashes < 3:
            crashes += 1
            place, state = durable or (0, None)
            log = MemorySet(state["unique"] if state else None)
            logic = BookLogic("book", SENDERS, revisions, log, state)
    assert all(type(value) in (dict, int, str, type(None)) for value in logic.snapshot().values())
    return got


SETTINGS = settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))


@SETTINGS
@given(st.integers(0, 2**32), events_strategy(), st.sampled_from([(60, 60), (0, 60), (120, 0), (60, 3600)]))
def test_sealed_facts_equal_the_oracle(seed: int, events: list[Event], graces_s: tuple[int, int]) -> None:
    revisions = history(graces_s)
    random = Random(seed)
    got = run(random, deliveries(random, events, revisions), revisions)
    want, folded = sealed(events, revisions)
    assert got.facts == want
    assert got.folded == folded == {}


@SETTINGS
@given(st.integers(0, 2**32), events_strategy(models=8), st.sampled_from([(1, 1), (2, 3), (3, 1)]))
def test_cardinality_limit_equals_the_oracle(seed: int, events: list[Event], series_max: tuple[int, int]) -> None:
    revisions = history(series_max=series_max)
    random = Random(seed)
    got = run(random, deliveries(random, events, revisions), revisions)
    want, folded = sealed(events, revisions)
    assert got.facts == want
    assert got.folded == folded
    # No open fact is left behind: each one is replaced by a sealed one of the same key.
    assert got.open.keys() <= want.keys()
