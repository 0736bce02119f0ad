"""The state of accounting periods, on both ledger databases: by the calendar, by what people recorded, by seals."""

from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from sqlalchemy import Engine, insert

from config.period_closes import PeriodClose
from config.settings import Settings
from core.signing import Key
from queries.periods import PeriodStatus, periods, plain_periods
from queries.stores import Stores
from sinks.ledger import closes, seals, tables
from sinks.ledger.database import write
from sinks.ledger.times import to_ms
from tests.sinks.ledger.conftest import engine
from tests.sinks.ledger.samples import entity, history

__all__ = ["engine"]

BEGINS = datetime(2025, 11, 1, 4, tzinfo=UTC)
"""New York's midnight, in summer time still."""
ENDS = datetime(2025, 12, 1, 5, tzinfo=UTC)
CUTOFF = ENDS + timedelta(days=5)
KEY = Key.of(b"k" * 32)


def _document(connection: Any, key: str, period: str, state: str = "IN_POSTING", owner: str = "US01") -> None:
    row = {
        "key": key, "digest": "", "entity": owner, "customer": "acme", "contract": "acme-1", "currency": "USD",
        "booked_hour": 490_000, "accounting_period": period, "posting_date": "2025-11-30", "kind": "accrual",
        "debit_total": 1, "json": "{}", "state": state, "staged_sequence": 0, "net": 1,
        "posting_key": f"OF-{key}" if state == "IN_POSTING" else None,
    }  # fmt: skip
    connection.execute(insert(tables.documents).values(row))


def _posting(connection: Any, key: str, period: str, state: str) -> None:
    row = {
        "key": key, "digest": "", "entity": "US01", "adapter": "journal", "currency": "USD",
        "accounting_period": period, "bucket": "", "booked_hour": 490_000, "documents": 1, "json": "{}", "state": state,
        "created_at_ms": 0, "changed_at_ms": 0,
    }  # fmt: skip
    connection.execute(insert(tables.postings).values(row))


def _record(engine: Engine, action: Any, known_from: datetime) -> None:
    fact = PeriodClose("US01", "2025-11", to_ms(known_from), action)
    closes.record(engine, fact, actor="ann", reason="because", now=known_from)


def _stores(engine: Engine) -> Stores:
    return Stores(Settings(), cast("Any", None), engine, history(entity("US01"), entity("EU01")))  # ledger only


def _found(engine: Engine, now: datetime, **options: Any) -> dict[tuple[str, str], PeriodStatus]:
    return {(one.entity, one.accounting.name): one for one in periods(_stores(engine), now, **options)}


@pytest.mark.parametrize(
    ("now", "state"),
    [
        (ENDS - timedelta(seconds=1), "open"),
        (ENDS, "closing"),
        (CUTOFF - timedelta(seconds=1), "closing"),
        (CUTOFF, "closed"),
    ],
)
def test_the_calendar_decides_where_nobody_does(engine: Engine, now: datetime, state: str) -> None:
    with write(engine) as connection:
        _document(connection, "A", "2025-11")
    one = _found(engine, now)["US01", "2025-11"]
    assert (one.state, one.state_by, one.takes_until) == (state, "cut-off", CUTOFF)
    assert (one.accounting.start, one.accounting.end) == (BEGINS, ENDS)
    assert bool(one.blocks) == (state != "closed")


def test_the_running_period_of_each_entity_is_there_without_documents(engine: Engine) -> None:
    assert set(_found(engine, BEGINS)) == {("US01", "2025-11"), ("EU01", "2025-11")}
    assert set(_found(engine, BEGINS - timedelta(seconds=1), entity="US01")) == {("US01", "2025-10")}
    assert _found(engine, BEGINS, since="2025-12") == {}


def test_a_recorded_close_and_a_reopening_beat_the_cut_off_from_their_hour_on(engine: Engine) -> None:
    early = datetime(2025, 11, 28, 12, tzinfo=UTC)
    _record(engine, "close", early)
    assert _found(engine, early - timedelta(seconds=1))["US01", "2025-11"].state == "open"
    assert _found(engine, early - timedelta(seconds=1))["US01", "2025-11"].takes_until == early
    closed = _found(engine, early)["US01", "2025-11"]
    assert (closed.state, closed.state_by, closed.takes_until) == ("closed", "close", early)
    with write(engine) as connection:
        _document(connection, "A", "2025-11")
    _record(engine, "reopen", CUTOFF + timedelta(hours=3))
    again = _found(engine, CUTOFF + timedelta(days=9))["US01", "2025-11"]
    assert (again.state, again.state_by, again.takes_until) == ("closing", "reopen", None)
    assert [fact.action for fact in again.recorded] == ["close", "reopen"]
    assert again.blocks == ["takes usage until somebody closes it again"]


def test_what_waits_is_counted_from_the_ledger(engine: Engine) -> None:
    states = ["POSTED", "RECONCILED", "SUPERSEDED", "HELD", "UNKNOWN", "PENDING"]
    with write(engine) as connection:
        for number, state in enumerate(["IN_POSTING", "PENDING", "STAGED", "NOT_POSTED_ZERO"]):
            _document(connection, f"N{number}", "2025-11", state)
        _document(connection, "EU", "2025-11", owner="EU01")
        _document(connection, "OLD", "2025-09")
        for number, state in enumerate(states):
            _posting(connection, f"P{number}", "2025-11", state)
    found = _found(engine, CUTOFF)
    one = found["US01", "2025-11"]
    assert (one.documents, one.without_posting, one.undelivered) == (4, 2, 3)
    assert one.postings == dict.fromkeys(states, 1)
    assert one.blocks == ["2 documents are in no posting", "3 postings are not in the ERP"]
    assert (found["EU01", "2025-11"].documents, found["US01", "2025-09"].documents) == (1, 1)
    order = [(row["accounting_period"], row["entity"]) for row in plain_periods(periods(_stores(engine), CUTOFF))]
    assert order == sorted(order, reverse=True)
    assert set(_found(engine, CUTOFF, since="2025-10")) == set(found) - {("US01", "2025-09")}


def test_a_seal_is_the_last_word(engine: Engine) -> None:
    with write(engine) as connection:
        _document(connection, "A", "2025-11", "PENDING")
        seal = seals.record(
            connection,
            lambda number, previous: {
                "entity": "US01", "accounting_period": "2025-11", "number": number, "previous": previous,
            },
            KEY, actor="ann", reason="month end", now=CUTOFF,
        )  # fmt: skip
    one = _found(engine, CUTOFF)["US01", "2025-11"]
    assert (one.state, one.seal_number, one.sealed_by, one.sealed_at) == ("sealed", 1, "ann", CUTOFF)
    assert (one.sha256, one.blocks) == (seal.digest, [])
