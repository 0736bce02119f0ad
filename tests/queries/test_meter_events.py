"""The events behind a point of usage: exactly those that the facts count, in pages that join without gap."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from core.errors import InvalidRequest
from queries.meter_events import EventsQuestion, events_sql, meter_events
from queries.stores import Row
from tests.queries.conftest import START, Finished

HOUR = EventsQuestion("input_tokens", START + timedelta(hours=2), START + timedelta(hours=3), limit=100_000)


def whole(finished: Finished, question: EventsQuestion = HOUR) -> list[Row]:
    page = meter_events(finished.stores, question)
    assert page.next is None
    return page.rows


def brought(rows: list[Row]) -> dict[str, Decimal]:
    sums: dict[str, Decimal] = {}
    for row in rows:
        sums[row["tenant"]] = sums.get(row["tenant"], Decimal(0)) + row["sign"] * Decimal(row["value"])
    return sums


def test_events_of_all_tenants_bring_what_the_facts_hold(finished: Finished) -> None:
    facts = finished.stores.rows(
        "SELECT tenant, sum(f.value) AS total FROM @usage_facts_current AS f WHERE meter = 'input_tokens'"
        " AND usage_minute >= {from:DateTime} AND usage_minute < {to:DateTime} GROUP BY tenant",
        {"from": HOUR.begins, "to": HOUR.ends},
    )
    rows = whole(finished)
    assert brought(rows) == {row["tenant"]: row["total"] for row in facts}
    assert len(facts) > 3
    assert {row["sign"] for row in rows} == {1, -1}, "voids of the hour are among them"
    times = [row["event_time"] for row in rows]
    assert times == sorted(times)


@pytest.mark.parametrize("limit", [1, 7, 100])
def test_pages_join_without_gap(finished: Finished, limit: int) -> None:
    question = replace(HOUR, limit=limit, tenants=None if limit > 1 else ["acme"])
    found: list[Row] = []
    page = meter_events(finished.stores, question)
    while page.next is not None:
        assert len(page.rows) == limit
        found += page.rows
        page = meter_events(finished.stores, replace(question, after=page.next))
    assert found + page.rows == whole(finished, replace(question, limit=100_000))


def test_tenants_dimensions_and_booked_time_choose(finished: Finished) -> None:
    rows = whole(finished)
    two = {"acme", "globex"}
    assert whole(finished, replace(HOUR, tenants=sorted(two))) == [row for row in rows if row["tenant"] in two]
    assert whole(finished, replace(HOUR, tenants=[])) == []
    model = rows[0]["dimensions"]["model"]
    assert whole(finished, replace(HOUR, dimensions={"model": model})) == [
        row for row in rows if row["dimensions"]["model"] == model
    ]
    known = START + timedelta(hours=3)
    early = whole(finished, replace(HOUR, as_of=known))
    assert early == [row for row in rows if row["booked_minute"] < known]
    assert len(early) < len(rows)


def test_what_is_not_there_is_named(finished: Finished) -> None:
    with pytest.raises(InvalidRequest, match="no meter 'none'"):
        meter_events(finished.stores, replace(HOUR, meter="none"))
    with pytest.raises(InvalidRequest, match="has no dimension 'colour'"):
        meter_events(finished.stores, replace(HOUR, dimensions={"colour": "red"}))


def test_voids_are_looked_for_as_long_as_one_may_come(finished: Finished) -> None:
    revision = finished.stores.history.latest
    rules = revision.rules.model_copy(update={"too_old_days": 3, "dedupe_horizon_days": 50})
    _, parameters = events_sql(HOUR, revision.meters[HOUR.meter], rules)
    late = HOUR.ends + timedelta(days=3)  # the arrival of an original that is only just not too old
    assert parameters["void_last"] > late + timedelta(days=50)
    assert late < parameters["last"] < late + timedelta(days=50)
