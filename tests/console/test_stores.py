"""The pool of threads: bounded, timed, and honest about a ClickHouse that is away."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import nullcontext, suppress

import pytest
from sqlalchemy import Engine

from config.revision import Configuration, Revision
from config.settings import ClickHouseSettings, ConsoleSettings, Settings
from console.problems import Problem
from console.stores import StorePool, open_pool
from core.clock import SystemClock
from core.errors import InvalidRequest, RetryableError, Unreachable
from queries.stores import Stores
from sinks import ledger
from sinks.ledger import revisions


def _pool(settings: Settings, **limits: float) -> StorePool:
    ledger.migrate(settings.ledger_url)
    console = ConsoleSettings.model_validate({"threads": 2, "waiting_max": 1, "request_s_max": 5} | limits)
    return open_pool(settings.model_copy(update={"console": console}), SystemClock())


def test_what_exceeds_threads_and_queue_is_refused(settings: Settings) -> None:
    pool, go = _pool(settings), threading.Event()

    async def all_at_once() -> list[str]:
        async def one() -> str:
            try:
                return str(await pool.ask_ledger(lambda _engine: go.wait(5)))
            except Problem as problem:
                go.set()
                return problem.code

        return await asyncio.gather(*(one() for _ in range(4)))

    assert asyncio.run(all_at_once()) == ["True", "True", "True", "unavailable"]
    assert asyncio.run(pool.ask_ledger(lambda _engine: "again")) == "again"
    pool.close()


def test_a_slow_answer_is_not_waited_for_but_its_thread_counts(settings: Settings) -> None:
    pool, go = _pool(settings, request_s_max=0.1, threads=1, waiting_max=0), threading.Event()

    async def slow_then_next() -> list[str]:
        codes = []
        for _ in range(2):
            with pytest.raises(Problem) as refused:
                await pool.ask_ledger(lambda _engine: go.wait(5))
            codes.append(refused.value.code)
        go.set()
        return codes

    assert asyncio.run(slow_then_next()) == ["timed_out", "unavailable"]
    pool.close()


def saying(number: int) -> Callable[[Engine], int]:
    """Return a question that is answered by that number."""
    return lambda _engine: number


def test_questions_that_wait_do_not_keep_a_caller_from_being_known(settings: Settings) -> None:
    pool, go = _pool(settings, threads=1, waiting_max=0), threading.Event()

    async def scene() -> list[int]:
        slow = asyncio.ensure_future(pool.ask_ledger(lambda _engine: go.wait(5)))
        await asyncio.sleep(0)
        with pytest.raises(Problem, match="unavailable"):
            await pool.ask_ledger(lambda _engine: 0)
        many = await asyncio.gather(*(pool.ask_caller(saying(number)) for number in range(500)))
        go.set()
        await slow
        return list(many)

    assert asyncio.run(scene()) == list(range(500))
    pool.close()


def test_an_error_of_the_question_is_raised_and_frees_its_place(settings: Settings) -> None:
    pool = _pool(settings)

    def fail(_engine: object) -> None:
        message = "no"
        raise InvalidRequest(message)

    for _ in range(10):
        with pytest.raises(InvalidRequest):
            asyncio.run(pool.ask_ledger(fail))
    pool.close()


def test_a_ledger_that_is_not_migrated_is_said_at_the_start(settings: Settings) -> None:
    with pytest.raises(InvalidRequest, match="run `meterbridge migrate`"):
        open_pool(settings, SystemClock())


def test_a_refusal_keeps_the_connection_and_a_failure_does_not(
    settings: Settings, clickhouse_settings: ClickHouseSettings
) -> None:
    pool = _pool(settings.model_copy(update={"clickhouse": clickhouse_settings}))
    revisions.record_revision(pool.engine, Revision(Configuration()), SystemClock().now())
    seen: list[int] = []

    def ask(error: Exception | None) -> None:
        def question(stores: Stores) -> None:
            seen.append(id(stores.client))
            assert stores.rows("SELECT 1 AS one") == [{"one": 1}]
            if error is not None:
                raise error

        with pytest.raises(type(error)) if error else nullcontext():
            asyncio.run(pool.ask(question))

    for error in (None, InvalidRequest("no"), Problem("not_found", "no"), None, Unreachable("gone"), None):
        ask(error)
    assert len(set(seen[:5])) == 1
    assert pool._idle
    pool.close()


def test_a_slow_query_is_ended_by_the_server(settings: Settings, clickhouse_settings: ClickHouseSettings) -> None:
    pool = _pool(settings.model_copy(update={"clickhouse": clickhouse_settings}), request_s_max=1)
    revisions.record_revision(pool.engine, Revision(Configuration()), SystemClock().now())
    said: list[str] = []

    def slow(stores: Stores) -> None:
        with pytest.raises(RetryableError) as ended:
            stores.rows("SELECT sum(sleepEachRow(0.01)) FROM numbers(3000)")
        said.append(str(ended.value))

    with suppress(Problem):
        asyncio.run(pool.ask(slow))
    pool.close()  # waits for the thread
    assert "code 159" in said[0] or "code 160" in said[0], f"not by the server's own limit: {said}"
