"""Levels through the whole of book against a naive integral, in any order, batches, restarts."""

from random import Random
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config.revision import History
from operators.book import BookLogic
from operators.book_time import SealPoints
from operators.items import Exceptions, Facts, Marker, Partials
from operators.sums import partial_sums
from tests.operators.book_oracle import MemorySet, unscale
from tests.operators.levels_oracle import (
    CHANGE_MS,
    TENANTS,
    Fact,
    Key,
    LevelEvent,
    integral,
    sealed,
    spans,
    to_frame,
)
from tests.operators.levels_oracle import history as level_history

SENDERS = ("id-0", "id-1", "id-2")
MINUTE_US = 60_000_000
Item = Partials | Marker


@st.composite
def events_strategy(
    draw: st.DrawFn,
    gaps_s: tuple[int, ...] = (0, 1, 59, 61, 600, 2400),
    late_s: tuple[int, ...] = (0, 0, 1, -200, 70, 3600, 4000, 9000, 14_400),
    *,
    whole_seconds: bool = False,
) -> list[LevelEvent]:
    """Levels around a border of months and of revisions: in time, early, late by hours, tied, voided."""
    events: list[LevelEvent] = []
    entry_ms = CHANGE_MS - 5_400_000
    for number in range(draw(st.integers(1, 14))):
        entry_ms += draw(st.sampled_from(gaps_s)) * 1000 + draw(st.integers(0, 999))
        position = (entry_ms, draw(st.integers(0, 1)), number, draw(st.integers(0, 3)))
        earlier = [event for event in events if event.sign > 0]
        if earlier and draw(st.integers(0, 4)) == 0:
            original = draw(st.sampled_from(earlier))
            taken = any(event.sign < 0 and event.number == original.number for event in events)
            if not taken and original.position < position:
                void = LevelEvent(
                    position, original.tenant, original.time_us, original.level, original.model, original.number, -1
                )
                events.append(void)
                continue
        late_us = draw(st.sampled_from(late_s)) * 1_000_000 + draw(st.integers(0, 999_999))
        time_us = entry_ms * 1000 - late_us
        if earlier and draw(st.integers(0, 3)) == 0:
            time_us = min(time_us, earlier[-1].time_us)
        if whole_seconds:
            time_us -= time_us % 1_000_000
        level = draw(st.one_of(st.sampled_from([0, 1, 10**12]), st.integers(-(10**30) + 1, 10**30 - 1)))
        tenant, model = draw(st.sampled_from(TENANTS)), draw(st.sampled_from(["a", "b"]))
        events.append(LevelEvent(position, tenant, time_us, level, model, number))
    return sorted(events, key=lambda event: event.position)


def deliveries(random: Random, events: list[LevelEvent], revisions: History, end_ms: int) -> list[Item]:
    """Return what book gets: each sender its events in position order and markers behind them, interleaved."""
    times = sorted({event.position[0] for event in events})
    marks = sorted({*random.sample(times, random.randint(0, min(6, len(times)))), end_ms})
    queues: list[list[Item]] = []
    for number, sender in enumerate(SENDERS):
        rest = [event for event in events if event.number % len(SENDERS) == number]
        queue: list[Item] = []
        for mark_ms in marks:
            # A marker may come late, never early: more than it speaks for may be in front of it.
            upto = sum(event.position[0] < mark_ms for event in rest) + random.choice([0, 0, 1, 3])
            queue.extend(_partials(random, rest[:upto], revisions))
            rest = rest[upto:]
            queue.append(Marker(sender, mark_ms))
        queues.append(queue)
    out: list[Item] = []
    while any(queues):
        queue = random.choice([queue for queue in queues if queue])
        count = random.randint(1, 4)
        out.extend(queue[:count])
        del queue[:count]
    return out


def _partials(random: Random, events: list[LevelEvent], revisions: History) -> list[Item]:
    out: list[Item] = []
    for revision in revisions.revisions:
        part = [event for event in events if revisions.at(event.position[0]) is revision]
        while part:
            count = random.randint(1, len(part))
            frame = to_frame(part[:count])
            out.append(Partials(0, partial_sums(frame.sample(fraction=1, shuffle=True, seed=1), revision)))
            part = part[count:]
    return out


class Collected:
    """What a run emitted; a sealed fact that changes fails."""

    def __init__(self) -> None:
        self.facts: dict[Key, Fact] = {}
        self.problems: dict[tuple[str, str, str, int], int] = {}

    def add(self, items: list[Any]) -> None:
        for item in items:
            if isinstance(item, Facts):
                assert item.frame.get_column("sealed").min() == 1, "levels have no open facts"
                for row in item.frame.iter_rows(named=True):
                    key = (row["meter"], row["tenant"], row["dimensions"], row["usage_minute"], row["booked_minute"])
                    fact = (row["value"], row["events"], row["version"])
                    assert self.facts.setdefault(key, fact) == fact, f"sealed fact changed: {key}"
            elif isinstance(item, Exceptions):
                for kind, tenant, meter, minute, events in item.frame.select(
                    "kind", "tenant", "meter", "booked_minute", "events"
                ).iter_rows():
                    self.problems[kind, tenant, meter, minute] = events


def run(random: Random, items: list[Item], revisions: History) -> Collected:
    """Feed the items in calls of any size; snapshot and fall back to the snapshot at any time."""
    got, log = Collected(), MemorySet()
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


SETTINGS = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


@SETTINGS
@given(
    st.integers(0, 2**32),
    events_strategy(),
    st.sampled_from([(60, 60), (0, 60), (120, 0), (60, 3600)]),
    st.sampled_from([(None, None), ("PT90M", "PT90M"), ("PT45M", "PT3H"), ("PT3H", "PT1S")]),
)
def test_sealed_facts_equal_the_naive_integral(
    seed: int, events: list[LevelEvent], graces_s: tuple[int, int], expiries: tuple[str | None, str | None]
) -> None:
    revisions = level_history(graces_s, expiries)
    random = Random(seed)
    end_minute = max(event.position[0] for event in events) // 60_000 + 200
    got = run(random, deliveries(random, events, revisions, end_minute * 60_000), revisions)
    border = SealPoints(revisions).border(end_minute * 60_000)
    assert got.facts == sealed(events, revisions, border)


DAY_S = 86_400


@SETTINGS
@given(
    st.integers(0, 2**32),
    events_strategy(
        gaps_s=(1, 3600, DAY_S, 3 * DAY_S, 9 * DAY_S), late_s=(0, 0, 1, 7000, DAY_S, 34 * DAY_S), whole_seconds=True
    ),
)
def test_over_months_all_facts_of_an_hour_add_up_to_its_integral(seed: int, events: list[LevelEvent]) -> None:
    """Given lateness and voids over a month back; then folding old changes takes nothing away."""
    revisions = level_history(expiries=("P20D", "P20D"))
    events = [event for event in events if event.sign > 0 or _is_in_reach(event, events)]
    end_minute = max(event.position[0] for event in events) // 60_000 + 50 * 1440
    random = Random(seed)
    got = run(random, deliveries(random, events, revisions, end_minute * 60_000), revisions)
    border = SealPoints(revisions).border(end_minute * 60_000)
    assert _by_hour(got.facts) == _final(events, border)
    assert not got.problems


def _is_in_reach(void: LevelEvent, events: list[LevelEvent]) -> bool:
    """Dedupe lets a void pass while its original is within the horizon of 35 arrival days."""
    original = next(event for event in events if event.number == void.number and event.sign > 0)
    return original.position[0] // 86_400_000 >= void.position[0] // 86_400_000 - 35


def _by_hour(facts: dict[Key, Fact]) -> dict[tuple[str, str, str, int], int]:
    hours: dict[tuple[str, str, str, int], int] = {}
    for (meter, tenant, dimensions, usage, _), (value, _, _) in facts.items():
        place = (meter, tenant, dimensions, usage // 60)
        hours[place] = hours.get(place, 0) + unscale(value)
    return {place: value for place, value in hours.items() if value}


def _final(events: list[LevelEvent], border: int) -> dict[tuple[str, str, str, int], int]:
    """Return the integral of each whole hour below the border, knowing everything."""
    hours: dict[tuple[str, str, str, int], int] = {}
    for meter, expiry in (("held", None), ("leased", 20 * DAY_S * 1_000_000)):
        for series in {event.series(meter) for event in events}:
            held = spans([event for event in events if event.series(meter) == series], border * MINUTE_US, expiry)
            for hour in range(min((since for since, _, _ in held), default=0) // (60 * MINUTE_US), border // 60):
                value = integral(held, hour * 60 * MINUTE_US, (hour + 1) * 60 * MINUTE_US)
                if value:
                    hours[*series, hour] = int(value)
    return hours
