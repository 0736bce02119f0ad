"""From which booked hour on a period takes nothing more: by cut-off, recorded closes and later configurations."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from config.period_closes import PeriodClose, PeriodCloses, period_named
from config.revision import History
from queries.closing import closed_hour
from queries.stores import EPOCH, of_hour
from tests.sinks.ledger.samples import entity, revision

PERIOD = "2025-03"
END = datetime(2025, 4, 1, 4, tzinfo=UTC)  # New York
CUTOFF_HOUR = (END + timedelta(days=5) - EPOCH) // timedelta(hours=1)
HOUR_MS = 3_600_000


def _fact(hour: int, action: str) -> PeriodClose:
    return PeriodClose("US01", PERIOD, hour * HOUR_MS, "close" if action == "close" else "reopen")


def _history(*cutoffs: tuple[int, int]) -> History:
    """Return revisions known from an hour on, each with a cut-off of so many days."""
    return History(
        [
            revision(entity() | {"close": {"cutoff": f"P{days}D"}}, known_from_ms=hour * HOUR_MS)
            for hour, days in ((0, 5), *cutoffs)
        ]
    )


def test_the_cut_off_closes_and_a_recorded_close_does_so_before() -> None:
    assert closed_hour(_history(), PeriodCloses(), "US01", PERIOD) == CUTOFF_HOUR
    early = PeriodCloses([_fact(CUTOFF_HOUR - 50, "close")])
    assert closed_hour(_history(), early, "US01", PERIOD) == CUTOFF_HOUR - 50
    reopened = PeriodCloses([_fact(CUTOFF_HOUR + 5, "reopen")])
    assert closed_hour(_history(), reopened, "US01", PERIOD) is None
    again = PeriodCloses([_fact(CUTOFF_HOUR + 5, "reopen"), _fact(CUTOFF_HOUR + 9, "close")])
    assert closed_hour(_history(), again, "US01", PERIOD) == CUTOFF_HOUR + 9


def test_a_later_configuration_with_another_cut_off_counts_from_when_it_is_known() -> None:
    later = _history((CUTOFF_HOUR + 10, 8))
    assert closed_hour(later, PeriodCloses(), "US01", PERIOD) == CUTOFF_HOUR + 3 * 24


@given(
    st.lists(
        st.tuples(st.integers(-60, 60), st.sampled_from(["close", "reopen"])), max_size=4, unique_by=lambda x: x[0]
    ),
    st.lists(st.tuples(st.integers(-60, 60), st.integers(3, 8)), max_size=3, unique_by=lambda x: x[0]),
)
def test_it_is_the_last_hour_in_which_rating_would_have_booked_into_it(
    facts: list[tuple[int, str]], cutoffs: list[tuple[int, int]]
) -> None:
    recorded = PeriodCloses(_fact(CUTOFF_HOUR + hour, action) for hour, action in facts)
    history = _history(*((CUTOFF_HOUR + hour, days) for hour, days in cutoffs))
    found = closed_hour(history, recorded, "US01", PERIOD)

    open_hours = []
    for hour in range(CUTOFF_HOUR - 100, CUTOFF_HOUR + 200):
        known = history.at(hour * HOUR_MS).entities["US01"]
        if not recorded.is_closed(known, period_named(known, PERIOD), of_hour(hour)):
            open_hours.append(hour)
    if open_hours and open_hours[-1] == CUTOFF_HOUR + 199:
        assert found is None
    else:
        assert found == open_hours[-1] + 1
