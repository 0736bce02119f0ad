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


@dataclass(frozen=True, slots=True)
class Input:
    """Events in order of arrival, with what a right pipeline makes of them."""

    lines: list[bytes]
    arrival_ms: list[int]
    accepted: int
    tokens: int
    streams: int = 1


@dataclass(frozen=True, slots=True)
class Shape:
    """What the events are spread over. Series are tenants times models; tenants in turn, or half of all from one."""

    tenants: int = TENANTS
    models: int = 7
    streams: int = 1
    skewed: bool = False

    def tenant_of(self, number: int) -> int:
        """Return the tenant of an event: with a skew, tenant n has a share of about 1/n, and the first has half."""
        spread = number * 2_654_435_761 % 2**32
        if not self.skewed:
            return spread % self.tenants
        return 0 if spread & 1 else min(int(self.tenants ** (spread / 2**32)), self.tenants - 1)


def make(events: int, shape: Shape | None = None) -> Input:
    """Return the input; the same for the same number and shape."""
    shape = shape or Shape()
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
        lines.append(_line(number, now_ms - (LATE_MS if number % LATE_EVERY == 0 else 1500), used, shape))
        accepted, tokens = accepted + 1, tokens + used
    return Input(lines, arrival_ms, accepted, tokens, shape.streams)


def _line(number: int, time_ms: int, used: int, shape: Shape) -> bytes:
    time = START + timedelta(milliseconds=time_ms - START_MS)
    event = {
        "specversion": "1.0",
        "id": f"evt-{number:012d}",
        "source": "/api/eu-1",
        "type": "llm.completion",
        "subject": f"tenant-{shape.tenant_of(number)}",
        "time": time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "data": {"input_tokens": used, "model": f"gpt-{number % shape.models}", "region": "eu"},
    }
    return orjson.dumps(event)


def stream_names(streams: int) -> tuple[str, ...]:
    """Return the names of that many streams."""
    return tuple(f"usage:{number}" for number in range(streams))


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
