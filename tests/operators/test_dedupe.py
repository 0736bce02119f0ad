"""Dedupe against a naive oracle that walks through all events one at a time, in position order."""

import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.meters import Meter
from config.revision import Configuration, History, Revision, Rules
from core.digests import tenant_shard
from core.errors import InvariantViolation, StateMismatch
from core.frames import EVENT_SCHEMA, PARTIAL_SCHEMA, POSITION, REJECT_SCHEMA
from core.reasons import RAW_BYTES_MAX
from operators.dedupe import DedupeLogic, Item, Output
from operators.dedupe_log import IdLog
from operators.items import Accepted, Counts, Marker, Partials, Rejects, ShardBatch
from operators.sums import partial_sums
from tests.operators.dedupe_cases import SCRATCH, HastyDisk, key
from tests.operators.dedupe_oracle import DAY0_MS, DAY_MS, SENDER, TENANT_SHARDS, Event, Position, oracle


def batch(events: list[Event], revision: Revision) -> ShardBatch:
    """Return what decode would send for these events, all of one revision."""
    rows = [event for event in events if not event.reason]
    digests = [key(event.number) for event in rows]
    data: dict[str, list[Any]] = {name: [event.position[at] for event in rows] for at, name in enumerate(POSITION)}
    data |= {
        "source": ["s"] * len(rows),
        "id": [str(event.number) for event in rows],
        "type": ["meterbridge.void" if event.void else event.type for event in rows],
        "tenant": [event.tenant for event in rows],
        "event_time_us": [event.position[0] * 1000 for event in rows],
        "usage_time_us": [
            (7 if event.has_time else None) if event.void else event.position[0] * 1000 for event in rows
        ],
        "raw": [orjson.dumps({"data": {"type": event.type}}).decode() for event in rows],
        "identity_hi": [digest[0] for digest in digests],
        "identity_lo": [digest[1] for digest in digests],
        "content": [event.content for event in rows],
        "void_content": [event.void for event in rows],
        "sign": [-1 if event.void else 1 for event in rows],
    }
    frame = pl.DataFrame(data, schema=EVENT_SCHEMA)
    for meter in revision.meters.values():
        applies = pl.Series([event.type == meter.event_type for event in rows], dtype=pl.Boolean)
        frame = frame.with_columns(
            pl.when(applies).then(pl.lit(1)).cast(pl.Decimal(38, 12)).alias(f"v:{meter.id}"),
            pl.when(applies).then(pl.lit("{}")).alias(f"d:{meter.id}"),
        )
    rejects = [(*event.position, event.reason, "why", b"raw", event.counted) for event in events if event.reason]
    return ShardBatch(frame, pl.DataFrame(rejects, schema=REJECT_SCHEMA, orient="row"))


@dataclass
class Seen:
    """What came out, with what a replayed epoch wrote again replacing what it wrote before."""

    accepted: dict[Position, int] = field(default_factory=dict)
    refused: set[tuple[Position, str]] = field(default_factory=set)
    counts: dict[tuple[int, int, str, str], int] = field(default_factory=dict)
    watermarks_ms: list[int] = field(default_factory=list)
    sums: Counter[str] = field(default_factory=Counter)

    def take(self, out: list[Output]) -> None:
        kinds = [type(item) for item in out]
        order = [Accepted, Rejects, Counts, Partials, Marker]
        assert kinds == sorted(kinds, key=order.index)
        assert kinds.count(Marker) <= 1
        for item in out:
            if isinstance(item, Accepted):
                positions = item.frame.select(POSITION).rows()
                assert positions == sorted(positions)
                self.accepted.update(zip(positions, item.frame.get_column("usage_time_us").to_list(), strict=True))
            elif isinstance(item, Rejects):
                assert item.frame.schema == pl.Schema(REJECT_SCHEMA)
                self.refused |= {(row[:4], row[4]) for row in item.frame.select(*POSITION, "reason").iter_rows()}
            elif isinstance(item, Counts):
                for stream, shard, minute, outcome, reason, events in item.frame.iter_rows():
                    assert shard == "id-00"
                    # The table keeps the highest: a replay may begin again with a lower one.
                    key_of_row = (stream, minute, outcome, reason)
                    self.counts[key_of_row] = max(events, self.counts.get(key_of_row, 0))
            elif isinstance(item, Partials):
                assert item.frame.schema == pl.Schema(PARTIAL_SCHEMA)
                for tenant, events in item.frame.select("tenant", "events").iter_rows():
                    assert tenant_shard(tenant, TENANT_SHARDS) == item.tenant_shard
                    self.sums[tenant] += events
            else:
                assert item.sender == "id-00"
                self.watermarks_ms.append(item.watermark_ms)


def make_history(horizons_days: list[int], known_from_ms: list[int]) -> History:
    meters = (
        (Meter(id="calls", event_type="call", aggregation="count"),),
        (
            Meter(id="calls", event_type="call", aggregation="count"),
            Meter(id="o", event_type="other", aggregation="count"),
        ),
    )
    return History(
        [
            Revision(Configuration(meters=meters[number % 2], rules=Rules(dedupe_horizon_days=days)), start_ms)
            for number, (days, start_ms) in enumerate(zip(horizons_days, [0, *known_from_ms], strict=True))
        ]
    )


def make_events(chance: random.Random, size: int) -> list[Event]:
    """Return events in position order: few ids, several contents, voids, gaps of minutes and days."""
    events: list[Event] = []
    ms, seq = DAY0_MS, 0
    for _ in range(size):
        if chance.random() < 0.5:
            seq += 1
        else:
            gap_ms = chance.choice([1, 1, 1, 40_000, 60_000, DAY_MS // 3, DAY_MS])
            ms, seq = ms + gap_ms, 0
        position = (ms, chance.randrange(2), seq, chance.randrange(3))
        if events and position <= events[-1].position:
            position = (ms, events[-1].position[1], seq, events[-1].position[3] + 1)
            seq = position[2]
            if position <= events[-1].position:
                continue
        if chance.random() < 0.1:
            events.append(Event(position, reason=chance.choice(["too_old", "malformed_json"])))
            continue
        number = chance.choice([*range(8), 1000, 1001])
        event = Event(
            position,
            number,
            content=1 if chance.random() < 0.8 else 2,
            void=chance.choice([0, 0, 0, 11, 12]),
            type=chance.choice(["call", "call", "other"]),
            tenant=f"tenant-{number % 5}",
            has_time=chance.random() < 0.5,
        )
        events.append(event)
        if chance.random() < 0.1:
            events.append(Event(position, reason="invalid_quantity", counted=False))
    return events


def items_of(chance: random.Random, events: list[Event], history: History) -> list[list[Item]]:
    """Split events into calls, batches and markers at random; batches end where a revision begins."""
    calls: list[list[Item]] = []
    at = 0
    while at < len(events):
        items: list[Item] = []
        for _ in range(chance.choice([1, 1, 3])):
            end = min(len(events), at + chance.choice([1, 2, 9, 30]))
            # Rows of one event are never torn apart.
            while end < len(events) and events[end].position == events[end - 1].position:
                end += 1
            for revision in history.revisions:
                part = [e for e in events[at:end] if history.at(e.position[0]) is revision]
                if part:
                    items.append(batch(part, revision))
            at = end
        if chance.random() < 0.6:
            last_ms = events[at - 1].position[0] if at else DAY0_MS
            items.append(Marker(SENDER, last_ms))
        calls.append(items)
    calls.append([Marker(SENDER, events[-1].position[0] + 60_000) if events else Marker(SENDER, 0)])
    return calls


def open_logic(directory: Path, history: History, state: dict[str, Any] | None, seal: int) -> tuple[IdLog, DedupeLogic]:
    log = IdLog.open(directory, state and state["log"], disk=HastyDisk(), seal_records=seal, background=False)
    return log, DedupeLogic("id-00", log, history, TENANT_SHARDS, partial_sums, state, senders=(SENDER,))


HISTORIES = [
    make_history([3], []),
    make_history([35], []),
    make_history([2, 5], [DAY0_MS + 4 * DAY_MS + 7_000]),
    make_history([1, 6], [DAY0_MS + 3 * DAY_MS]),
    make_history([5, 1, 4], [DAY0_MS + 3 * DAY_MS, DAY0_MS + 6 * DAY_MS + 40_000]),
]


@settings(max_examples=120, deadline=None)
@given(seed=st.integers(0, 2**32), history=st.sampled_from(HISTORIES), seal=st.sampled_from([3, 20, 10_000]))
def test_equals_the_oracle_whatever_the_batches_and_crashes(seed: int, history: History, seal: int) -> None:
    chance = random.Random(seed)
    events = make_events(chance, chance.randrange(0, 120))
    expected = oracle(events, history)
    seen = Seen()
    with TemporaryDirectory(dir=SCRATCH) as name:
        directory = Path(name) / "shard"
        log, logic = open_logic(directory, history, None, seal)
        state: dict[str, Any] | None = None
        replayed_from, sums_then, at = 0, Counter[str](), 0
        calls = items_of(chance, events, history)
        while at < len(calls):
            seen.take(logic.process(calls[at]))
            at += 1
            step = chance.random()
            if step < 0.3:
                taken = logic.snapshot()
                if chance.random() < 0.8 or state is None:
                    state, replayed_from, sums_then = taken, at, seen.sums.copy()
                else:  # died before the engine stored it
                    step = 0.99
                if chance.random() < 0.5 and at < len(calls) and step < 0.3:
                    continue
            if step > 0.85 and (state is not None or not log._sealed.manifest.committed):
                log.close()
                log, logic = open_logic(directory, history, state, seal)
                at, seen.sums = replayed_from, sums_then.copy()
        log.close()
    assert sorted(seen.accepted.items()) == sorted(expected.accepted)
    assert sorted(seen.refused) == sorted(set(expected.refused))
    assert seen.counts == dict(expected.counts)
    assert +seen.sums == +expected.sums
    assert seen.watermarks_ms


# --- single rules --------------------------------------------------------------------------------------------


@pytest.fixture
def history() -> History:
    return HISTORIES[1]


@pytest.fixture
def logic(quick_path: Path, history: History) -> DedupeLogic:
    return open_logic(quick_path / "shard", history, None, 10_000)[1]


def run(logic: DedupeLogic, history: History, *events: Event) -> Seen:
    seen = Seen()
    seen.take(logic.process([batch(list(events), history.latest), Marker(SENDER, events[-1].position[0])]))
    return seen


def at(ms: int, index: int = 0) -> Position:
    return (DAY0_MS + ms, 0, 0, index)


def test_the_horizon_is_whole_arrival_days(logic: DedupeLogic, history: History) -> None:
    first = Event((DAY0_MS + DAY_MS - 1, 0, 0, 0), 1)
    last_in_reach = Event((DAY0_MS + 36 * DAY_MS - 1, 0, 0, 0), 1)
    first_out_of_reach = Event((DAY0_MS + 36 * DAY_MS, 0, 0, 0), 1)
    assert list(run(logic, history, first).accepted) == [first.position]
    assert not run(logic, history, last_in_reach).accepted
    assert list(run(logic, history, first_out_of_reach).accepted) == [first_out_of_reach.position]


def test_an_original_after_its_refused_void_counts_and_stays(logic: DedupeLogic, history: History) -> None:
    seen = run(logic, history, Event(at(0), 1, void=11), Event(at(0, 1), 1))
    assert seen.refused == {(at(0), "unmatched_void")}
    assert list(seen.accepted) == [at(0, 1)]


def test_original_and_void_in_one_batch(logic: DedupeLogic, history: History) -> None:
    events = [Event(at(0), 1), Event(at(61_000, 1), 1, void=11, has_time=False), Event(at(61_000, 2), 1, void=11)]
    seen = run(logic, history, *events, Event(at(61_000, 3), 1, void=12), Event(at(61_000, 4), 1))
    assert seen.accepted == {at(0): DAY0_MS * 1000, at(61_000, 1): DAY0_MS * 1000}
    assert seen.refused == {(at(61_000, 3), "already_voided")}
    minute = DAY0_MS // 60_000
    assert seen.counts == {
        (0, minute, "accepted", ""): 1,
        (0, minute + 1, "accepted", ""): 1,
        (0, minute + 1, "duplicate", ""): 2,
        (0, minute + 1, "rejected", "already_voided"): 1,
    }
    assert +seen.sums == Counter()


def test_a_conflict_says_both_digests_and_cuts_the_raw_event(logic: DedupeLogic, history: History) -> None:
    frames = batch([Event(at(0), 1, content=0xAB), Event(at(0, 1), 1, content=0xCD)], history.latest)
    long = frames.events.with_columns(pl.lit("x" * (RAW_BYTES_MAX + 5)).alias("raw"))
    out = logic.process([ShardBatch(long, frames.rejects)])
    (rejects,) = [item.frame for item in out if isinstance(item, Rejects)]
    row = rejects.row(0, named=True)
    assert row["reason"] == "conflicting_duplicate"
    assert "00000000000000cd" in row["detail"]
    assert "00000000000000ab" in row["detail"]
    assert f"raw cut at {RAW_BYTES_MAX} of {RAW_BYTES_MAX + 5} bytes" in row["detail"]
    assert row["raw"] == b"x" * RAW_BYTES_MAX
    assert row["counted"] is True


def test_the_lowest_watermark_goes_on_once_a_call(quick_path: Path, history: History) -> None:
    log = IdLog.open(quick_path / "s", None)
    logic = DedupeLogic("id-00", log, history, 3, partial_sums, None, senders=("a", "b"))
    assert logic.process([Marker("a", 50)]) == [Marker("id-00", 0)]
    assert logic.process([Marker("b", 30), Marker("a", 70), Marker("b", 60)]) == [Marker("id-00", 60)]
    assert logic.process([Marker("b", 10)]) == [Marker("id-00", 60)], "a marker is passed on, never backward"
    assert logic.process([]) == []
    with pytest.raises(InvariantViolation, match="unknown sender c"):
        logic.process([Marker("c", 1)])


def test_several_senders_are_put_in_position_order(quick_path: Path, history: History) -> None:
    log = IdLog.open(quick_path / "s", None)
    logic = DedupeLogic("id-00", log, history, 3, partial_sums, None, senders=("a", "b"))
    later = batch([Event(at(9), 1), Event(at(10), 2)], history.latest)
    earlier = batch([Event(at(5), 1), Event(at(11), 3)], history.latest)
    seen = Seen()
    seen.take(logic.process([later, earlier]))
    assert list(seen.accepted) == [at(5), at(10), at(11)]


def test_counts_of_a_passed_minute_are_forgotten(logic: DedupeLogic, history: History) -> None:
    run(logic, history, Event(at(0), 1))
    assert len(logic.snapshot()["counts"]["events"]) == 1
    logic.process([Marker(SENDER, DAY0_MS + 60_000)])
    assert logic.snapshot()["counts"]["events"] == []
    with pytest.raises(InvariantViolation, match="stream went backward"):
        run(logic, history, Event(at(1), 2))


def test_unchanged_counts_are_not_sent_again(logic: DedupeLogic, history: History) -> None:
    assert run(logic, history, Event(at(0), 1)).counts
    assert logic.process([Marker(SENDER, DAY0_MS + 5)]) == [Marker("id-00", DAY0_MS + 5)]


def test_changed_counts_survive_a_resume(quick_path: Path, history: History) -> None:
    log, logic = open_logic(quick_path / "shard", history, None, 100)
    logic.process([batch([Event(at(0), 1)], history.latest)])
    state = logic.snapshot()
    log.close()
    _, logic = open_logic(quick_path / "shard", history, state, 100)
    seen = Seen()
    seen.take(logic.process([Marker(SENDER, DAY0_MS + 60_000)]))
    assert seen.counts == {(0, DAY0_MS // 60_000, "accepted", ""): 1}


def test_a_state_of_other_readers_is_refused(quick_path: Path, history: History) -> None:
    log, logic = open_logic(quick_path / "shard", history, None, 100)
    state = logic.snapshot()
    with pytest.raises(StateMismatch, match="METERBRIDGE_FLOW__READERS is fixed"):
        DedupeLogic("id-00", log, history, 3, partial_sums, state, senders=("a", "b"))
    with pytest.raises(StateMismatch, match="run the release that wrote it"):
        DedupeLogic("id-00", log, history, 3, partial_sums, state | {"version": 9}, senders=(SENDER,))


def test_the_log_forgets_what_no_event_can_ask_for(quick_path: Path) -> None:
    history = make_history([3], [])
    log, logic = open_logic(quick_path / "shard", history, None, 1)
    for day in range(8):
        run(logic, history, Event((DAY0_MS + day * DAY_MS, 0, 0, 0), day))
        state = logic.snapshot()
    logic.process([])
    assert state["log"]["expired_before"] == (DAY0_MS // DAY_MS + 4) * 1440
    assert 4 <= log.ids < 8
