"""How long steps took: of events that were posted, refused, taken back and read back."""

from datetime import UTC, datetime, timedelta

import orjson
import pytest
from typer.testing import CliRunner

from cli.main import app
from cli.trace_parts import times_parts
from queries.event_times import TimedStep, timed_steps
from queries.event_trace import EventTrace, MeterTrace, trace_event
from tests.flows.harness import CONFIG
from tests.queries.conftest import Finished

USED = datetime(2026, 11, 20, 8, tzinfo=UTC)


def after(seconds: float) -> datetime:
    """Return a time that long after usage."""
    return USED + timedelta(seconds=seconds)


def _trace() -> EventTrace:
    """An event with two meters in one document, whose posting was tried twice and read back."""
    attempts = [
        {"attempt": 1, "started_at": after(100), "finished_at": after(130), "outcome": "unknown"},
        {"attempt": 2, "started_at": after(200), "finished_at": after(201), "outcome": "posted"},
    ]
    posting = {
        "key": "P",
        "state": "RECONCILED",
        "created_at": after(90),
        "changed_at": after(3600),
        "attempts": attempts,
        "erp_entries": [{"number": "J-1", "posted_at": after(201)}],
    }
    trace = EventTrace("/x", "1", accepted={"event_time": USED, "ingest_time": after(1.5)})
    for name in ("tokens", "requests"):
        meter = MeterTrace(name, "sum", 1, {}, USED, USED)
        meter.documents = [{"key": "D", "posting": posting}, {"key": "E", "posting": None}]
        trace.meters.append(meter)
    trace.voids = [{"id": "v", "ingest_time": after(60)}]
    return trace


def test_every_step_that_left_a_time_is_told_once_with_how_long_it_took() -> None:
    assert [(one.step, one.at, one.took and one.took.total_seconds()) for one in timed_steps(_trace())] == [
        ("used", USED, None),
        ("arrived", after(1.5), 1.5),
        ("posting P made", after(90), 88.5),
        ("attempt 1 begun", after(100), 10),
        ("attempt 1 unknown", after(130), 30),
        ("attempt 2 begun", after(200), 70),
        ("attempt 2 posted", after(201), 1),
        ("in the ERP as J-1", after(201), 111),
        ("read back and reconciled", after(3600), 3399),
        ("taken back by v", after(60), 60),
    ]


def test_a_refused_event_has_the_time_at_which_it_was_refused() -> None:
    trace = EventTrace("/x", "1", refused=[{"reason": "too_old", "ingest_time": USED}])
    assert timed_steps(trace) == [TimedStep("refused: too_old", USED)]


@pytest.mark.parametrize(
    ("took", "shown"),
    [
        (timedelta(milliseconds=1500), "1.500 s"),
        (timedelta(days=1, hours=6, milliseconds=600), "1 day, 6:00:01"),
        (timedelta(minutes=-5), "-0:05:00"),  # the event's own clock was ahead
    ],
)
def test_durations_are_read_at_a_glance(took: timedelta, shown: str) -> None:
    (made,) = times_parts([TimedStep("arrived", USED, took)])
    assert next(iter(made.columns[2].cells)).plain == shown  # type: ignore[union-attr]


def test_the_command_tells_them(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in finished.deployment.environment().items():
        monkeypatch.setenv(name, value)
    (row,) = finished.stores.rows(
        "SELECT source, id FROM @usage_events_current WHERE tenant = 'globex' AND type = 'llm.completion'"
        " ORDER BY source, id LIMIT 1"
    )
    trace = trace_event(finished.stores, row["source"], row["id"])
    result = CliRunner().invoke(app, ["--config", str(CONFIG), "--json", "trace", "event", row["source"], row["id"]])
    steps = orjson.loads(result.stdout)["steps"]
    assert [one["step"] for one in steps] == [one.step for one in timed_steps(trace)]
    assert steps[1]["took_s"] >= 0
    assert any(one["step"].startswith("in the ERP as J-") for one in steps)
