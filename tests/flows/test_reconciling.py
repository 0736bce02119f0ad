"""Reconciliation on a schedule: what it shows, what it survives, and that it ends with the flow."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from config.settings import ReconcileSettings
from core.clock import ManualClock
from flows.reconciling import (
    BREAK,
    IDENTITIES_MAX,
    Outcome,
    Schedule,
    as_exceptions,
    command_of,
    in_process,
    last_result,
)
from sinks import ledger
from sinks.ledger.database import read
from sinks.ledger.exceptions import open_exceptions

START = datetime(2026, 11, 20, 6, tzinfo=UTC)


def sample(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(f"meterbridge_reconcile_{name}", labels)


def report(**broken: int) -> dict[str, Any]:
    checks = [
        {"name": name, "broken": count, "breaks": [{"likely_cause": "rows are missing"}] if count else []}
        for name, count in broken.items()
    ]
    return {"holds": not any(broken.values()), "from": "a", "to": "b", "checks": checks}


class Desk:
    """A schedule over outcomes given by hand, each of which takes three seconds."""

    def __init__(self, directory: Path, *outcomes: Outcome | None) -> None:
        self.clock = ManualClock(START)
        self.directory = directory
        self.left = list(outcomes)
        self.schedule = Schedule(ReconcileSettings(), directory, self._run, self.clock)

    def _run(self, _stop: threading.Event) -> Outcome | None:
        self.clock.sleep(3)
        return self.left.pop(0)

    def once(self) -> Outcome | None:
        return self.schedule.once(threading.Event())


def test_breaks_are_shown_by_identity_and_gone_when_they_are(tmp_path: Path) -> None:
    desk = Desk(tmp_path, Outcome(report(facts=2, cents=0)), Outcome(report(facts=0, cents=0)))
    assert last_result(tmp_path) is None

    desk.once()

    assert sample("breaks", identity="facts") == 2
    assert sample("breaks", identity="cents") == 0
    assert sample("duration_seconds") == 3
    assert sample("last_run_timestamp_seconds") == START.timestamp()
    assert sample("last_success_timestamp_seconds") == (START + timedelta(seconds=3)).timestamp()
    kept = last_result(tmp_path)
    assert kept is not None
    assert (kept["holds"], kept["broken"], kept["checks"], kept["error"]) == (False, {"facts": 2}, 2, "")

    desk.once()

    assert sample("breaks", identity="facts") == 0
    assert (last_result(tmp_path) or {})["holds"] is True


def test_a_run_without_a_result_leaves_what_is_known_and_is_counted(tmp_path: Path) -> None:
    desk = Desk(tmp_path, Outcome(report(facts=1)), Outcome(None, "ClickHouse does not answer"), None)
    desk.once()
    failures, success = sample("failures_total") or 0, sample("last_success_timestamp_seconds")

    desk.once()

    assert sample("failures_total") == failures + 1
    assert sample("breaks", identity="facts") == 1
    assert sample("last_success_timestamp_seconds") == success
    assert (last_result(tmp_path) or {})["error"] == "ClickHouse does not answer"
    assert desk.once() is None  # stopped: nothing is shown
    assert (last_result(tmp_path) or {})["error"] == "ClickHouse does not answer"


def test_labels_are_bounded(tmp_path: Path) -> None:
    many = {f"meter_{number}": 1 for number in range(IDENTITIES_MAX + 3)}

    Desk(tmp_path, Outcome(report(**many))).once()

    assert sample("breaks", identity="others") == 3
    assert sample("breaks", identity=f"meter_{IDENTITIES_MAX}") is None


def test_the_loop_survives_whatever_a_run_raises_and_ends_with_the_flag(tmp_path: Path) -> None:
    stop, calls = threading.Event(), []

    def run(_stop: threading.Event) -> Outcome | None:
        calls.append(1)
        if len(calls) == 2:
            stop.set()
        message = "a defect"
        raise ValueError(message)

    settings = ReconcileSettings(every_minutes=1)
    schedule = Schedule(settings, tmp_path, run, ManualClock(START), first_after_s=0.01)
    schedule._every_s = 0.01
    thread = schedule.start(stop)
    assert thread is not None
    thread.join(10)
    assert not thread.is_alive()
    assert len(calls) == 2
    assert Schedule(ReconcileSettings(every_minutes=0), tmp_path, run, ManualClock(START)).start(stop) is None


def python(text: str) -> list[str]:
    return [sys.executable, "-c", text]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("print('{\"checks\": []}')", Outcome({"checks": []})),
        ("import sys; print('{\"checks\": []}'); sys.exit(1)", Outcome({"checks": []})),
        ("import sys; sys.stderr.write('error: no answer'); sys.exit(75)", Outcome(None, "error: no answer")),
        ("import sys; sys.stderr.write('error: bad option'); sys.exit(1)", Outcome(None, "error: bad option")),
        (
            'import sys; sys.stderr.write(\'{"error": "Unreachable", "message": "nothing answers"}\'); sys.exit(75)',
            Outcome(None, "nothing answers"),
        ),
        ("import os; os.kill(os.getpid(), 9)", Outcome(None, "exit code -9")),
        ("import os; print('{\"nice\": %d}' % os.nice(0))", Outcome({"nice": 10})),
    ],
)
def test_the_process_is_read_by_its_exit_code(text: str, expected: Outcome) -> None:
    import os  # noqa: PLC0415

    if expected.report and "nice" in expected.report:
        expected = Outcome({"nice": min(19, os.nice(0) + 10)})
    assert in_process(python(text), 60)(threading.Event()) == expected


def test_a_process_that_hangs_is_ended_by_the_flag_and_by_its_limit() -> None:
    stop = threading.Event()
    threading.Timer(0.5, stop.set).start()
    began_s = time.monotonic()

    assert in_process(python("import time; time.sleep(600)"), 600)(stop) is None
    late = in_process(python("import time; time.sleep(600)"), 0.5)(threading.Event())

    assert time.monotonic() - began_s < 60
    assert late is not None
    assert "METERBRIDGE_RECONCILE__SECONDS_MAX" in late.error


def test_the_command_names_the_window_and_the_configuration() -> None:
    command = command_of(ReconcileSettings(window_hours=6), Path("x.yaml"))
    assert command[1:] == [*["-P", "-m", "cli", "--config", "x.yaml", "reconcile", "--last-hours", "6", "--json"]]


def windowed(begins: int, *hours: int, more: int = 0) -> dict[str, Any]:
    """A report from an hour of the day on, in which the identity `facts` does not hold in some hours."""
    breaks = [{"where": {"booked_hour": str(START.replace(hour=hour))}, "likely_cause": "rows"} for hour in hours]
    checks = [{"name": "facts", "broken": len(breaks) + more, "breaks": breaks}]
    return {"holds": not breaks, "from": START.replace(hour=begins).isoformat(), "to": "b", "checks": checks}


Record = tuple[Callable[[dict[str, Any]], None], Callable[[], list[str]]]


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Record]:
    """What makes exceptions of reports, and the details of those that are open."""
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    ledger.migrate(url)
    engine = ledger.connect(url)

    def open_now() -> list[str]:
        with read(engine) as connection:
            return [row["detail"] for row in open_exceptions(connection) if row["kind"] == BREAK]

    yield as_exceptions(url, ManualClock(START)), open_now
    engine.dispose()


def test_an_identity_that_does_not_hold_is_an_exception_until_it_holds(record: Record) -> None:
    take, open_now = record

    take(windowed(2, 6, 5))
    take(windowed(3, 6, 5))
    assert open_now() == ["facts: 2 groups differ, booked since 2026-11-20T05:00:00+00:00; likely: rows"]
    take(windowed(5))
    assert open_now() == []
    take(windowed(5, 7))
    assert open_now() == ["facts: 1 groups differ, booked since 2026-11-20T07:00:00+00:00; likely: rows"]


def test_what_leaves_the_window_unmended_stays_an_exception(record: Record) -> None:
    take, open_now = record

    take(windowed(2, 6))
    take(windowed(3, 6, 4))  # one that lies before the first
    assert open_now() == ["facts: 2 groups differ, booked since 2026-11-20T04:00:00+00:00; likely: rows"]
    take(windowed(5, 6))
    take(windowed(5))
    take(windowed(7))
    assert open_now() == ["facts: 2 groups differ, booked since 2026-11-20T04:00:00+00:00; likely: rows"]
    take(windowed(4))
    assert open_now() == []


def test_where_not_all_breaks_are_named_they_may_lie_anywhere_in_the_window(record: Record) -> None:
    take, open_now = record

    take(windowed(2, 6, more=1))
    take(windowed(3))
    assert open_now() == ["facts: 2 groups differ, booked since 2026-11-20T02:00:00+00:00; likely: rows"]


def test_a_ledger_that_does_not_answer_loses_no_metric(tmp_path: Path) -> None:
    desk = Desk(tmp_path, Outcome(report(facts=4)))
    desk.schedule._record = as_exceptions(f"sqlite:///{tmp_path / 'missing' / 'ledger.sqlite'}", desk.clock)

    with pytest.raises(Exception, match="no such table"):
        desk.once()

    assert sample("breaks", identity="facts") == 4
    assert (last_result(tmp_path) or {})["broken"] == {"facts": 4}
