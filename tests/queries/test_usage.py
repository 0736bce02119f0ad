"""Usage against an oracle that reads all facts and adds them up in Python."""

from collections import defaultdict
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from core.errors import InvalidRequest
from queries.stores import Row
from queries.usage import UsageQuestion, usage
from queries.windows import borders, zone_of
from tests.queries.conftest import START, Finished

END = START + timedelta(hours=8)


def oracle(facts: list[Row], question: UsageQuestion, aggregation: str) -> dict[Any, tuple[Decimal, int, int]]:
    found = borders(question.window, zone_of(question.zone), question.begins, question.ends)
    series: dict[Any, list[Row]] = defaultdict(list)
    for fact in facts:
        used, booked = fact["usage_minute"], fact["booked_minute"]
        if not question.begins <= used < question.ends or fact["meter"] != question.meter:
            continue
        if question.as_of is not None and booked >= question.as_of:
            continue
        if question.tenants is not None and fact["tenant"] not in question.tenants:
            continue
        if any(fact["dimensions"][name] not in values for name, values in question.dimensions.items()):
            continue
        window = max(moment for moment in found if moment <= used)
        group = [fact["tenant"] if name == "tenant" else fact["dimensions"][name] for name in question.group_by]
        series[window, tuple(group), fact["tenant"], tuple(sorted(fact["dimensions"].items()))].append(fact)
    out: dict[Any, tuple[Decimal, int, int]] = {}
    for (window, group, *_), own in series.items():
        if aggregation in ("max", "min"):
            value = (max if aggregation == "max" else min)(fact["value"] for fact in own)
        elif aggregation == "latest":
            value = max(own, key=lambda fact: (fact["value_time"], fact["booked_minute"]))["value"]
        else:
            value = sum((fact["value"] for fact in own), Decimal(0))
        spare = timedelta(minutes=59 if aggregation == "weighted_sum" else 0)
        late = sum(fact["events"] for fact in own if fact["booked_minute"] > fact["usage_minute"] + spare)
        known = out.get((window, group), (Decimal(0), 0, 0))
        out[window, group] = (known[0] + value, known[1] + sum(fact["events"] for fact in own), known[2] + late)
    return out


def _all_pages(finished: Finished, question: UsageQuestion) -> list[Row]:
    rows: list[Row] = []
    after: tuple[Any, ...] | None = None
    while True:
        page = usage(finished.stores, replace(question, after=after))
        assert len(page.rows) <= question.limit
        rows += page.rows
        after = page.next
        if after is None:
            return rows


def test_every_meter_by_window_zone_group_and_booked_time(finished: Finished) -> None:
    stores = finished.stores
    facts = stores.rows("SELECT * FROM @usage_facts_current")
    tenants = sorted({fact["tenant"] for fact in facts})
    checked = 0
    for meter in stores.history.latest.configuration.meters:
        names = tuple(sorted(meter.group_by))
        cases: list[dict[str, Any]] = [
            {"window": "hour", "group_by": ("tenant", *names), "limit": 37},
            {"window": "day", "zone": "Asia/Kathmandu", "group_by": names[:1]},
            {"window": "total", "as_of": START + timedelta(hours=3, minutes=17)},
            {"window": "month", "tenants": tenants[:3], "group_by": ("tenant",)},
            {"window": "minute", "begins": START + timedelta(hours=1), "ends": START + timedelta(hours=2), "limit": 50},
        ]
        if names:
            values = sorted({fact["dimensions"][names[0]] for fact in facts if fact["meter"] == meter.id})[:2]
            cases.append({"window": "hour", "dimensions": {names[0]: values}, "group_by": ("tenant",)})
        for case in cases:
            asked: dict[str, Any] = {"meter": meter.id, "begins": START, "ends": END} | case
            question = UsageQuestion(**asked)
            rows = _all_pages(finished, question)
            actual = {}
            for row in rows:
                group = [row["tenant"] if name == "tenant" else row["dimensions"][name] for name in question.group_by]
                actual[row["window_start"], tuple(group)] = (row["value"], row["events"], row["late_events"])
            assert len(actual) == len(rows), "a row came twice"
            assert actual == oracle(facts, question, meter.aggregation), (meter.id, case)
            checked += len(rows)
    assert checked > 1000


def test_late_usage_shows_only_as_of_its_booking(finished: Finished) -> None:
    stores = finished.stores
    (late,) = stores.rows(
        "SELECT tenant, meter, usage_minute, booked_minute FROM @usage_facts_current"
        " WHERE booked_minute > usage_minute + INTERVAL 5 MINUTE AND meter = 'input_tokens' LIMIT 1"
    )
    used: datetime = late["usage_minute"]

    def events(as_of: datetime) -> int:
        question = UsageQuestion("input_tokens", "total", used, used + timedelta(minutes=1), tenants=[late["tenant"]],
                                 as_of=as_of)  # fmt: skip
        return sum(row["events"] for row in usage(stores, question).rows)

    assert events(late["booked_minute"] + timedelta(minutes=1)) > events(late["booked_minute"])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"meter": "nonsense"}, "unknown meter 'nonsense': known are"),
        ({"group_by": ("colour",)}, "no dimension 'colour': it has"),
        ({"dimensions": {"colour": ["red"]}}, "no dimension 'colour'"),
        ({"zone": "Mars/Olympus"}, "no IANA time zone"),
        ({"ends": START}, "the span is empty"),
    ],
)
def test_what_cannot_be_asked_is_said(finished: Finished, change: dict[str, Any], says: str) -> None:
    asked: dict[str, Any] = {"meter": "input_tokens", "window": "hour", "begins": START, "ends": END} | change
    question = UsageQuestion(**asked)
    with pytest.raises(InvalidRequest, match=says):
        usage(finished.stores, question)
