"""The views made for dashboards: against plain sums over the facts that were written, and the key that they use."""

import re
import threading
import uuid
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pytest

from config.meters import Meter
from config.settings import ClickHouseSettings
from core.frames import FACT_SCHEMA
from sinks import clickhouse
from sinks.clickhouse import usage_hours
from sinks.clickhouse.client import Client, connect
from sinks.clickhouse.tables import TABLES
from sinks.clickhouse.writer import TableWriter
from tests.sinks.clickhouse import rows

HOUR, DAY = 60, 1440
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NEWEST = rows.MINUTE + 40 * DAY
"""Two months and more of facts: 2026-01-01 to 2026-02-10."""


def _at(minute: int) -> datetime:
    return EPOCH + timedelta(minutes=minute)


ODD = '{"model":"a/b \\"ü\\" \\\\ 1"}'
"""Dimensions whose text has to be escaped."""


METER = Meter.model_validate({"id": "any", "event_type": "e", "aggregation": "sum", "value": "$.v"})


def _made() -> list[dict[str, Any]]:
    """Return facts of two tenants and meters over 40 days, some of them late, one hour with many minutes."""
    found = []
    for number, minute in enumerate([*range(rows.MINUTE, NEWEST + 1, 97), *range(NEWEST - 50, NEWEST)]):
        for tenant in ("acme", "globex"):
            late = 3 * HOUR if number % 7 == 0 else 0
            found.append(
                {
                    "tenant": tenant,
                    "meter": ("peak", "tokens", "tokens", "level")[number % 4],
                    "dimensions": ODD if number % 2 else '{"model":"0"}',
                    "usage_minute": minute - late,
                    "booked_minute": minute,
                    "value": Decimal(number % 11 + (tenant == "acme")),
                    "value_time_us": minute * 60_000_000,
                    "events": number % 4 + 1,
                    "version": 1,
                    "sealed": 1,
                }
            )
    return found


MADE = _made()


@pytest.fixture(scope="module", params=["from facts", "from sums"])
def client(request: pytest.FixtureRequest, clickhouse_url: str) -> Iterator[Client]:
    """A database with the facts, written twice: the views must count none of them double, with or without sums."""
    settings = ClickHouseSettings(url=clickhouse_url, database=f"test_{uuid.uuid4().hex[:12]}")
    clickhouse.migrate(settings)
    writer = TableWriter(TABLES["usage_facts"], settings, rows.STREAMS, stop=threading.Event(), epoch_s=1)
    for _ in range(2):
        writer.write([pl.DataFrame(MADE, schema=FACT_SCHEMA)])
        writer.flush()
    writer.close()
    with connect(settings) as found:
        found.command(
            f"INSERT INTO {settings.database}.meters VALUES"
            " ('peak', 'max', 'v', now64(3)), ('level', 'latest', 'v', now64(3))"
        )
        if request.param == "from sums":
            meters = {name: METER.model_copy(update={"id": name, "aggregation": function})
                      for name, function in (("peak", "max"), ("level", "latest"), ("tokens", "sum"))}  # fmt: skip
            list(usage_hours.advance(found, meters, _at(NEWEST // HOUR * HOUR - 2 * HOUR)))
        yield found
        found.command(f"DROP DATABASE {settings.database}")


def _read(client: Client, text: str) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in client.query(text.replace("@", f"{client.settings.database}.")).result_rows]


def _merged(facts: list[dict[str, Any]], unit: int) -> dict[tuple[Any, ...], tuple[Decimal, int]]:
    """Merge values by each meter's function, naively."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for fact in facts:
        start = fact["usage_minute"] // unit * unit
        groups[fact["tenant"], fact["meter"], fact["dimensions"], _at(start)].append(fact)
    return {key: (_value(key[1], of_key), sum(fact["events"] for fact in of_key)) for key, of_key in groups.items()}


def _value(meter: str, facts: list[dict[str, Any]]) -> Decimal:
    if meter == "level":
        return Decimal(max(facts, key=lambda fact: (fact["value_time_us"], fact["booked_minute"]))["value"])
    values = [Decimal(fact["value"]) for fact in facts]
    return max(values) if meter == "peak" else sum(values, Decimal(0))


def _same(dimensions: dict[str, str]) -> str:
    return orjson.dumps(dimensions).decode()


def test_usage_by_minute_merges_by_the_meters_function(client: Client) -> None:
    found = _read(client, "SELECT tenant, meter, dimensions, usage_minute, value, events FROM @usage_by_minute")
    assert {(*row[:2], _same(row[2]), row[3]): (row[4], row[5]) for row in found} == _merged(MADE, 1)


def test_one_tenants_hours_in_a_span_are_those_of_the_roll_up(client: Client) -> None:
    since, until = _at(rows.MINUTE + 31 * DAY), _at(rows.MINUTE + 35 * DAY)
    found = _read(
        client,
        "SELECT 'acme', meter, dimensions, usage_hour, value, events FROM"
        f" @tenant_usage_by_hour(tenant = 'acme', since = '{since:%F %T}', until = '{until:%F %T}')",
    )
    expected = {
        key: value for key, value in _merged(MADE, HOUR).items() if key[0] == "acme" and since <= key[3] < until
    }
    assert {(*row[:2], _same(row[2]), row[3]): (row[4], row[5]) for row in found} == expected
    assert len(expected) > 50


def test_one_tenants_hours_are_found_by_the_key_and_by_the_partition(client: Client) -> None:
    span = "tenant = 'acme', since = '2026-02-01 00:00:00', until = '2026-03-01 00:00:00'"
    plan = "\n".join(
        row[0] for row in _read(client, f"EXPLAIN indexes = 1 SELECT * FROM @tenant_usage_by_hour({span})")
    )
    *sums, facts = plan.split("PrimaryKey")[1:]
    assert all("booked_hour" in key and "tenant" in key for key in sums)  # none where there are no sums
    assert "tenant" in facts
    assert "booked_minute" in facts
    read, there = re.findall(r"Parts: (\d+)/(\d+)", plan.split("Min-Max")[-1])[0]
    assert int(read) < int(there)  # January's partition is not touched


def test_late_share_is_the_part_of_the_events_booked_after_their_minute(client: Client) -> None:
    all_events: dict[tuple[str, datetime], int] = defaultdict(int)
    late: dict[tuple[str, datetime], int] = defaultdict(int)
    for fact in MADE:
        key = (fact["meter"], _at(fact["booked_minute"] // HOUR * HOUR))
        all_events[key] += fact["events"]
        late[key] += fact["events"] * (fact["usage_minute"] < fact["booked_minute"])
    found = _read(client, "SELECT meter, booked_hour, events_net, events_late, late_ratio FROM @late_share")
    assert {(row[0], row[1]): (row[2], row[3]) for row in found} == {
        key: (events, late[key]) for key, events in all_events.items()
    }
    assert all(row[4] == pytest.approx(row[3] / row[2]) for row in found)
    assert {row[3] > 0 for row in found} == {True, False}


def test_top_movers_compare_a_day_with_the_same_day_a_week_before(client: Client) -> None:
    def total(tenant: str, after: int, until: int) -> Decimal:
        return sum(
            (
                fact["value"]
                for fact in MADE
                if fact["tenant"] == tenant and fact["meter"] == "tokens" and after < fact["booked_minute"] <= until
            ),
            Decimal(0),
        )

    newest = max(fact["booked_minute"] for fact in MADE)
    found = _read(client, "SELECT tenant, meter, value_now, value_before, change, change_ratio FROM @top_movers")
    assert {row[0] for row in found} == {"acme", "globex"}
    for tenant, meter, now, before, change, ratio in found:
        assert meter == "tokens"  # a peak does not add up
        assert now == total(tenant, newest - DAY, newest)
        assert before == total(tenant, newest - 8 * DAY, newest - 7 * DAY)
        assert change == now - before
        assert ratio == pytest.approx(float(change) / float(before))


def test_freshness_reads_no_row(client: Client) -> None:
    found = _read(client, "SELECT stage, newest FROM @freshness")
    assert found == [("facts", _at(max(fact["booked_minute"] for fact in MADE)))]  # nothing is in the other tables
    plan = "\n".join(row[0] for row in _read(client, "EXPLAIN SELECT * FROM @freshness"))
    assert "_minmax_count_projection" in plan
    assert "ReadFromMergeTree" not in plan


def test_the_example_queries_of_the_documentation_run(client: Client) -> None:
    text = (Path(__file__).parents[3] / "docs" / "dashboards.md").read_text()
    queries = re.findall(r"```sql\n(.*?);\n```", text, re.DOTALL)
    assert len(queries) == 9
    for query in queries:
        _read(client, re.sub(r"FROM (\w)", r"FROM @\1", query))
