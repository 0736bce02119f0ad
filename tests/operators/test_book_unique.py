from datetime import UTC, datetime
from typing import Any

import pytest

from config.revision import Configuration, History, Revision
from operators.book_unique import Periods

CONTRACT = {"id": "c", "plan": "p", "entity": "E", "from": "2026-01-10T00:00:00Z"}


def periods(*revisions: tuple[int, dict[str, Any]]) -> Periods:
    return Periods(
        History([Revision(Configuration.model_validate(plain), known_from_ms) for known_from_ms, plain in revisions])
    )


def customer(*contracts: dict[str, Any]) -> dict[str, Any]:
    return {"customers": [{"id": "acme", "subjects": ["acme"], "contracts": [CONTRACT | one for one in contracts]}]}


def minute(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) // 60


def test_without_a_customer_it_is_the_calendar_month_in_utc() -> None:
    got = periods((0, {})).period("nobody", minute("2026-02-28T23:59"), minute("2026-03-01T00:00"))
    assert got == (minute("2026-02-01"), minute("2026-03-01"))


def test_billing_period_of_the_customers_contract_counts_where_it_is_in_force() -> None:
    week = {"billing_period": {"unit": "week", "anchor": "2026-01-05", "timezone": "Europe/Berlin"}}
    known = periods((0, customer(week | {"to": "2026-02-01T00:00:00Z"})))
    at = minute("2026-01-18T22:59")
    assert known.period("acme", at, at) == (minute("2026-01-11T23:00"), minute("2026-01-18T23:00"))
    assert known.period("acme", at + 1, at + 1) == (minute("2026-01-18T23:00"), minute("2026-01-25T23:00"))
    for outside in (minute("2026-01-09T23:59"), minute("2026-02-01")):
        start, end = known.period("acme", outside, outside)
        assert end - start in (28 * 1440, 31 * 1440)


def test_first_contract_in_the_list_decides() -> None:
    day = {"id": "first", "billing_period": {"unit": "day"}}
    known = periods((0, customer(day, {"id": "second"})))
    at = minute("2026-03-03T12:00")
    assert known.period("acme", at, at) == (minute("2026-03-03"), minute("2026-03-04"))


def test_revision_known_at_the_booked_minute_counts() -> None:
    change = minute("2026-03-01")
    known = periods((0, {}), (change * 60_000, customer({"billing_period": {"unit": "day"}})))
    usage = minute("2026-02-20T12:00")
    assert known.period("acme", usage, change - 1) == (minute("2026-02-01"), minute("2026-03-01"))
    assert known.period("acme", usage, change) == (minute("2026-02-20"), minute("2026-02-21"))


@pytest.mark.parametrize("change_day", [0, 10, 40, 400, 4000])
def test_horizon_never_goes_back_and_does_not_look_ahead(change_day: int) -> None:
    yearly = customer({"billing_period": {"unit": "year"}}) | {"rules": {"too_old_days": 100}}
    base = minute("2026-01-01")
    change = base + change_day * 1440
    alone = periods((0, {}))
    known = periods((0, {}), (change * 60_000, yearly))
    days = range(0, 5000, 7)
    got = [known.horizon(base + day * 1440) for day in days]
    assert got == sorted(got)
    for day, horizon in zip(days, got, strict=True):
        at = base + day * 1440
        if at < change:
            assert horizon == alone.horizon(at) == at - (31 + 35 + 2) * 1440
        else:
            assert horizon == max(change - (31 + 35 + 2) * 1440, at - (366 + 100 + 2) * 1440)
