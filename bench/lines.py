"""The input of the engine benchmarks: CloudEvents in memory, 2 % sent twice, 1 % late, at 1,000 a second."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import orjson

from config.meters import Meter
from config.revision import Configuration, History, Revision

START = datetime(2026, 10, 31, 10, tzinfo=UTC)
START_MS = int(START.timestamp() * 1000)
EVENTS_PER_SECOND = 1000
DUPLICATE_EVERY = 50
LATE_EVERY = 100
LATE_MS = 600_000
TENANTS = 1000
STREAMS = ("usage:0",)


@dataclass(frozen=True, slots=True)
class Input:
    """Events in order of arrival, with what a right pipeline makes of them."""

    lines: list[bytes]
    arrival_ms: list[int]
    accepted: int
    tokens: int


def make(events: int) -> Input:
    """Return the input; the same for the same number."""
    lines: list[bytes] = []
    arrival_ms: list[int] = []
    tokens = accepted = 0
    for number in range(events):
        now_ms = START_MS + number * 1000 // EVENTS_PER_SECOND
        arrival_ms.append(now_ms)
        if number % DUPLICATE_EVERY == DUPLICATE_EVERY - 1:
            lines.append(lines[number - 7])
            continue
        used = number * 7919 % 5000
        lines.append(_line(number, now_ms - (LATE_MS if number % LATE_EVERY == 0 else 1500), used))
        accepted, tokens = accepted + 1, tokens + used
    return Input(lines, arrival_ms, accepted, tokens)


def _line(number: int, time_ms: int, used: int) -> bytes:
    time = START + timedelta(milliseconds=time_ms - START_MS)
    event = {
        "specversion": "1.0",
        "id": f"evt-{number:012d}",
        "source": "/api/eu-1",
        "type": "llm.completion",
        "subject": f"tenant-{number * 2_654_435_761 % TENANTS}",
        "time": time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "data": {"input_tokens": used, "model": f"gpt-{number % 7}", "region": "eu"},
    }
    return orjson.dumps(event)


def history() -> History:
    """Return the configuration both pipelines compute: tokens by tenant, model and minute, and a count."""
    meters = (
        Meter(
            id="input_tokens",
            event_type="llm.completion",
            aggregation="sum",
            value="$.input_tokens",
            group_by={"model": "$.model"},
        ),
        Meter(id="requests", event_type="llm.completion", aggregation="count"),
    )
    return History([Revision(Configuration(meters=meters))])
