"""The sums by hour: against the facts, over open facts, crashes and repetitions."""

from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest

from core.errors import InvalidRequest
from queries.stores import Stores
from sinks.clickhouse import usage_hours
from sinks.clickhouse.client import Client
from tests.queries import usage_facts
from tests.queries.usage_facts import BEGINS, ENDS, OPEN

FACTS = usage_facts.made(seed=3, count=2_000)
METERS = usage_facts.configuration().meters
BY_ID = {meter.id: meter for meter in METERS}


@pytest.fixture
def stores(clickhouse_url: str) -> Iterator[Stores]:
    with usage_facts.stored(clickhouse_url) as found:
        yield found


def _advance(stores: Stores, until: datetime) -> list[datetime]:
    return list(usage_hours.advance(stores.client, BY_ID, until))


def _sums(stores: Stores) -> dict[str, tuple[int, int]]:
    """Return rows and events of either table."""
    return {
        table: tuple(map(int, stores.client.query(stores.resolved(f"SELECT count(), sum(events) FROM @{table} FINAL")).result_rows[0]))  # type: ignore[misc]  # noqa: E501
        for table in usage_hours.TABLES
    }  # fmt: skip


def test_without_facts_nothing_is_summed(stores: Stores) -> None:
    assert _advance(stores, ENDS) == []
    assert usage_hours.summed_until(stores.client) is None


def test_an_hour_with_an_open_fact_is_not_summed(stores: Stores) -> None:
    usage_facts.write(stores.settings.clickhouse, FACTS)
    assert _advance(stores, ENDS) == [OPEN]
    assert usage_hours.summed_until(stores.client) == OPEN
    assert _advance(stores, ENDS) == []
    sealed = [fact | {"sealed": 1} for fact in FACTS]
    usage_facts.write(stores.settings.clickhouse, sealed)
    assert _advance(stores, ENDS) == [ENDS]
    events = sum(fact["events"] for fact in FACTS)
    assert {found[1] for found in _sums(stores).values()} == {events}


def test_many_facts_are_summed_in_steps_of_whole_hours(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    usage_facts.write(stores.settings.clickhouse, FACTS)
    monkeypatch.setattr(usage_hours, "ROWS_PER_STEP_MAX", 500)
    steps = _advance(stores, OPEN)
    assert len(steps) > 3
    assert steps == sorted(set(steps))
    assert all(step.minute == 0 for step in steps)
    assert steps[-1] == OPEN
    by_steps = _sums(stores)
    monkeypatch.undo()
    usage_hours.forget(stores.client, BEGINS, lambda: None)
    assert _advance(stores, OPEN) == [OPEN]
    assert _sums(stores) == by_steps


@pytest.mark.parametrize("after", [1, 2])
def test_dying_between_the_statements_leaves_nothing_to_mend(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    usage_facts.write(stores.settings.clickhouse, FACTS)
    real, calls = Client.command, 0

    def command(self: Client, text: str, *arguments: object, **more: object) -> object:
        nonlocal calls
        calls += 1
        if calls > after:
            raise KeyboardInterrupt
        return real(self, text, *arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Client, "command", command)
    with pytest.raises(KeyboardInterrupt):
        _advance(stores, OPEN)
    monkeypatch.undo()
    assert usage_hours.summed_until(stores.client) is None
    assert _advance(stores, OPEN) == [OPEN]
    events = sum(fact["events"] for fact in FACTS if fact["sealed"])
    assert {found[1] for found in _sums(stores).values()} == {events}


def _die() -> None:
    raise KeyboardInterrupt


def test_sums_are_made_again_after_facts_were_mended(stores: Stores) -> None:
    usage_facts.write(stores.settings.clickhouse, FACTS)
    _advance(stores, OPEN)
    with pytest.raises(InvalidRequest, match="no sums of 2026-12"):
        usage_hours.forget(stores.client, BEGINS + timedelta(days=60), lambda: None)
    kept = [fact for fact in FACTS if fact["tenant"] != "acme" and fact["sealed"]]
    stores.client.command(
        stores.resolved("ALTER TABLE @usage_facts DELETE WHERE tenant = 'acme'"), settings={"mutations_sync": 2}
    )
    told = []

    def wait() -> None:
        told.append((usage_hours.summed_until(stores.client), sum(found[0] for found in _sums(stores).values()) > 0))

    with pytest.raises(KeyboardInterrupt):  # died while it waited: the next run makes them again all the same
        usage_hours.forget(stores.client, BEGINS, _die)
    assert _advance(stores, OPEN)[-1] == OPEN
    assert {found[1] for found in _sums(stores).values()} == {sum(fact["events"] for fact in kept)}
    month = usage_hours.forget(stores.client, BEGINS, wait)
    assert told == [(month, True)]  # questions under way still find what they count on
    assert all(found == (0, 0) for found in _sums(stores).values())
    assert _advance(stores, OPEN)[-1] == OPEN
    assert {found[1] for found in _sums(stores).values()} == {sum(fact["events"] for fact in kept)}
