"""`send` and `simulate` against a real Valkey."""

import io
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from typer.testing import CliRunner, Result

from cli import send as send_module
from cli.main import app
from cli.send import history, live
from cli.simulate import plan, send_paced
from config.settings import RedisSettings
from core.clock import ManualClock
from core.errors import InvalidRequest
from sources.producer import Producer
from sources.workload import Workload

STREAMS = ("usage:0", "usage:1", "usage:2", "usage:3")
Run = Callable[..., Result]


@pytest.fixture
def run(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("METERBRIDGE_REDIS__URL", redis_url)

    def call(*arguments: str, **more: Any) -> Result:
        return CliRunner().invoke(app, list(arguments), **more)

    return call


def _entries(url: str) -> dict[str, list[tuple[str, bytes]]]:
    with redis.Redis.from_url(url) as client:
        return {
            name: [(entry_id.decode(), next(iter(fields.values()))) for entry_id, fields in client.xrange(name)]
            for name in STREAMS
        }


def _event(number: int, subject: str, time: str) -> str:
    return json.dumps({"id": str(number), "subject": subject, "time": time})


def test_send_keeps_lines_as_they_are(run: Run, redis_url: str, tmp_path: Path) -> None:
    lines = [_event(1, "a", "2026-11-01T00:00:00Z"), "broken", _event(2, "a", "x"), '{"a": "\u00e9"}']
    file = tmp_path / "events.ndjson"
    file.write_text("\n\n".join(lines) + "\n")
    result = run("send", str(file), "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert (report["events"], report["entries"]) == (4, 4)
    stored = [payload for entries in _entries(redis_url).values() for _, payload in entries]
    assert sorted(stored) == sorted(line.encode() for line in lines)


def test_send_from_standard_input_in_batches(run: Run, redis_url: str) -> None:
    text = "\n".join(_event(number, "a", "2026-11-01T00:00:00Z") for number in range(7))
    result = run("send", "-", "--batch", "3", "--json", input=text)
    assert json.loads(result.stdout)["entries"] == 3
    (entries,) = [found for found in _entries(redis_url).values() if found]
    assert [payload.count(b"\n") + 1 for _, payload in entries] == [3, 3, 1]


def test_ids_from_time_sorts_and_ends_at_the_events_own_times(run: Run, redis_url: str, tmp_path: Path) -> None:
    times = ["2026-11-01T00:00:02.5Z", "2026-11-01T01:00:01.000999+01:00", "2026-11-01T00:00:01Z"]
    file = tmp_path / "events.ndjson"
    file.write_text("\n".join(_event(number, "a", time) for number, time in enumerate(times)))
    result = run("send", str(file), "--ids-from-time", "--stream", "usage:1", "--json")
    assert result.exit_code == 0, result.output
    base = int(datetime(2026, 11, 1, tzinfo=UTC).timestamp() * 1000)
    entries = _entries(redis_url)["usage:1"]
    assert [entry_id for entry_id, _ in entries] == [f"{base + 1000}-0", f"{base + 1000}-1", f"{base + 2500}-0"]
    assert [json.loads(payload)["id"] for _, payload in entries] == ["1", "2", "0"]


def test_history_without_times() -> None:
    now = datetime(2026, 11, 2, tzinfo=UTC)
    text = f"{_event(1, 'a', '2026-11-01T00:00:01Z')}\nbroken\n{_event(2, 'b', '2026-11-01T00:00:00Z')}\n"
    records = list(history(io.BytesIO(text.encode()), "f", now))
    base = int(datetime(2026, 11, 1, tzinfo=UTC).timestamp() * 1000)
    assert [(time_ms, subject) for time_ms, subject, _ in records] == [
        (base, "b"),
        (base + 1000, "a"),
        (base + 1000, ""),
    ]
    with pytest.raises(InvalidRequest, match="f: event 1 has no readable time"):
        list(history(io.BytesIO(b"broken\n"), "f", now))
    with pytest.raises(InvalidRequest, match="event 1 lies in the future"):
        list(history(io.BytesIO(_event(1, "a", "2026-11-02T00:00:01Z").encode()), "f", now))


def test_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(send_module, "LINE_BYTES_MAX", 10)
    with pytest.raises(InvalidRequest, match="f:2: the line is longer"):
        list(live(io.BytesIO(b"1\n12345678901\n"), "f"))
    monkeypatch.setattr(send_module, "LINE_BYTES_MAX", 1000)
    monkeypatch.setattr(send_module, "SORTED_BYTES_MAX", 50)
    with pytest.raises(InvalidRequest, match="split the file by time"):
        list(history(io.BytesIO(_event(1, "a", "2026-11-01T00:00:00Z").encode()), "f"))


def test_send_errors(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidRequest, match="cannot read"):
        run("send", str(tmp_path / "none"), catch_exceptions=False)
    with pytest.raises(InvalidRequest, match="is not a stream of this deployment"):
        run("send", "-", "--stream", "nope", catch_exceptions=False)


def test_simulate_sends_what_it_promises(run: Run, redis_url: str) -> None:
    result = run("simulate", "--events", "3000", "--seed", "4", "--batch", "7", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["events"] == report["expected"]["events"] == 3000
    assert report["seed"] == 4
    stored = [line for found in _entries(redis_url).values() for _, payload in found for line in payload.split(b"\n")]
    assert len(stored) == 3000
    assert report["entries"] == sum(len(found) for found in _entries(redis_url).values()) < 3000


def test_simulate_history_uses_arrival_as_ids(run: Run, redis_url: str) -> None:
    before_ms = datetime.now(UTC).timestamp() * 1000
    assert run("simulate", "--events", "500", "--history-hours", "2").exit_code == 0
    times_ms = [int(entry_id.split("-")[0]) for found in _entries(redis_url).values() for entry_id, _ in found]
    assert len(times_ms) == 500
    assert before_ms - 2 * 3_600_000 - 60_000 < min(times_ms) < before_ms - 1.5 * 3_600_000
    assert max(times_ms) < before_ms + 60_000


def test_paced_sending_follows_the_clock(redis_url: str) -> None:
    start = datetime(2026, 11, 2, tzinfo=UTC)
    clock = ManualClock(start)
    workload = Workload(1, 5, 400, start=start, end=start + timedelta(seconds=8))
    sent: list[int] = []
    with Producer(RedisSettings(url=redis_url)) as producer:
        report = send_paced(producer, workload, clock, 1, sent.append)
    assert report.events == sum(sent) == 400
    assert 7.5 < clock.monotonic_s() <= 8.1
    assert max(sent) <= 12  # 50 a second, looked at every 50 ms
    assert sum(part.events for part in report.streams.values()) == 400


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((100, None, None), (100, None)),
        ((100, None, 50.0), (100, 2.0)),
        ((None, 3.0, 10.0), (30, 3.0)),
        ((None, 2.0, None), (2000, 2.0)),
        ((100, 4.0, None), (100, 4.0)),
    ],
)
def test_plan(arguments: tuple[Any, ...], expected: tuple[int, float | None]) -> None:
    assert plan(*arguments) == expected


@pytest.mark.parametrize("arguments", [(None, None, None), (None, None, 5.0), (1, 1.0, 1.0), (None, 0.1, 1.0)])
def test_plan_refuses(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(InvalidRequest):
        plan(*arguments)
