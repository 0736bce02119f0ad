"""Recorded closes in rating: sealed and provisional rows of an hour land in the same accounting period."""

from typing import Literal

from config.period_closes import PeriodClose, PeriodCloses
from config.revision import History
from operators.rate import RateLogic
from tests.operators.rate_support import HOUR0, Driver, Use, facts, revision, version

PER_UNIT = {"id": "tokens", "meter": "tokens", "model": "per_unit", "unit_amount": "1"}


def driver(*made: tuple[int, Literal["close", "reopen"]]) -> tuple[Driver, list[int]]:
    """Return a driver whose January is closed or reopened so many hours after T0, and the hours it asked about."""
    asked: list[int] = []
    closes = PeriodCloses(PeriodClose("US01", "2024-01", (HOUR0 + hours) * 3_600_000, action) for hours, action in made)

    def at(hour: int) -> PeriodCloses:
        asked.append(hour - HOUR0)
        return closes

    history = History([revision([version(PER_UNIT)])])
    return Driver(history, logics=[RateLogic("customer-0", 0, 1, ["book"], history, None, at)]), asked


def periods(found: Driver, *statuses: str) -> list[tuple[int, str, str]]:
    rows = found.rows(*statuses).select("booked_hour", "accounting_period", "original_period")
    return [(hour - HOUR0, period, original) for hour, period, original in rows.iter_rows()]


def test_a_close_counts_from_its_hour_until_it_is_reopened() -> None:
    found, asked = driver((1, "close"), (3, "reopen"))
    for hour in range(4):
        found.send(facts([Use(60 * hour, 60 * hour, "1")]))
    found.send(facts([]), 60 * 5 + 2)
    assert periods(found) == [
        (0, "2024-01", "2024-01"),
        (1, "2024-02", "2024-01"),
        (2, "2024-02", "2024-01"),
        (3, "2024-01", "2024-01"),
    ]
    assert asked == [0, 1, 2, 3]


def test_provisional_rows_are_in_the_period_of_the_sealed_ones_that_replace_them() -> None:
    found, asked = driver((1, "close"))
    found.send(facts([Use(60, 60, "2")], sealed=0), 62)
    assert periods(found, "provisional") == [(1, "2024-02", "2024-01")]
    assert asked == [1]  # the hour of the watermark: it has begun, and later facts are known later
    found.send(facts([Use(60, 60, "2")]), 122)
    assert periods(found, "sealed") == [(1, "2024-02", "2024-01")]
