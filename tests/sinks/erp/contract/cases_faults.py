"""Cases 5 to 8, 10, 11, 15, 17: answers lost, late, cut or wrong; servers and posters killed; credentials expired."""

import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import structlog
from sqlalchemy import select

from core.logging import configure
from sinks.erp.port import Outcome, Posting, Unknown
from sinks.ledger import leases, tables
from sinks.ledger.database import read
from tests.flows.poster_world import World
from tests.sinks.erp.contract.cases_booking import book
from tests.sinks.erp.contract.delivery import check_once, deliver, documents, keys, ledger
from tests.sinks.erp.contract.harness import ErpUnderTest, wide_window
from tests.sinks.erp.fault_proxy import FaultName, Reply
from tests.sinks.erp.memory_erp import Died


def case_05_a_lost_answer_is_found_out(erp: ErpUnderTest, folder: Path) -> None:
    faults: tuple[FaultName, ...] = ("lose_answer", "truncate", "delay_answer")
    for fault in faults:
        with ledger(folder) as world:
            world.book(*documents(3))
            erp.faults(fault)
            adapter = erp.adapter(timeout_s=0.5)
            world.poster(adapter, batch=3).pass_once()
            erp.heal()
            erp.finish_jobs()
            assert deliver(world, erp.adapter(), batch=3) == {"POSTED": 3}
            check_once(erp, world)


def case_06_a_late_commit_is_booked_once(erp: ErpUnderTest, folder: Path) -> None:
    with ledger(folder) as world:
        world.book(*documents(1))
        erp.faults("delay_request")
        poster = world.poster(erp.adapter(), batch=3)
        poster.pass_once()
        assert world.states() == {"UNKNOWN": 1}
        if erp.traits.settles_alone:
            # The ERP refuses the second one: the poster may send again although the first is still under way.
            assert deliver(world, erp.adapter()) == {"POSTED": 1}
            erp.release()
        else:
            # Nothing is sent again while the first may still take effect.
            for _ in range(3):
                world.clock.sleep(20)
                poster.pass_once()
            assert world.states() == {"UNKNOWN": 1}
            erp.release()
            erp.finish_jobs()
            assert deliver(world, erp.adapter()) == {"POSTED": 1}
        check_once(erp, world)


def case_06_a_frozen_server_is_waited_for(erp: ErpUnderTest, folder: Path) -> None:
    if not erp.traits.is_server:
        return  # a library in our own process: it freezes only together with us
    with ledger(folder) as world:
        world.book(*documents(4))
        poster = world.poster(erp.adapter(timeout_s=0.5), batch=4)
        erp.freeze()
        try:
            for _ in range(3):
                poster.pass_once()
                world.clock.sleep(10)
        finally:
            erp.thaw()
        time.sleep(0.5)  # what was on its way takes effect
        erp.finish_jobs()
        assert deliver(world, erp.adapter()) == {"POSTED": 4}
        check_once(erp, world)


def case_07_a_killed_server_has_all_or_nothing(erp: ErpUnderTest, folder: Path) -> None:
    if not erp.traits.is_server:
        return  # see test_journal: dying at any step leaves whole books
    with ledger(folder) as world:
        world.book(*documents(12))
        poster = world.poster(erp.adapter(timeout_s=20), batch=12)
        sent = erp.sent()
        thread = threading.Thread(target=poster.pass_once)
        thread.start()
        until_s = time.monotonic() + 20
        while erp.sent() == sent and time.monotonic() < until_s:
            time.sleep(0.001)
        time.sleep(0.02)
        erp.kill()
        thread.join()
        posted = keys(world)
        truth = erp.truth(
            [row for state in ("POSTED", "UNKNOWN", "PENDING", "SUBMITTED") for row in keys(world, state)]
        )
        for found in truth.values():
            assert len(found) <= 1
            assert all(sum(one.sums.values()) == 0 and one.lines == 2 for one in found)
        assert all(truth[one] for one in posted)
        if erp.traits.batch_of_one_transaction:
            assert len({len(found) for found in truth.values()}) == 1
        erp.start()
        erp.finish_jobs()
        assert deliver(world, erp.adapter(timeout_s=20)) in ({"POSTED": 12}, *held_by_class(erp, 12))
        check_once(erp, world)


def held_by_class(erp: ErpUnderTest, count: int) -> list[dict[str, int]]:
    """Return the states in which a person has to decide, which only an ERP that refuses no double leads to."""
    if erp.traits.settles_alone:
        return []
    return [{"POSTED": count - n, "HELD": n} for n in range(1, count)]


class Dying:
    """The poster's process dies in a submit, before or after the ERP was called."""

    def __init__(self, erp: ErpUnderTest, *, after: bool) -> None:
        self._inner = erp.adapter()
        self._after = after

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    def submit(self, postings: Sequence[Posting], attempt_id: str) -> list[Outcome]:
        if self._after:
            self._inner.submit(postings, attempt_id)
        raise Died


def case_08_our_death_in_a_call_is_resolved(erp: ErpUnderTest, folder: Path) -> None:
    for after in (False, True):
        with ledger(folder) as world:
            world.book(*documents(3))
            with pytest.raises(Died):
                world.poster(Dying(erp, after=after), batch=3).pass_once()
            assert world.states() == {"SUBMITTED": 3}
            world.clock.sleep(leases.TTL.total_seconds() + 1)
            erp.finish_jobs()
            states = deliver(world, erp.adapter())
            if erp.traits.settles_alone or after:
                assert states == {"POSTED": 3}
            else:  # nobody knows whether the request ever left, and this ERP refuses no double
                assert states == {"HELD": 3}
            check_once(erp, world)


def case_10_slows_down_when_asked(erp: ErpUnderTest, folder: Path) -> None:
    for headers, status in ((((("Retry-After", "120")),), 429), ((), 429), (((("Retry-After", "7")),), 503)):
        with ledger(folder) as world:
            world.book(*documents(2))
            erp.faults("answer", "answer", reply=Reply(status, headers=headers))
            poster = world.poster(erp.adapter(), batch=2)
            sent = erp.sent()
            poster.pass_once()
            attempts = erp.sent() - sent
            assert attempts == 1
            if status == 429:
                assert world.states() == {"PENDING": 2}
                for _ in range(5):  # within the time asked for, nothing is sent
                    world.clock.sleep(20 if headers else 0)
                    poster.pass_once()
                assert erp.sent() - sent <= 2
            erp.heal()
            states = deliver(world, erp.adapter(), batch=2)
            if erp.traits.settles_alone or status == 429:
                assert states == {"POSTED": 2}
            else:  # a 503 proves nothing: this ERP's postings wait for a person
                assert states in ({"POSTED": 1, "HELD": 1}, {"HELD": 2})
            check_once(erp, world)


def case_11_a_wrong_body_is_never_success(erp: ErpUnderTest, folder: Path) -> None:
    errors = b'{"error": ["UserError", ["no", "", null]], "errors": [{"message": "no"}], "ManualJournals": []}'
    bodies = (b"<html>OK</html>", b"", b'{"cut": ', b"null", b"[]", errors)
    for body in bodies:
        posting = erp.posting()
        erp.faults("answer", reply=Reply(200, body, (("Content-Type", "application/json"),)))
        (outcome,) = erp.adapter().submit([posting], "a")
        assert isinstance(outcome, Unknown) or not erp.traits.is_server, (body, outcome)
        assert erp.truth([posting.key])[posting.key] == []
    erp.heal()
    with ledger(folder) as world:
        world.book(*documents(2))
        erp.faults("html")
        world.poster(erp.adapter(), batch=2).pass_once()
        erp.finish_jobs()
        assert deliver(world, erp.adapter()) == {"POSTED": 2}
        check_once(erp, world)


def case_15_expired_credentials_pause(erp: ErpUnderTest, folder: Path) -> None:
    with ledger(folder) as world:
        world.book(*documents(4))
        adapter = erp.adapter()
        poster = world.poster(adapter, batch=2)
        erp.break_credentials()
        try:
            for _ in range(4):
                poster.pass_once()
                world.clock.sleep(30)
            assert world.states() == {"PENDING": 4}
        finally:
            erp.renew_credentials()
        assert deliver(world, adapter) == {"POSTED": 4}
        check_once(erp, world)


def case_17_no_secret_is_shown(erp: ErpUnderTest, folder: Path, shown: "Shown") -> None:
    configure("json", "DEBUG")
    with ledger(folder) as world:
        world.book(*documents(2))
        poster = world.poster(erp.adapter(timeout_s=0.5), batch=2)
        expired = erp.break_credentials()
        try:
            for _ in range(4):
                poster.pass_once()
                world.clock.sleep(60)
            book(erp.adapter(), erp.posting())
        finally:
            erp.renew_credentials()
        erp.faults("lose_answer", "html", "truncate")
        deliver(world, erp.adapter(), batch=2)
        list(erp.adapter().read_back(wide_window()))
        text = shown() + everything_stored(world)
    for secret in filter(None, (expired, erp.secret())):
        assert secret not in text
    configure()


class Shown:
    """Returns what was written to standard output, standard error and the log so far."""

    def __init__(self, capture: pytest.CaptureFixture[str], log: pytest.LogCaptureFixture) -> None:
        log.set_level(logging.DEBUG)
        self._capture = capture
        self._log = log

    def __call__(self) -> str:
        captured = self._capture.readouterr()
        return captured.out + captured.err + self._log.text + str(structlog.get_config())


def everything_stored(world: World) -> str:
    """Return all that the ledger holds about attempts, postings and exceptions."""
    with read(world.engine) as connection:
        return "".join(
            str(connection.execute(select(table)).all())
            for table in (tables.postings, tables.attempts, tables.exceptions, tables.erp_entries)
        )
