"""Usage from sums and facts against all facts added up in Python, whatever is summed and whatever is asked."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from queries.stores import Row, Stores
from queries.usage import UsageQuestion, usage
from queries.usage_sources import Asked, source
from sinks.clickhouse import usage_hours
from tests.queries import usage_facts
from tests.queries.test_usage import oracle
from tests.queries.usage_facts import AGGREGATIONS, BEGINS, ENDS, OPEN, TENANTS

FACTS = usage_facts.made()
MINUTES = int((ENDS - BEGINS) / timedelta(minutes=1))
STAGES = (BEGINS, BEGINS + timedelta(hours=3), OPEN)
"""How far is summed: nothing, a part with a month's end behind it, all that is sealed."""


@pytest.fixture(scope="module")
def stores(clickhouse_url: str) -> Iterator[Stores]:
    with usage_facts.stored(clickhouse_url) as found:
        usage_facts.write(found.settings.clickhouse, FACTS)
        yield found


def _moments() -> st.SearchStrategy[datetime]:
    anywhere = st.integers(-30, MINUTES + 30)
    whole = st.integers(0, MINUTES // 60).map(lambda hour: 60 * hour)
    return (anywhere | whole).map(lambda minute: BEGINS + timedelta(minutes=minute))


@st.composite
def questions(draw: st.DrawFn) -> UsageQuestion:
    begins, ends = sorted((draw(_moments()), draw(_moments())))
    return UsageQuestion(
        meter=draw(st.sampled_from(AGGREGATIONS)),
        window=draw(st.sampled_from(("minute", "hour", "day", "month", "total"))),
        begins=begins,
        ends=ends if ends > begins else begins + timedelta(minutes=1),
        zone=draw(st.sampled_from(("UTC", "Asia/Kolkata", "Asia/Kathmandu", "America/New_York"))),
        tenants=draw(st.none() | st.lists(st.sampled_from(TENANTS), unique=True, max_size=2)),
        dimensions=draw(st.sampled_from(({}, {"model": ["a", ""]}))),
        group_by=draw(st.sampled_from(((), ("tenant",), ("model",), ("tenant", "model")))),
        as_of=draw(st.none() | _moments()),
        limit=100_000,
    )


@pytest.mark.parametrize("until", STAGES, ids=("nothing summed", "partly", "all that is sealed"))
def test_the_figures_are_those_of_the_facts(stores: Stores, until: datetime) -> None:
    steps = list(usage_hours.advance(stores.client, stores.history.meters, until))
    assert (not steps and until == BEGINS) or steps[-1] == until
    facts = stores.rows("SELECT * FROM @usage_facts_current")
    assert len(facts) == len(FACTS)
    seen = []

    @settings(
        max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
    )
    @given(questions())
    def check(question: UsageQuestion) -> None:
        found = _found(stores, question)
        assert found == oracle(facts, question, question.meter)
        seen.append(len(found))

    check()
    assert sum(seen) > 100
    # A replay writes sealed rows again, and open ones that it knew before: nothing that is asked for may change.
    usage_facts.write(stores.settings.clickhouse, FACTS)
    usage_facts.write(stores.settings.clickhouse, usage_facts.older(FACTS))
    for meter in AGGREGATIONS:
        question = UsageQuestion(meter, "hour", BEGINS, ENDS, group_by=("tenant",), limit=100_000)
        assert _found(stores, question) == oracle(facts, question, meter)


def _found(stores: Stores, question: UsageQuestion) -> dict[Any, Any]:
    rows: list[Row] = usage(stores, question).rows
    found = {}
    for row in rows:
        group = [row["tenant"] if name == "tenant" else row["dimensions"][name] for name in question.group_by]
        found[row["window_start"], tuple(group)] = (row["value"], row["events"], row["late_events"])
    assert len(found) == len(rows)
    return found


def test_open_facts_show_as_open_beside_sums(stores: Stores) -> None:
    list(usage_hours.advance(stores.client, stores.history.meters, OPEN))
    rows = usage(stores, UsageQuestion("sum", "hour", BEGINS, ENDS)).rows
    assert [row["open"] for row in rows if row["window_start"] >= OPEN] == [True]
    assert not rows[0]["open"]


def _asked(**changes: Any) -> Asked:
    plain: dict[str, Any] = {
        "begins": datetime(2026, 9, 1, tzinfo=UTC),
        "ends": datetime(2026, 9, 2, tzinfo=UTC),
        "as_of": None,
        "conditions": ["meter = 'm'"],
        "columns": [],
        "borders": [int(datetime(2026, 9, 1, hour, tzinfo=UTC).timestamp()) for hour in range(24)],
        "tenants_matter": False,
        "aggregation": "sum",
    }
    return Asked(**plain | changes)


INDIA = [int(datetime(2026, 9, 1, hour, 30, tzinfo=UTC).timestamp()) for hour in range(24)]


@pytest.mark.parametrize(
    ("changes", "table"),
    [
        ({}, "@usage_totals"),
        ({"tenants_matter": True}, "@usage_hours"),
        ({"aggregation": "max"}, "@usage_hours"),
        ({"borders": INDIA}, "@usage_totals"),
        ({"borders": INDIA, "tenants_matter": True}, None),
        ({"borders": [0, 60, 120]}, None),
        ({"ends": datetime(2026, 9, 1, 0, 14, tzinfo=UTC)}, None),
    ],
)
def test_sums_are_read_where_they_are_exact(changes: dict[str, Any], table: str | None) -> None:
    text, _ = source(_asked(**changes))
    assert [name for name in ("@usage_totals", "@usage_hours") if f" {name} FINAL" in text] == (
        [table] if table else []
    )
    assert text.count("UNION ALL") == (1 if table else 0)


def test_facts_behind_the_sums_are_bounded_by_booked_time_alone_where_no_hour_is_cut() -> None:
    whole, _ = source(_asked())
    cut, values = source(_asked(begins=datetime(2026, 9, 1, 3, 10, tzinfo=UTC)))
    assert " OR " not in whole
    assert "OR usage_minute < {first:DateTime}" in cut
    assert values["first"] == datetime(2026, 9, 1, 3, 15, tzinfo=UTC)
    assert values["begins_hour"] == datetime(2026, 9, 1, 3, tzinfo=UTC)
