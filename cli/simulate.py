"""`meterbridge simulate`: deterministic load of many tenants into the streams."""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Annotated, Final

import typer

from cli.context import context
from cli.output import progress
from cli.send import report_sent
from core.clock import Clock, SystemClock
from core.errors import InvalidRequest
from sources.producer import Producer, Record, SendReport, StreamReport
from sources.workload import Workload

TICK_S: Final = 0.05
"""How often a paced run sends what is due."""
EVENTS_MAX: Final = 2_000_000_000
_RATE_DEFAULT: Final = 1000.0
_DUE_EVENTS_MAX: Final = 100_000


def simulate(
    events: Annotated[int | None, typer.Option(min=1, max=EVENTS_MAX, help="How many events.")] = None,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="How long, at --rate.")] = None,
    rate: Annotated[float | None, typer.Option(min=0.1, help="Events per second; default 1000 with --seconds.")] = None,
    tenants: Annotated[int, typer.Option(min=1, help="Subjects; the first 14 are the demo's.")] = 14,
    duplicates: Annotated[float, typer.Option(min=0, max=0.5, help="Share of events sent again.")] = 0.01,
    late: Annotated[float, typer.Option(min=0, max=1, help="Share of events late by minutes to days.")] = 0.02,
    seed: Annotated[int | None, typer.Option(min=0, help="Same seed and times, same events.")] = None,
    batch: Annotated[int, typer.Option(min=1, max=1000, help="Events per stream entry.")] = 1,
    history_hours: Annotated[
        float | None, typer.Option(min=0.1, help="Spread the events over so many past hours, by entry id.")
    ] = None,
) -> None:
    """Generate load: deterministic events of many tenants, with copies, late, broken and taken-back ones."""
    clock = SystemClock()
    count, duration_s = plan(events, seconds, rate)
    if duration_s is not None and history_hours is not None:
        message = "--history-hours goes with --events alone: history has no rate of sending"
        raise InvalidRequest(message)
    now = clock.now()
    chosen_seed = int(now.timestamp()) if seed is None else seed
    start, end = _span(now, duration_s, history_hours)
    workload = Workload(chosen_seed, tenants, count, start=start, end=end, duplicate_share=duplicates, late_share=late)
    settings = context().settings.redis
    with progress("Sending events", count) as advance, Producer(settings) as producer:
        if duration_s is None:
            records = _counted(workload, advance, keeps_arrival=history_hours is not None)
            report = producer.send(records, batch=batch)
        else:
            report = send_paced(producer, workload, clock, batch, advance)
    report_sent(report, seed=chosen_seed, expected=workload.expected)


def plan(events: int | None, seconds: float | None, rate: float | None) -> tuple[int, float | None]:
    """Return the number of events and the seconds to take, None for as fast as possible."""
    if events is None and seconds is None:
        message = "say how much: --events N, or --seconds S with --rate R"
        raise InvalidRequest(message)
    if events is not None and seconds is not None:
        if rate is not None:
            message = "--events, --seconds and --rate say too much: leave one out"
            raise InvalidRequest(message)
        return events, seconds
    if events is not None:
        return events, None if rate is None else events / rate
    duration_s = seconds or 0.0
    count = round(duration_s * (_RATE_DEFAULT if rate is None else rate))
    if not 1 <= count <= EVENTS_MAX:
        message = f"{duration_s:g} s at that rate are {count} events; between 1 and {EVENTS_MAX} are possible"
        raise InvalidRequest(message)
    return count, duration_s


def _span(now: datetime, duration_s: float | None, history_hours: float | None) -> tuple[datetime, datetime]:
    """Return when the events arrive. Those sent at once happened within the last second."""
    if duration_s is not None:
        return now, now + timedelta(seconds=duration_s)
    if history_hours is not None:
        return now - timedelta(hours=history_hours), now
    return now - timedelta(seconds=1), now


def _counted(workload: Workload, advance: Callable[[int], None], *, keeps_arrival: bool) -> Iterator[Record]:
    for number, (arrival_ms, subject, payload) in enumerate(workload, start=1):
        yield (arrival_ms if keeps_arrival else None), subject, payload
        if number % 1000 == 0:
            advance(1000)


def send_paced(
    producer: Producer, workload: Workload, clock: Clock, batch: int, advance: Callable[[int], None]
) -> SendReport:
    """Send each event when its time has come; the report covers the whole run."""
    began_s = clock.monotonic_s()
    total = SendReport()
    records = iter(workload)
    upcoming = next(records, None)
    while upcoming is not None:
        now_ms = clock.now().timestamp() * 1000
        due: list[Record] = []
        while upcoming is not None and upcoming[0] <= now_ms and len(due) < _DUE_EVENTS_MAX:
            due.append((None, upcoming[1], upcoming[2]))
            upcoming = next(records, None)
        if due:
            _add(total, producer.send(due, batch=batch))
            advance(len(due))
        else:
            clock.sleep(TICK_S)
    total.seconds = clock.monotonic_s() - began_s
    return total


def _add(total: SendReport, part: SendReport) -> None:
    total.events += part.events
    total.entries += part.entries
    total.payload_bytes += part.payload_bytes
    for name, stream in part.streams.items():
        before = total.streams.get(name, StreamReport())
        total.streams[name] = StreamReport(
            before.entries + stream.entries,
            before.events + stream.events,
            before.first_id or stream.first_id,
            stream.last_id or before.last_id,
        )
