"""Windows of time against a naive oracle: every minute belongs to the window its local clock says."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from core.errors import InvalidRequest
from queries.windows import WINDOWS_MAX, Window, borders, zone_of

ZONES = (
    "UTC", "Europe/Berlin", "America/New_York", "America/Sao_Paulo", "Australia/Lord_Howe", "Asia/Kathmandu",
    "Asia/Kolkata", "America/Havana", "Africa/Cairo", "Pacific/Apia",
)  # fmt: skip
MOMENTS = st.datetimes(datetime(2010, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
QUARTER = timedelta(minutes=15)


def _label(window: Window, zone: ZoneInfo, moment: datetime) -> object:
    """Return what the local clock calls the window of that moment."""
    local = moment.astimezone(zone)
    if window == "hour":
        # An hour that comes twice is two; one that is stretched by half an hour is one, whatever its offset.
        return (local.date(), local.hour)
    return local.date() if window == "day" else (local.year, local.month)


@given(
    window=st.sampled_from(["hour", "day", "month"]),
    zone=st.sampled_from(ZONES).map(ZoneInfo),
    begins=MOMENTS,
    hours=st.integers(1, 24 * 70),
)
@example(window="hour", zone=ZoneInfo("Europe/Berlin"), begins=datetime(2026, 10, 24, 20, tzinfo=UTC), hours=12)
@example(window="hour", zone=ZoneInfo("Australia/Lord_Howe"), begins=datetime(2026, 4, 4, 10, tzinfo=UTC), hours=12)
@example(window="day", zone=ZoneInfo("America/Havana"), begins=datetime(2026, 11, 1, 4, 30, tzinfo=UTC), hours=48)
def test_a_window_holds_what_its_local_clock_says(window: Window, zone: ZoneInfo, begins: datetime, hours: int) -> None:
    ends = begins + timedelta(hours=hours)
    found = borders(window, zone, begins, ends)
    assert found[0] <= begins < found[1]
    assert found[-2] < ends <= found[-1]
    for first, last in pairwise(found):
        assert first < last
        moment = first
        while moment < last:
            assert _label(window, zone, moment) == _label(window, zone, first), (moment, first)
            moment += QUARTER
        if _label(window, zone, last) == _label(window, zone, first):
            assert window == "hour", "only an hour comes twice"
            assert last.astimezone(zone).minute == 0


def test_days_of_a_clock_change_have_23_and_25_hours() -> None:
    zone = ZoneInfo("Europe/Berlin")
    spring = borders("day", zone, datetime(2026, 3, 29, 12, tzinfo=UTC), datetime(2026, 3, 29, 13, tzinfo=UTC))
    autumn = borders("day", zone, datetime(2026, 10, 25, 12, tzinfo=UTC), datetime(2026, 10, 25, 13, tzinfo=UTC))
    assert spring[1] - spring[0] == timedelta(hours=23)
    assert autumn[1] - autumn[0] == timedelta(hours=25)
    hours = borders("hour", zone, autumn[0], autumn[1])
    assert len(hours) == 26
    assert [moment.astimezone(zone).hour for moment in hours[:5]] == [0, 1, 2, 2, 3]


def test_minutes_and_the_whole_span() -> None:
    begins = datetime(2026, 11, 24, 10, 0, 30, tzinfo=UTC)
    minutes = borders("minute", ZoneInfo("UTC"), begins, begins + timedelta(minutes=2))
    assert [moment.strftime("%H:%M:%S") for moment in minutes] == ["10:00:00", "10:01:00", "10:02:00", "10:03:00"]
    assert borders("total", ZoneInfo("UTC"), begins, begins + timedelta(days=900)) == [
        begins, begins + timedelta(days=900),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("window", "span"), [("minute", timedelta(days=4)), ("hour", timedelta(days=365)), ("hour", timedelta(0))]
)
def test_too_much_and_nothing_are_refused(window: Window, span: timedelta) -> None:
    begins = datetime(2026, 1, 1, tzinfo=UTC)
    with pytest.raises(InvalidRequest, match=f"{WINDOWS_MAX:,}|empty"):
        borders(window, ZoneInfo("UTC"), begins, begins + span)


@pytest.mark.parametrize("name", ["", "Mars/Olympus", "../etc/passwd", "/etc/passwd", "Europe", "x" * 300, "a\x00"])
def test_what_is_no_zone_is_said(name: str) -> None:
    with pytest.raises(InvalidRequest, match="no IANA time zone"):
        zone_of(name)
