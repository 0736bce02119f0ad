"""The watch: measurements on time, and a failing one that neither ends nor hides the others."""

from datetime import UTC, datetime

import pytest
from prometheus_client import REGISTRY

from core.clock import ManualClock
from core.logging import configure
from flows.watch import Measurement, Watch

START = datetime(2026, 11, 24, 12, tzinfo=UTC)


def _measured(part: str) -> float | None:
    return REGISTRY.get_sample_value("meterbridge_watch_timestamp_seconds", {"part": part})


def test_each_measurement_is_made_when_it_is_due() -> None:
    clock = ManualClock(START)
    made: list[tuple[str, float]] = []
    parts = [
        Measurement("watch_often", 10, lambda: made.append(("often", clock.monotonic_s()))),
        Measurement("watch_later", 30, lambda: made.append(("later", clock.monotonic_s())), after_s=30),
    ]
    watch = Watch(parts, clock)
    for _ in range(13):
        watch.pass_once()
        clock.sleep(5)
    assert [at for name, at in made if name == "often"] == [0, 10, 20, 30, 40, 50, 60]
    assert [at for name, at in made if name == "later"] == [30, 60]
    assert _measured("watch_often") == START.timestamp() + 60


def test_a_failing_measurement_ages_is_said_once_and_hides_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    configure("console")
    clock = ManualClock(START)
    failing = True

    def fail() -> None:
        if failing:
            message = "cannot reach http://user:geheim@clickhouse:8123"
            raise OSError(message)

    watch = Watch([Measurement("watch_broken", 10, fail), Measurement("watch_whole", 10, lambda: None)], clock)
    for _ in range(3):
        watch.pass_once()
        clock.sleep(10)
    said = capsys.readouterr()
    assert (said.out + said.err).count("A measurement for the metrics failed") == 1
    assert "geheim" not in said.out + said.err
    assert _measured("watch_broken") is None
    assert _measured("watch_whole") == START.timestamp() + 20
    failing = False
    watch.pass_once()
    assert _measured("watch_broken") == START.timestamp() + 30


def test_nothing_is_measured_after_the_end() -> None:
    clock = ManualClock(START)
    made: list[int] = []
    watch = Watch([Measurement("watch_ended", 1, lambda: made.append(1))], clock)
    watch.stop()
    watch.pass_once()
    assert made == []
