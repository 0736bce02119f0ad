"""The week before: what usage is compared with, over changes of the clock as well."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from console.pages.usage import _moved, _week_before
from queries.usage import UsageQuestion
from queries.windows import Window, borders, windows

WEEK = timedelta(days=7)
BERLIN = ZoneInfo("Europe/Berlin")
QUESTION = UsageQuestion("requests", "day", datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC))


@pytest.mark.parametrize(
    ("day", "before"),
    [
        (datetime(2026, 10, 26, tzinfo=BERLIN), datetime(2026, 10, 19, tzinfo=BERLIN)),
        (datetime(2026, 3, 30, tzinfo=BERLIN), datetime(2026, 3, 23, tzinfo=BERLIN)),
        (datetime(2026, 7, 10, tzinfo=BERLIN), datetime(2026, 7, 3, tzinfo=BERLIN)),
    ],
)
def test_a_day_is_compared_with_the_same_day_a_week_before(day: datetime, before: datetime) -> None:
    begins = day.astimezone(UTC)
    question = replace(QUESTION, begins=begins, ends=begins + timedelta(hours=24), zone="Europe/Berlin")
    earlier = _week_before(question, BERLIN)
    assert earlier.begins == before
    [first, *_] = borders("day", BERLIN, earlier.begins, earlier.ends)
    assert _moved(first, WEEK, "day", BERLIN) == begins


@given(
    hours=st.integers(0, 24 * 365 * 3),
    window=st.sampled_from(("hour", "day")),
    zone=st.sampled_from(("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata")),
)
def test_every_window_has_one_of_the_week_before(hours: int, window: Window, zone: str) -> None:
    known: Any = ZoneInfo(zone)
    begins = datetime(2025, 1, 1, tzinfo=UTC) + timedelta(hours=hours)
    question = replace(QUESTION, window=window, begins=begins, ends=begins + timedelta(days=3), zone=zone)
    earlier = _week_before(question, known)
    past = windows(borders(window, known, earlier.begins, earlier.ends))
    now = windows(borders(window, known, question.begins, question.ends))
    moved = {_moved(start, WEEK, window, known) for start in past}
    assert len(moved) == len(past), "no two windows are compared with one"
    assert set(list(now)[:-1]) <= moved
