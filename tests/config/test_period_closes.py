"""Recorded closes against the calendar's cut-off."""

from datetime import UTC, datetime, timedelta
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.entities import Entity
from config.period_closes import NONE_RECORDED, PeriodClose, PeriodCloses, period_named
from config.periods import accounting_period
from operators.rate_touches import booking_period
from tests.sinks.ledger.samples import entity

NEW_YORK = Entity.model_validate(entity())
NOVEMBER = accounting_period(NEW_YORK, datetime(2025, 11, 15, tzinfo=UTC))
BASE = datetime(2025, 11, 1, tzinfo=UTC)
BASE_HOUR = int(BASE.timestamp()) // 3600


def fact(hours: int, action: Literal["close", "reopen"], period: str = "2025-11", name: str = "US01") -> PeriodClose:
    return PeriodClose(name, period, (BASE_HOUR + hours) * 3_600_000, action)


def test_without_facts_the_cut_off_decides() -> None:
    before, after = NOVEMBER.cutoff_at - timedelta(hours=1), NOVEMBER.cutoff_at
    assert not NONE_RECORDED.is_closed(NEW_YORK, NOVEMBER, before)
    assert NONE_RECORDED.is_closed(NEW_YORK, NOVEMBER, after)
    assert NONE_RECORDED.first_open(NEW_YORK, NOVEMBER, after).name == "2025-12"
    assert NONE_RECORDED.first_open(NEW_YORK, NOVEMBER, datetime(2026, 3, 1, tzinfo=UTC)).name == "2026-02"


def test_a_close_counts_from_its_hour_and_a_reopen_beats_the_cut_off() -> None:
    closes = PeriodCloses([fact(1_000, "reopen"), fact(100, "close"), fact(0, "close", name="DE01")])
    periods = [booking_period(NEW_YORK, NOVEMBER, BASE_HOUR + hours, closes) for hours in (99, 100, 999, 1_000, 9_000)]
    assert periods == ["2025-11", "2025-12", "2025-12", "2025-11", "2025-11"]


def test_periods_are_found_by_their_name() -> None:
    assert period_named(NEW_YORK, "2025-11") == NOVEMBER
    for wrong in ("2025-13", "November", "2025-1", ""):
        with pytest.raises(ValueError, match=r"isoformat|month"):
            period_named(NEW_YORK, wrong)


@given(
    st.lists(
        st.tuples(st.integers(0, 3_000), st.sampled_from(["close", "reopen"]), st.sampled_from(["2025-11", "2025-12"])),
        unique_by=lambda one: (one[0], one[2]),
        max_size=8,
    ),
    st.integers(0, 3_000),
)
def test_the_first_open_period_is_what_a_naive_search_finds(
    made: list[tuple[int, Literal["close", "reopen"], str]], hours: int
) -> None:
    closes = PeriodCloses([fact(at, action, period) for at, action, period in made])
    when = BASE + timedelta(hours=hours)
    wanted = NOVEMBER
    while True:
        known = sorted((at, action) for at, action, period in made if period == wanted.name and at <= hours)
        if (known[-1][1] == "reopen") if known else (when < wanted.cutoff_at):
            break
        wanted = accounting_period(NEW_YORK, wanted.end)
    assert closes.first_open(NEW_YORK, NOVEMBER, when) == wanted
