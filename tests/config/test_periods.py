from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.customers import BillingPeriod
from config.entities import Close, Entity, EntityErp
from config.periods import accounting_period, billing_period, covered_days, following_period

START = datetime(2000, 1, 1, tzinfo=UTC)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def period(text: str, **fields: object) -> tuple[str, str]:
    start, end = billing_period(BillingPeriod.model_validate(fields), START, utc(text))
    return start.isoformat()[:16], end.isoformat()[:16]


def entity(timezone: str, days: int = 5) -> Entity:
    close = Close(cutoff=timedelta(days=days))
    return Entity(
        id="E", functional_currency="USD", timezone=timezone, close=close, accounts={}, erp=EntityErp(company="E")
    )


def test_a_calendar_month_in_utc() -> None:
    assert period("2024-02-29T23:59:59Z") == ("2024-02-01T00:00", "2024-03-01T00:00")
    assert period("2024-03-01T00:00:00Z") == ("2024-03-01T00:00", "2024-04-01T00:00")


def test_day_31_clamps_to_the_months_end_and_comes_back() -> None:
    anchor = date(2023, 1, 31)
    assert period("2024-02-29T12:00:00Z", anchor=anchor) == ("2024-02-29T00:00", "2024-03-31T00:00")
    assert period("2024-02-28T12:00:00Z", anchor=anchor) == ("2024-01-31T00:00", "2024-02-29T00:00")
    assert period("2024-04-30T00:00:00Z", anchor=anchor) == ("2024-04-30T00:00", "2024-05-31T00:00")


def test_borders_are_local_midnights_on_both_sides_of_a_clock_change() -> None:
    zone = "America/New_York"
    # Daylight saving begins on 2024-03-10 and ends on 2024-11-03.
    assert period("2024-03-15T00:00:00Z", timezone=zone) == ("2024-03-01T05:00", "2024-04-01T04:00")
    assert period("2024-11-15T00:00:00Z", timezone=zone) == ("2024-11-01T04:00", "2024-12-01T05:00")
    assert period("2024-03-10T12:00:00Z", unit="day", timezone=zone) == ("2024-03-10T05:00", "2024-03-11T04:00")
    assert period("2024-03-01T04:59:59Z", timezone=zone)[1] == "2024-03-01T05:00"


def test_half_hour_zones_begin_inside_an_hour() -> None:
    assert period("2024-01-31T18:29:00Z", timezone="Asia/Kolkata")[1] == "2024-01-31T18:30"
    assert period("2024-01-31T18:30:00Z", timezone="Asia/Kolkata")[0] == "2024-01-31T18:30"


def test_a_midnight_that_does_not_exist_is_the_moment_of_the_change() -> None:
    # In Beirut the clock went from 00:00 to 01:00 on 2022-03-27.
    assert period("2022-03-27T12:00:00Z", unit="day", timezone="Asia/Beirut") == (
        "2022-03-26T22:00",
        "2022-03-27T21:00",
    )


def test_weeks_quarters_and_years() -> None:
    assert period("2024-01-10T00:00:00Z", unit="week", anchor=date(2024, 1, 1)) == (
        "2024-01-08T00:00",
        "2024-01-15T00:00",
    )
    assert period("2024-05-10T00:00:00Z", count=3, anchor=date(2024, 1, 1)) == ("2024-04-01T00:00", "2024-07-01T00:00")
    assert period("2024-02-28T00:00:00Z", unit="year", anchor=date(2020, 2, 29)) == (
        "2023-02-28T00:00",
        "2024-02-29T00:00",
    )


@given(
    minutes=st.integers(-10_000_000, 40_000_000),
    unit=st.sampled_from(["day", "week", "month", "year"]),
    count=st.integers(1, 5),
    anchor=st.dates(date(2015, 1, 1), date(2026, 12, 31)),
    timezone=st.sampled_from(["UTC", "America/New_York", "Asia/Kolkata", "America/Sao_Paulo", "Australia/Lord_Howe"]),
)
@settings(max_examples=150, deadline=None)
def test_periods_join_without_gap_or_overlap(minutes: int, unit: str, count: int, anchor: date, timezone: str) -> None:
    one = BillingPeriod.model_validate({"unit": unit, "count": count, "anchor": anchor, "timezone": timezone})
    when = START + timedelta(minutes=minutes)
    start, end = billing_period(one, START, when)
    assert start <= when < end
    assert billing_period(one, START, end)[0] == end
    assert billing_period(one, START, end - timedelta(microseconds=1)) == (start, end)
    local = start.astimezone(ZoneInfo(timezone))
    assert (local.hour, local.minute) == (0, 0) or local.hour == 1  # 1: midnight was skipped


def test_accounting_periods_are_the_entitys_own_months_with_a_cutoff() -> None:
    one = accounting_period(entity("America/New_York"), utc("2024-11-01T03:59:59Z"))
    assert (one.name, one.start, one.end) == ("2024-10", utc("2024-10-01T04:00:00Z"), utc("2024-11-01T04:00:00Z"))
    # Five days of the calendar: the clock change on 3 November makes them an hour longer.
    assert one.cutoff_at == utc("2024-11-06T05:00:00Z")
    assert following_period(entity("America/New_York"), one).name == "2024-11"


@pytest.mark.parametrize(
    ("begins", "ends", "expected"),
    [
        ("2024-01-01T00:00:00Z", None, (31, 31)),
        ("2024-01-22T00:00:00Z", None, (10, 31)),
        ("2020-01-01T00:00:00Z", "2024-01-11T00:00:00Z", (10, 31)),
        ("2024-01-22T15:00:00Z", "2024-01-25T01:00:00Z", (3, 31)),
        ("2024-02-22T00:00:00Z", None, (0, 31)),
        ("2020-01-01T00:00:00Z", "2023-12-01T00:00:00Z", (0, 31)),
    ],
)
def test_covered_days(begins: str, ends: str | None, expected: tuple[int, int]) -> None:
    start, end = utc("2024-01-01T00:00:00Z"), utc("2024-02-01T00:00:00Z")
    got = covered_days(BillingPeriod(), start, end, utc(begins), None if ends is None else utc(ends))
    assert got == expected


@given(cuts=st.lists(st.integers(0, 31 * 1440), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_parts_of_a_period_cover_all_its_days_once(cuts: list[int]) -> None:
    start, end = utc("2024-01-01T00:00:00Z"), utc("2024-02-01T00:00:00Z")
    borders = [start, *(start + timedelta(minutes=cut) for cut in sorted(cuts)), end]
    parts = pairwise(borders)
    assert sum(covered_days(BillingPeriod(), start, end, a, b)[0] for a, b in parts) == 31
