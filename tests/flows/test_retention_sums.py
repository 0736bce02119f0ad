"""Sums go with the facts they are of, and what is on hold stays in both."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from core.directory_lock import DirectoryLock
from core.errors import LockHeld
from flows import retention as flow
from flows import summing
from queries.reconcile import Span
from queries.reconcile_sums import checks
from queries.stores import Stores
from sinks.clickhouse import usage_hours
from tests.queries import usage_facts
from tests.queries.usage_facts import BEGINS, ENDS, OPEN

FACTS = usage_facts.made(seed=8, count=1_500)
FACTS_TABLE = next(table for table in flow.TABLES if table.name == "usage_facts")
OCTOBER = 202610


@pytest.fixture
def stores(clickhouse_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stores]:
    monkeypatch.chdir(tmp_path)
    with usage_facts.stored(clickhouse_url) as found:
        found.settings.state_dir.mkdir()
        usage_facts.write(found.settings.clickhouse, FACTS)
        list(usage_hours.advance(found.client, found.history.meters, OPEN))
        yield found


def _tenants(stores: Stores, table: str, time: str) -> set[str]:
    rows = stores.rows(f"SELECT DISTINCT tenant FROM @{table} WHERE toYYYYMM({time}) = {OCTOBER}")
    return {row["tenant"] for row in rows}


@pytest.mark.parametrize("held", [[], ["acme"]], ids=("nobody on hold", "a tenant on hold"))
def test_a_months_facts_go_and_their_sums_too(stores: Stores, held: list[str]) -> None:
    kept = stores.rows("SELECT count() AS n FROM @usage_facts_current WHERE booked_minute >= '2026-11-01 00:00:00'")
    one = flow.Due("usage_facts", OCTOBER, 1_000, len(held))
    flow._remove(stores, FACTS_TABLE, one, flow.Held([], held))
    for table, time in (("usage_facts", "booked_minute"), ("usage_hours", "booked_hour")):
        assert _tenants(stores, table, time) == set(held)
    found = list(checks(stores, Span(BEGINS, ENDS)))
    assert [(check.holds, check.groups > 0) for check in found] == [(True, True)] * 2
    left = stores.rows(f"SELECT count() AS n FROM @usage_totals WHERE toYYYYMM(booked_hour) = {OCTOBER}")
    assert bool(int(left[0]["n"])) == bool(held)
    assert kept == stores.rows(
        "SELECT count() AS n FROM @usage_facts_current WHERE booked_minute >= '2026-11-01 00:00:00'"
    )


def test_nothing_is_removed_while_facts_are_being_summed(stores: Stores) -> None:
    """What is summed meanwhile would stay behind without its facts."""
    one = flow.Due("usage_facts", OCTOBER, 1_000, 0)
    with DirectoryLock(stores.settings.state_dir / summing.LOCK), pytest.raises(LockHeld):
        flow._remove(stores, FACTS_TABLE, one, flow.Held([], []))
    assert _tenants(stores, "usage_facts", "booked_minute")
    assert _tenants(stores, "usage_hours", "booked_hour")
