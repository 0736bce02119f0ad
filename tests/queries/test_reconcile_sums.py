"""Sums that are not those of the facts are found, wherever they differ."""

from collections.abc import Iterator

import pytest

from queries.reconcile import Check, Span
from queries.reconcile_sums import checks
from queries.stores import Stores
from sinks.clickhouse import usage_hours
from tests.queries import usage_facts
from tests.queries.usage_facts import BEGINS, ENDS, OPEN

FACTS = usage_facts.made(seed=5, count=1_500)
WHOLE = Span(BEGINS, ENDS)


@pytest.fixture(scope="module")
def stores(clickhouse_url: str) -> Iterator[Stores]:
    with usage_facts.stored(clickhouse_url) as found:
        usage_facts.write(found.settings.clickhouse, FACTS)
        assert list(checks(found, WHOLE)) == []  # nothing is summed yet
        list(usage_hours.advance(found.client, found.history.meters, OPEN))
        yield found


def _changed(stores: Stores, table: str, change: str) -> list[Check]:
    """Return the checks after one row was written again with a change, and put it back."""
    columns = [
        row["name"]
        for row in stores.rows(
            "SELECT name FROM system.columns WHERE database = {d:String} AND table = {t:String} AND default_kind = ''",
            {"d": stores.settings.clickhouse.database, "t": table},
        )
    ]
    listed = ", ".join(columns)
    stores.client.command(
        stores.resolved(f"CREATE TABLE @kept ENGINE = Memory AS SELECT {listed} FROM @{table} FINAL LIMIT 1")
    )
    stores.client.command(stores.resolved(f"INSERT INTO @{table} ({listed}) SELECT * REPLACE ({change}) FROM @kept"))
    found = list(checks(stores, WHOLE))
    stores.client.command(stores.resolved(f"INSERT INTO @{table} ({listed}) SELECT * FROM @kept"))
    stores.client.command(stores.resolved("DROP TABLE @kept"))
    return found


def test_all_that_is_summed_is_compared(stores: Stores) -> None:
    found = list(checks(stores, WHOLE))
    hours = {(fact["meter"], fact["booked_minute"] // 60) for fact in FACTS if fact["sealed"]}
    assert [(check.name, check.groups, check.broken) for check in found] == [
        ("facts are in the sums by hour", len(hours), 0),
        ("facts are in the sums over all tenants", len(hours), 0),
    ]
    (part, _) = checks(stores, Span(BEGINS, min(BEGINS.replace(hour=22), ENDS)))
    assert 0 < part.groups < len(hours)


@pytest.mark.parametrize(
    ("table", "change", "compared"),
    [
        ("usage_hours", "value + 1 AS value", "value"),
        ("usage_hours", "events + 1 AS events", "events"),
        ("usage_hours", "late_hour_events + 1 AS late_hour_events", "rows"),
        ("usage_totals", "value + 1 AS value", "value"),
        ("usage_totals", "late_events + 1 AS late_events", "rows"),
    ],
)
def test_a_changed_row_is_named(stores: Stores, table: str, change: str, compared: str) -> None:
    found = {check.right: check for check in _changed(stores, table, change)}
    broken = found.pop(table)
    assert broken.broken == 1
    assert broken.breaks[0].where["compared"] == compared
    assert "--again-from" in broken.breaks[0].cause
    assert all(check.holds for check in found.values())
    assert all(check.holds for check in checks(stores, WHOLE))
