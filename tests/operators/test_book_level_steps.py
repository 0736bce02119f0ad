"""Single rules of levels, each by a small case; the whole is compared with the naive integral in test_book_levels."""

from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from config.meters import Meter
from config.revision import Configuration, History, Revision
from core.errors import StateMismatch
from operators.book import BookLogic
from operators.book_limit import OVERFLOW
from operators.items import Exceptions, Facts, Marker, Partials
from operators.rate_resolve import LATE, USAGE, VOID, slices
from operators.sums import partial_sums
from tests.operators.book_oracle import MemorySet
from tests.operators.levels_oracle import BORDER_MINUTE, LevelEvent, history, to_frame

HOUR = BORDER_MINUTE // 60 + 2
HOUR_MS = HOUR * 3_600_000
ONE = 10**12
GRACE_MS = 60_000
HISTORY = history()


def event(arrival_min: float, level: int, number: int, *, at_min: float | None = None, **changes: Any) -> LevelEvent:
    """Return a level change; minutes are counted from the beginning of HOUR."""
    time_min = arrival_min if at_min is None else at_min
    plain: dict[str, Any] = {
        "position": (HOUR_MS + int(arrival_min * 60_000), 0, number, 0),
        "tenant": "nobody",
        "time_us": (HOUR_MS + int(time_min * 60_000)) * 1000,
        "level": level * ONE,
        "model": "a",
        "number": number,
    }
    return LevelEvent(**(plain | changes))


def book(revisions: History = HISTORY, state: dict[str, Any] | None = None) -> BookLogic:
    return BookLogic("me", ["s"], revisions, MemorySet(), state)


def after(logic: BookLogic, hours: int, *events: LevelEvent, revision: Revision = HISTORY.latest) -> list[Any]:
    """Hand the events over and seal that many hours from the beginning of HOUR on."""
    items: list[Any] = [Partials(0, partial_sums(to_frame(list(events)), revision))] if events else []
    return logic.process([*items, Marker("s", HOUR_MS + hours * 3_600_000 + GRACE_MS)])


def facts(out: list[Any], meter: str = "held") -> list[tuple[int, int, int, int, int]]:
    """Return (usage hour, booked minute; both from HOUR on; level-seconds, events, inputs)."""
    return sorted(
        (row["usage_minute"] // 60 - HOUR, row["booked_minute"] - HOUR * 60, *(int(row[name]) for name in COUNTED))
        for item in out
        if isinstance(item, Facts)
        for row in item.frame.iter_rows(named=True)
        if row["meter"] == meter
    )


COUNTED = ("value", "events", "version")


def problems(out: list[Any]) -> list[tuple[str, int]]:
    frames = [item.frame for item in out if isinstance(item, Exceptions)]
    return [row for frame in frames for row in frame.filter(frame["meter"] == "held").select("kind", "events").rows()]


def test_level_is_booked_each_hour_while_it_is_held_and_not_when_it_is_zero() -> None:
    logic = book()
    # 2 from minute 30 on: 2 x 1800 s; then 2 x 3600 s in an hour without any event.
    assert facts(after(logic, 1, event(30, 2, 1))) == [(0, 59, 3600, 1, 1)]
    assert facts(after(logic, 2)) == [(1, 119, 7200, 0, 0)]
    # Up to 0 at minute 15 of the third hour: 2 x 900 s.
    assert facts(after(logic, 3, event(135, 0, 2))) == [(2, 179, 1800, 1, 1)]
    assert facts(after(logic, 9)) == []


def test_hour_is_booked_no_earlier_than_its_last_minute_seals() -> None:
    logic = book()
    items: list[Any] = [Partials(0, partial_sums(to_frame([event(30, 2, 1)]), HISTORY.latest))]
    assert facts(logic.process([*items, Marker("s", HOUR_MS + 3_600_000 + GRACE_MS - 1)])) == []
    assert facts(logic.process([Marker("s", HOUR_MS + 3_600_000 + GRACE_MS)])) == [(0, 59, 3600, 1, 1)]


def test_late_change_corrects_the_hours_it_holds_in_and_no_other() -> None:
    logic = book()
    after(logic, 4, event(0, 1, 1), event(150, 5, 2))
    # 3 from minute 30 to the change at minute 150, arriving at minute 250: +2 x 1800, 3600 and 1800 s.
    assert facts(after(logic, 5, event(250, 3, 3, at_min=30))) == [
        (0, 250, 3600, 1, 1),
        (1, 250, 7200, 0, 0),
        (2, 250, 3600, 0, 0),
        (4, 299, 18_000, 0, 0),
    ]


def test_changes_of_one_minute_make_one_correction_per_hour() -> None:
    logic = book()
    after(logic, 2, event(0, 1, 1))
    # 4 from minute 0 and 2 from minute 30, arriving together: (3 + 1) x 1800 s, then 1 x 3600 s.
    late = [event(130, 4, 2, at_min=0), event(130.5, 2, 3, at_min=30)]
    assert facts(after(logic, 3, *late)) == [
        (0, 130, 7200, 2, 2),
        (1, 130, 3600, 0, 0),
        (2, 179, 7200, 0, 0),
    ]


def test_void_takes_a_change_back_from_booked_and_open_hours() -> None:
    logic = book()
    original = event(30, 6, 2)
    after(logic, 2, event(0, 1, 1), original)
    void = event(125, 6, 2, at_min=30, sign=-1)
    # 1 holds all the time: -5 x 1800 s, -5 x 3600 s; in the open hour nothing needs to be corrected.
    assert facts(after(logic, 3, void)) == [
        (0, 125, -9000, -1, 1),
        (1, 125, -18_000, 0, 0),
        (2, 179, 3600, 0, 0),
    ]


def test_void_in_the_hour_of_its_original_leaves_only_the_counts() -> None:
    assert facts(after(book(), 2, event(5, 6, 2), event(9, 6, 2, at_min=5, sign=-1))) == [(0, 59, 0, 0, 2)]


def test_void_of_a_change_the_meter_never_saw_is_an_exception() -> None:
    out = after(book(), 1, event(9, 6, 2, at_min=5, sign=-1))
    assert facts(out) == [(0, 59, 0, -1, 1)]
    assert problems(out) == [("level_void_unmatched", 1)]


def test_level_expires_unless_renewed() -> None:
    # `leased` expires after 90 minutes: 2 from minute 30 to 120.
    logic = book()
    out = [*after(logic, 1, event(30, 2, 1)), *after(logic, 5)]
    assert facts(out, "leased") == [(0, 59, 3600, 1, 1), (1, 119, 7200, 0, 0)]
    # Renewed in time, even if that is known late: 2 from minute 120 to 170.
    assert facts(after(logic, 6, event(305, 2, 2, at_min=80)), "leased") == [(1, 305, 0, 1, 1), (2, 305, 6000, 0, 0)]


def test_correction_of_held_hours_is_late_usage_and_a_void_is_a_void() -> None:
    logic = book()
    after(logic, 3, event(0, 5, 1))
    out = after(logic, 4, event(190, 2, 2, at_min=30))
    kinds = slices(next(item.frame for item in out if isinstance(item, Facts))).filter(meter="held")
    assert kinds.sort("usage_minute").get_column("kind").to_list() == [LATE, LATE, LATE, USAGE]
    assert kinds.get_column("value").min() < 0  # type: ignore[operator]
    out = after(logic, 5, event(250, 2, 2, at_min=30, sign=-1))
    kinds = slices(next(item.frame for item in out if isinstance(item, Facts))).filter(meter="held")
    assert kinds.sort("usage_minute").get_column("kind").to_list()[0] == VOID


def test_series_beyond_the_limit_share_the_overflow() -> None:
    revisions = history(series_per_tenant_minute_max=2)
    models = [event(place, place + 1, place, model=f"m{place}") for place in range(4)]
    out = after(book(revisions), 1, *models, revision=revisions.latest)
    assert problems(out) == [("cardinality_limit", 1)] * 2
    frame = next(item.frame for item in out if isinstance(item, Facts)).filter(meter="held")
    overflow = frame.filter(dimensions=OVERFLOW)
    # 3 for one minute, then 4 for the other 57.
    assert [int(value) for value in overflow.get_column("value")] == [3 * 60 + 4 * 57 * 60]
    assert len(frame) == 3


def test_more_changes_than_allowed_settle_the_oldest() -> None:
    revisions = history(level_changes_per_meter_max=10)
    logic = book(revisions)
    out = after(logic, 1, *(event(place, 1, place) for place in range(12)), revision=revisions.latest)
    assert problems(out) == [], "the changes of an hour that is not booked stay"
    out = after(logic, 2, event(61, 1, 20), revision=revisions.latest)
    # 13 less 10, and a tenth of 10 to spare.
    assert problems(out) == [("level_changes_limit", 4)]
    assert facts(out) == [(1, 119, 3600, 1, 1)]
    # What comes for the settled time changes nothing, but is counted and reported.
    out = after(logic, 3, event(125, 9, 21, at_min=2.5), event(126, 1, 4, at_min=4, sign=-1), revision=revisions.latest)
    assert facts(out)[:2] == [(0, 125, 0, 1, 1), (0, 126, 0, -1, 1)]
    assert problems(out) == [("level_settled", 1), ("level_settled", 1)]
    # What comes behind it still counts: 9 for half a minute.
    assert facts(after(logic, 4, event(185, 9, 22, at_min=5.5), revision=revisions.latest))[0] == (0, 185, 240, 1, 1)


def test_meter_that_is_gone_from_the_configuration_holds_nothing() -> None:
    gone_ms = HOUR_MS + 3_600_000 + 1_800_000
    without = HISTORY.latest.configuration.model_copy(update={"meters": ()})
    revisions = History([*HISTORY.revisions, Revision(without, gone_ms)])
    out = after(book(revisions), 5, event(0, 2, 1))
    # The hour in which it goes is still booked.
    assert facts(out) == [(0, 59, 7200, 1, 1), (1, 119, 7200, 0, 0)]


def test_state_is_bounded_by_what_can_still_be_reached() -> None:
    logic = book()
    for day in range(90):
        after(logic, day * 24 + 2, event(day * 1440 + 60, day + 1, day))
    held = logic.snapshot()["levels"]["days"]
    assert len(held) <= 38, "a change per day for the horizon, the one before it, and today's"
    logic = book(state=logic.snapshot())
    assert facts(after(logic, 89 * 24 + 3))[0][2] == 90 * 3600


DAY = 1440
MIDNIGHT = -(HOUR % 24) * 60
"""The minute, from HOUR on, at which its day began."""


def until(day: int) -> int:
    """Return the hours from HOUR to the beginning of that day, HOUR's being day 0."""
    return MIDNIGHT // 60 + day * 24


def test_latest_event_that_is_not_too_old_still_finds_its_place() -> None:
    logic = book()
    after(logic, until(1), event(MIDNIGHT + 600, 1, 1), event(MIDNIGHT + 1200, 0, 2))
    for day in range(2, 36):
        after(logic, until(day))
    late = event(MIDNIGHT + 35 * DAY + 900, 3, 3, at_min=MIDNIGHT + 900)
    out = after(logic, until(36), late)
    assert problems(out) == []
    # 3 instead of 1 from 15:00 to 20:00, when the level ended.
    assert [fact[2] for fact in facts(out)] == [2 * 3600] * 5


@pytest.mark.parametrize(("day", "is_known"), [(35, True), (38, False)])
def test_void_within_the_horizon_finds_its_original_however_late_that_was(day: int, is_known: bool) -> None:
    logic = book()
    times = [MIDNIGHT - 31 * DAY, MIDNIGHT - 30 * DAY, MIDNIGHT - 30 * DAY + 60]
    late = [event(MIDNIGHT + 5 + place, place + 1, place, at_min=time) for place, time in enumerate(times)]
    end = event(MIDNIGHT + 9, 0, 9, at_min=times[-1] + 60)
    after(logic, until(1), *late, end)
    for passed in range(2, day + 1):
        after(logic, until(passed))
    out = after(logic, until(day + 1), event(MIDNIGHT + (day + 1) * DAY - 1, 2, 1, at_min=times[1], sign=-1))
    # 1 instead of 2 for the hour between the original and the next change; out of reach it is reported.
    assert [fact[2] for fact in facts(out)] == [-3600 if is_known else 0]
    assert problems(out) == ([] if is_known else [("level_void_unmatched", 1)])


def test_state_of_another_release_is_refused() -> None:
    state = book().snapshot()
    state["levels"] = state["levels"] | {"version": 99}
    with pytest.raises(StateMismatch, match="levels: state version 99"):
        book(state=state)


def test_expiry_is_for_levels_only_and_positive() -> None:
    plain = {"id": "m", "event_type": "t", "value": "$.v"}
    assert Meter.model_validate(
        {**plain, "aggregation": "weighted_sum", "level_expiry": "P1DT12H"}
    ).level_expiry == timedelta(hours=36)
    for aggregation, expiry in (("sum", "P1D"), ("weighted_sum", "PT0S"), ("weighted_sum", "P3661D")):
        with pytest.raises(ValidationError, match="level_expiry"):
            Meter.model_validate({**plain, "aggregation": aggregation, "level_expiry": expiry})


def test_expiry_survives_the_journal() -> None:
    revision = HISTORY.latest
    assert Revision.parse(revision.text, 0).digest == revision.digest
    assert isinstance(revision.configuration, Configuration)
