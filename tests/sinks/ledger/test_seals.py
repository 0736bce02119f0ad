"""Seals in the ledger, on both databases: a chain that is only added to."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from config.period_closes import PeriodClose
from core.errors import InvalidRequest
from core.signing import Key
from flows.seal_verification import chain_problems
from queries.leaves_clickhouse import Scope
from queries.leaves_ledger import document_leaves, posting_leaves
from sinks import ledger
from sinks.erp.journal import JournalAdapter
from sinks.ledger import audit, closes, documents, retention, seals
from sinks.ledger.database import read, write
from tests.flows.poster_world import START, World
from tests.sinks.ledger.samples import HOUR, SampleDocument, key

KEY = Key.of(b"k" * 32)


def _summary(entity: str, period: str) -> Any:
    return lambda number, previous: {
        "entity": entity, "accounting_period": period, "number": number, "previous": previous,
    }  # fmt: skip


def _record(engine: Engine, entity: str, period: str) -> seals.Seal:
    with write(engine) as connection:
        return seals.record(connection, _summary(entity, period), KEY, actor="ann", reason="month end", now=START)


def test_seals_are_a_chain_and_each_period_is_sealed_once(engine: Engine) -> None:
    first, second = _record(engine, "US01", "2025-10"), _record(engine, "EU01", "2025-10")
    assert (first.number, first.previous, second.number, second.previous) == (1, "", 2, first.digest)
    with pytest.raises(InvalidRequest, match="run the command again"):
        _record(engine, "US01", "2025-10")
    with read(engine) as connection:
        assert seals.chain(connection) == [first, second]
        assert seals.find(connection, "EU01", "2025-10") == second
        assert seals.find(connection, "EU01", "2025-11") is None
        assert list(chain_problems(seals.chain(connection))) == []
        actions = [row["action"] for row in audit.entries(connection)]
    assert actions == ["seal-period", "seal-period"]
    assert KEY.signed(first.json.encode(), first.signature)
    assert b"kkkk" not in first.file_text()


def test_a_sealed_period_is_not_opened_again(engine: Engine) -> None:
    def record(action: Any, hour: int, period: str) -> None:
        fact = PeriodClose("US01", period, hour * 3_600_000, action)
        closes.record(engine, fact, actor="ann", reason="x", now=START)

    for period in ("2025-10", "2025-11"):
        record("close", HOUR, period)
    _record(engine, "US01", "2025-10")
    with pytest.raises(InvalidRequest, match="2025-10 of US01 is sealed and stays closed"):
        record("reopen", HOUR + 1, "2025-10")
    record("reopen", HOUR + 1, "2025-11")


def test_the_same_books_have_the_same_leaves_in_both_databases(
    engine: Engine, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = World(f"sqlite:///{tmp_path / 'other.sqlite'}")
    here = World(engine.url.render_as_string(hide_password=False))
    found = []
    for world, books in ((other, "other"), (here, "here")):
        world.configure()
        names = ["Zoe", "adam", "Änne", "b"]
        world.book(*(SampleDocument(key(n), f"1.{n}0", customer=name) for n, name in enumerate(names)))
        world.book(SampleDocument(key(9), "-7.5", booked_hour=HOUR + 1), complete_hour=HOUR + 2)
        world.once(erp=JournalAdapter(tmp_path / books))
        scope = Scope("US01", "2025-11", 0, 0, 0)
        found.append((list(document_leaves(world.engine, scope)), list(posting_leaves(world.engine, scope))))
        world.engine.dispose()
    assert found[0] == found[1]
    (leaves, posted) = found[0]
    assert [leaf.owner for leaf in leaves] == ["Zoe", "adam", "b", "Änne", "acme"]
    assert [leaf.total for leaf in leaves] == ["1", "1.1", "1.3", "1.2", "-7.5"]
    assert [(leaf.rows, leaf.total) for leaf in posted] == [(4, "4.6"), (1, "7.5")]


def test_a_month_of_a_table_expires_once_and_holds_are_in_force_until_they_end(engine: Engine) -> None:
    for month in (202411, 202412):
        retention.record(engine, retention.Expiration("usage_events", month, 5, 2, "d", START), "ann")
    with pytest.raises(InvalidRequest, match="202412 of usage_events was recorded"):
        retention.record(engine, retention.Expiration("usage_events", 202412, 5, 2, "d", START), "bob")
    assert retention.expired_before(engine) == {"usage_events": datetime(2025, 1, 1, tzinfo=UTC)}
    assert [one.month for one in retention.expirations(engine)] == [202411, 202412]
    later = START + timedelta(days=1)
    for now in (START, later):
        assert retention.place(engine, "tenant", "acme", actor="ann", reason="case", now=now)
        assert not retention.place(engine, "tenant", "acme", actor="bob", reason="case", now=later)
        retention.release(engine, "tenant", "acme", actor="ann", reason="over", now=later)
    assert retention.holds(engine) == []
    assert [one.released_at for one in retention.holds(engine, released=True)] == [later, later]
    assert retention.audit_rows(engine, later) == 3
    assert retention.remove_audit(engine, later, "ann", later) == 3


def test_a_staged_document_is_not_part_of_the_period(engine: Engine) -> None:
    ledger.check_ready(engine)
    with write(engine) as connection:
        assert documents.stage(connection, [SampleDocument(key(1))], 1) == []
    assert list(document_leaves(engine, Scope("US01", "2025-11", 0, 0, 0))) == []
