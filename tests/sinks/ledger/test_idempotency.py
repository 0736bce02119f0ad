"""Keys of acts: one act, one answer, whoever asks how often."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine

from sinks.ledger import idempotency
from sinks.ledger.idempotency import KEPT, OPEN_FOR, Begun

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


def test_the_same_request_gets_the_same_answer(engine: Engine) -> None:
    assert idempotency.begin(engine, "t", "k", "d", NOW) == Begun()
    assert "under way" in idempotency.begin(engine, "t", "k", "d", NOW).conflict
    idempotency.finish(engine, "t", "k", 200, "{}")
    assert idempotency.begin(engine, "t", "k", "d", NOW + KEPT) == Begun(answer=(200, "{}"))
    assert "another request" in idempotency.begin(engine, "t", "k", "other", NOW).conflict
    assert idempotency.begin(engine, "other token", "k", "other", NOW) == Begun()


def test_what_was_not_done_may_be_done_again(engine: Engine) -> None:
    idempotency.begin(engine, "t", "k", "d", NOW)
    idempotency.forget(engine, "t", "k")
    assert idempotency.begin(engine, "t", "k", "other", NOW) == Begun()
    idempotency.finish(engine, "t", "k", 200, "done")
    idempotency.forget(engine, "t", "k")
    assert idempotency.begin(engine, "t", "k", "other", NOW).answer == (200, "done")


def test_a_request_that_died_half_way_may_be_made_again(engine: Engine) -> None:
    idempotency.begin(engine, "t", "k", "d", NOW)
    assert idempotency.begin(engine, "t", "k", "d", NOW + OPEN_FOR) == Begun()
    assert idempotency.begin(engine, "t", "k", "d", NOW + OPEN_FOR).conflict


def test_old_keys_are_forgotten(engine: Engine) -> None:
    idempotency.begin(engine, "t", "k", "d", NOW)
    idempotency.finish(engine, "t", "k", 200, "{}")
    assert idempotency.begin(engine, "t", "k", "other", NOW + KEPT + timedelta(seconds=1)) == Begun()


def test_of_many_at_once_one_acts(engine: Engine) -> None:
    with ThreadPoolExecutor(4) as threads:
        begun = list(threads.map(lambda _: _try(engine), range(8)))
    assert begun.count("acts") == 1


def _try(engine: Engine) -> str:
    try:
        return "waits" if idempotency.begin(engine, "t", "k", "d", NOW).conflict else "acts"
    except Exception as error:
        return type(error).__name__
