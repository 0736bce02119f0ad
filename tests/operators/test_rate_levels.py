"""Levels from events to rated rows: each billing period is rated on its own part of the integral."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from core.frames import FACT_SCHEMA, empty
from operators.book import BookLogic
from operators.items import Facts
from tests.operators.book_oracle import MemorySet, unscale
from tests.operators.levels_oracle import BORDER_MINUTE, LevelEvent, history, integral, spans
from tests.operators.rate_support import T0, Driver
from tests.operators.test_book_levels import SENDERS, SETTINGS, deliveries, events_strategy

MINUTE_US = 60_000_000


@SETTINGS
@given(st.integers(0, 2**32), events_strategy(whole_seconds=True))
def test_each_period_is_rated_on_its_part_of_the_integral(seed: int, events: list[LevelEvent]) -> None:
    """Given a month that begins in the middle of an hour of UTC, where late changes and voids reach over."""
    revisions = history()
    end_minute = max(event.position[0] for event in events) // 60_000 + 600
    end_hour = end_minute // 60
    driver = Driver(revisions)
    items = deliveries(Random(seed), events, revisions, (end_hour * 60 + 1) * 60_000)
    logic = BookLogic("book", SENDERS, revisions, MemorySet(), None)
    for item in logic.process(items):
        if isinstance(item, Facts):
            driver.send(item.frame)
    driver.send(empty(FACT_SCHEMA), end_hour * 60 + 1 - T0)

    mine = [event for event in events if event.tenant == "kolkata"]
    expected = {False: 0, True: 0}
    for model in {event.model for event in mine}:
        held = spans([event for event in mine if event.model == model], end_hour * 60 * MINUTE_US, None)
        expected[False] += int(integral(held, 0, BORDER_MINUTE * MINUTE_US))
        expected[True] += int(integral(held, BORDER_MINUTE * MINUTE_US, end_hour * 60 * MINUTE_US))
    rows = driver.rows("sealed")
    found = {False: 0, True: 0}
    for row in rows.iter_rows(named=True):
        assert row["amount"] == row["quantity"]
        found[row["period_start_us"] >= BORDER_MINUTE * MINUTE_US] += unscale(row["quantity"])
    assert found == expected
