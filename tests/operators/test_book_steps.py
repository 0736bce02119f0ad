"""Single rules of book, each by a small case; the whole is compared with the oracle in test_book."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from core.errors import InvariantViolation, StateMismatch
from core.frames import FACT_SCHEMA
from operators.book import BookLogic
from operators.book_limit import OVERFLOW
from operators.dedupe_log import IdLog
from operators.items import Exceptions, Facts, Marker, Partials
from operators.sums import partial_sums
from tests.operators.book_oracle import BORDER_MINUTE, Event, MemorySet, history, to_frame

HISTORY = history()
MINUTE = BORDER_MINUTE + 10
START_MS = MINUTE * 60_000
SEAL_MS = START_MS + 120_000
USERS_ONLY = ("calls", "tokens", "peak", "floor", "level")


def one(offset_ms: int = 0, **changes: Any) -> Event:
    plain: dict[str, Any] = {
        "position": (START_MS + offset_ms, 0, 0, 0),
        "tenant": "a",
        "time_us": (START_MS + offset_ms) * 1000,
        "value": Decimal(1),
        "model": "x",
        "user": "u",
        "excluded": ("calls", "peak", "floor", "level", "users"),
    }
    return Event(**(plain | changes))


def partials(*events: Event) -> Partials:
    return Partials(0, partial_sums(to_frame(list(events)), HISTORY.latest))


def book(*senders: str, state: dict[str, Any] | None = None, **rules: Any) -> BookLogic:
    return BookLogic("me", senders or ("s",), history(**rules), MemorySet(state and state["unique"]), state)


def facts(out: list[Any], *, sealed: int) -> list[tuple[Any, ...]]:
    frames = [item.frame.filter(pl.col("sealed") == sealed) for item in out if isinstance(item, Facts)]
    rows = pl.concat(frames) if frames else pl.DataFrame(schema=FACT_SCHEMA)
    return rows.select("usage_minute", "value", "events", "version").sort("usage_minute", "version").rows()


def markers(out: list[Any]) -> list[int]:
    return [item.watermark_ms for item in out if isinstance(item, Marker)]


# --- markers -------------------------------------------------------------------------------------------------


def test_minimum_of_all_senders_counts_and_only_complete_ticks_are_forwarded() -> None:
    logic = book("a", "b")
    assert logic.process([Marker("a", 500)]) == []
    assert markers(logic.process([Marker("b", 300)])) == [300]
    assert logic.process([Marker("a", 600)]) == []
    assert markers(logic.process([Marker("b", 450)])) == [450]


def test_round_without_advance_is_forwarded_once() -> None:
    logic = book("a", "b")
    logic.process([Marker("a", 500), Marker("b", 300)])
    assert logic.process([Marker("b", 300)]) == []
    assert markers(logic.process([Marker("a", 500)])) == [300]
    assert logic.process([Marker("a", 500)]) == []


def test_lower_marker_takes_nothing_back() -> None:
    logic = book("a")
    logic.process([Marker("a", 500)])
    assert markers(logic.process([Marker("a", 400)])) == [500]


def test_marker_of_a_stranger_stops_the_flow() -> None:
    with pytest.raises(InvariantViolation, match="no sender"):
        book("a").process([Marker("z", 1)])


def test_marker_comes_last_and_bears_the_own_key() -> None:
    out = book().process([partials(one()), Marker("s", SEAL_MS)])
    assert [type(item) for item in out] == [Facts, Marker]
    assert out[-1] == Marker("me", SEAL_MS)


# --- sealing -------------------------------------------------------------------------------------------------


def test_minute_seals_at_its_end_plus_the_grace_and_not_before() -> None:
    logic = book()
    out = logic.process([partials(one()), Marker("s", SEAL_MS - 1)])
    assert facts(out, sealed=1) == []
    assert facts(out, sealed=0) == [(MINUTE, 1, 1, 1)]
    out = logic.process([Marker("s", SEAL_MS)])
    assert facts(out, sealed=1) == [(MINUTE, 1, 1, 1)]
    assert facts(out, sealed=0) == []


def test_sealed_minute_never_opens_again() -> None:
    logic = book()
    logic.process([partials(one()), Marker("s", SEAL_MS)])
    with pytest.raises(InvariantViolation, match="which are sealed"):
        logic.process([partials(one(1000))])


def test_late_usage_is_booked_at_its_arrival_and_keeps_its_usage_minute() -> None:
    logic = book()
    late = one(130_000, time_us=START_MS * 1000, value=Decimal(7))
    logic.process([partials(one()), Marker("s", SEAL_MS)])
    out = logic.process([partials(late), Marker("s", SEAL_MS + 120_000)])
    frame = out[0].frame if isinstance(out[0], Facts) else pl.DataFrame()
    assert frame.select("usage_minute", "booked_minute", "value", "sealed").rows() == [(MINUTE, MINUTE + 2, 7, 1)]


def test_minutes_leave_in_order() -> None:
    logic = book()
    events = [one(minute * 60_000, position=(START_MS + minute * 60_000, 0, 0, 0)) for minute in (3, 0, 2, 1)]
    out = logic.process([partials(*events), Marker("s", SEAL_MS + 600_000)])
    assert isinstance(out[0], Facts)
    assert out[0].frame.get_column("booked_minute").to_list() == [MINUTE + minute for minute in range(4)]
    assert dict(out[0].frame.schema) == FACT_SCHEMA


# --- open facts ------------------------------------------------------------------------------------------------


def test_open_facts_are_absolute_and_only_sent_when_changed() -> None:
    logic = book()
    out = logic.process([partials(one()), Marker("s", START_MS + 1)])
    assert facts(out, sealed=0) == [(MINUTE, 1, 1, 1)]
    assert facts(logic.process([Marker("s", START_MS + 2)]), sealed=0) == []
    out = logic.process([partials(one(5, sign=-1)), Marker("s", START_MS + 10)])
    assert facts(out, sealed=0) == [(MINUTE, 0, 0, 2)]


def test_fact_waits_until_its_series_lies_below_the_watermark() -> None:
    logic = book()
    assert facts(logic.process([partials(one(5)), Marker("s", START_MS + 5)]), sealed=0) == []
    assert facts(logic.process([Marker("s", START_MS + 6)]), sealed=0) == [(MINUTE, 1, 1, 1)]


def test_open_facts_leave_once_an_epoch_while_minutes_seal() -> None:
    logic = book()
    first = logic.process([partials(one(), one(60_000)), Marker("s", SEAL_MS)])
    assert (len(facts(first, sealed=1)), len(facts(first, sealed=0))) == (1, 1)
    second = logic.process([partials(one(170_000)), Marker("s", SEAL_MS + 60_000)])
    assert (len(facts(second, sealed=1)), len(facts(second, sealed=0))) == (1, 0)
    logic.snapshot()
    third = logic.process([partials(one(200_000)), Marker("s", SEAL_MS + 120_000)])
    assert (len(facts(third, sealed=1)), len(facts(third, sealed=0))) == (1, 1)


def test_unique_values_are_provisional_while_open() -> None:
    logic = book()
    events = [
        one(number, user=f"u{number % 3}", position=(START_MS, 0, number, 0), excluded=USERS_ONLY)
        for number in range(9)
    ]
    out = logic.process([partials(*events), Marker("s", START_MS + 1)])
    assert facts(out, sealed=0) == [(MINUTE, 3, 9, 9)]
    logic.process([Marker("s", SEAL_MS)])
    again = [one(120_000 + number, user=f"u{number}", excluded=USERS_ONLY) for number in range(4)]
    out = logic.process([partials(*again), Marker("s", SEAL_MS + 100)])
    assert facts(out, sealed=0) == [(MINUTE + 2, 1, 4, 4)]
    assert facts(logic.process([Marker("s", SEAL_MS + 120_000)]), sealed=1) == [(MINUTE + 2, 1, 4, 4)]


# --- state -----------------------------------------------------------------------------------------------------


def test_unchanged_slots_keep_their_bytes() -> None:
    logic = book()
    logic.process([partials(one(), one(60_000)), Marker("s", START_MS + 70_000)])
    first = logic.snapshot()
    logic.process([partials(one(60_001)), Marker("s", START_MS + 70_001)])
    second = logic.snapshot()
    assert second["slots"][MINUTE] is first["slots"][MINUTE]
    assert second["slots"][MINUTE + 1] is not first["slots"][MINUTE + 1]
    logic.process([Marker("s", SEAL_MS)])
    assert logic.snapshot()["slots"].keys() == {MINUTE + 1}
    assert first["slots"].keys() == {MINUTE, MINUTE + 1}


def test_state_is_for_one_version_and_one_set_of_senders() -> None:
    state = book("a", "b").snapshot()
    with pytest.raises(StateMismatch, match="fixed at `migrate`"):
        book("a", state=state)
    with pytest.raises(StateMismatch, match="version 99"):
        book("a", "b", state=state | {"version": 99})


def test_restart_knows_the_border_and_what_was_sent() -> None:
    logic = book()
    logic.process([partials(one(), one(60_000)), Marker("s", SEAL_MS)])
    again = book(state=logic.snapshot())
    assert facts(again.process([Marker("s", SEAL_MS + 1)]), sealed=0) == []
    with pytest.raises(InvariantViolation, match="which are sealed"):
        again.process([partials(one(1000))])
    assert facts(again.process([Marker("s", SEAL_MS + 60_000)]), sealed=1) == [(MINUTE + 1, 1, 1, 1)]


def test_commit_is_told_once_by_the_first_call_after_a_snapshot() -> None:
    log = MemorySet()
    logic = BookLogic("me", ("s",), HISTORY, log, None)
    logic.process([Marker("s", 1)])
    assert log.commits == 0
    logic.snapshot()
    logic.process([Marker("s", 2)])
    logic.process([Marker("s", 3)])
    assert log.commits == 1


def test_real_log_resumes_with_the_state(tmp_path: Path) -> None:
    log = IdLog.open(tmp_path, None)
    logic = BookLogic("me", ("s",), HISTORY, log, None)
    logic.process([partials(one(user="u1", excluded=USERS_ONLY)), Marker("s", SEAL_MS)])
    state = logic.snapshot()
    lost: list[Partials | Marker] = [
        partials(one(120_000, user="u2", excluded=USERS_ONLY)),
        Marker("s", SEAL_MS + 120_000),
    ]
    assert facts(logic.process(lost), sealed=1) == [(MINUTE + 2, 1, 1, 1)]
    log.close()

    log = IdLog.open(tmp_path, state["unique"])
    logic = BookLogic("me", ("s",), HISTORY, log, state)
    assert facts(logic.process(lost), sealed=1) == [(MINUTE + 2, 1, 1, 1)]
    both: list[Partials | Marker] = [
        partials(one(300_000, user="u1", excluded=USERS_ONLY), one(300_001, user="u2", excluded=USERS_ONLY))
    ]
    assert facts(logic.process([*both, Marker("s", SEAL_MS + 600_000)]), sealed=1) == [(MINUTE + 5, 0, 2, 2)]
    log.close()


# --- limits ------------------------------------------------------------------------------------------------------


def test_series_over_the_limit_are_folded_while_open() -> None:
    logic = book(series_max=(10, 10))
    for batch in range(20):
        events = [
            one(
                batch * 100 + number,
                model=f"m{batch * 100 + number}",
                position=(START_MS + batch * 100 + number, 0, 0, 0),
            )
            for number in range(100)
        ]
        logic.process([partials(*events), Marker("s", START_MS + batch * 100 + 100)])
        assert len(logic._open) <= 11, "memory stays bounded"
    out = logic.process([Marker("s", SEAL_MS)])
    sealed = next(item.frame for item in out if isinstance(item, Facts))
    overflow = sealed.filter(pl.col("dimensions") == OVERFLOW)
    assert (len(sealed), overflow.item(0, "value"), overflow.item(0, "version")) == (11, 1990, 1990)
    kept = sealed.filter(pl.col("dimensions") != OVERFLOW).get_column("dimensions").to_list()
    assert sorted(kept) == sorted(f'{{"model":"m{number}"}}' for number in range(10))
    found = next(item.frame for item in out if isinstance(item, Exceptions))
    assert found.select("kind", "tenant", "meter", "booked_minute", "events").rows() == [
        ("cardinality_limit", "a", "tokens", MINUTE, 1990)
    ]
    assert [type(item) for item in out] == [Facts, Exceptions, Marker]


def test_nothing_is_folded_before_the_watermark_decides() -> None:
    """A series over the limit may still turn out to have begun earlier, on another shard."""
    logic = book("a", "b", series_max=(1, 1))
    early = [one(50, model="second"), one(55, model="first")]
    logic.process([partials(*early), Marker("a", START_MS + 60), Marker("b", START_MS)])
    logic.process([partials(one(40, model="first", value=Decimal(10))), Marker("b", START_MS + 60)])
    out = logic.process([Marker("a", SEAL_MS), Marker("b", SEAL_MS)])
    sealed = next(item.frame for item in out if isinstance(item, Facts))
    assert sorted(sealed.select("dimensions", "value").rows()) == [(OVERFLOW, 1), ('{"model":"first"}', 11)]


def test_first_position_of_a_series_counts_over_all_its_usage_minutes() -> None:
    """Late events: 20 series, each with several usage minutes; those that began first stay."""
    logic = book(series_max=(5, 5))
    events = [
        one(
            number,
            position=(START_MS + 10_000 + number, 0, 0, 0),
            time_us=(START_MS - (1 + 7 * number % 5) * 600_000) * 1000,
            model=f"m{(number * 7) % 20}",
        )
        for number in range(100)
    ]
    out = logic.process([*(partials(event) for event in reversed(events)), Marker("s", SEAL_MS)])
    sealed = next(item.frame for item in out if isinstance(item, Facts))
    kept = set(sealed.get_column("dimensions").to_list()) - {OVERFLOW}
    assert kept == {f'{{"model":"m{(number * 7) % 20}"}}' for number in range(5)}
    assert sealed.get_column("events").sum() == 100


def test_values_of_folded_series_count_once_in_the_overflow_series() -> None:
    """Also if the series was looked at under its own name before the limit was decided."""
    logic = book("a", "b", series_max=(1, 1))
    early = [one(50, model="kept", user="u0", excluded=USERS_ONLY), one(55, model="third", excluded=USERS_ONLY)]
    logic.process([partials(*early), Marker("a", START_MS + 60), Marker("b", START_MS)])
    logic.process([Marker("a", SEAL_MS), Marker("b", SEAL_MS)])
    again = [one(300_000, model="kept", user="u0", excluded=USERS_ONLY), one(300_001, model="m9", excluded=USERS_ONLY)]
    end_ms = SEAL_MS + 600_000
    out = logic.process([partials(*again), Marker("a", end_ms), Marker("b", end_ms)])
    assert facts(out, sealed=1) == [(MINUTE + 5, 0, 1, 1), (MINUTE + 5, 0, 1, 1)]
