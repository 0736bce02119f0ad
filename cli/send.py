"""`meterbridge send`: CloudEvents from a file, one JSON object a line, into the streams."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, BinaryIO, Final

import orjson
import typer

from cli.context import context
from cli.output import emit, key_values, progress
from core.errors import InvalidRequest
from sources.producer import Record, SendReport

LINE_BYTES_MAX: Final = 64 << 20
SORTED_BYTES_MAX: Final = 2 << 30
"""With `--ids-from-time` the file is held in memory to be sorted; a larger one has to be split by time."""
_PROGRESS_EVENTS: Final = 1000


def send(
    file: Annotated[str, typer.Argument(help="NDJSON file of CloudEvents; - reads standard input.")],
    stream: Annotated[str | None, typer.Option(help="Put all events into this stream.")] = None,
    ids_from_time: Annotated[
        bool, typer.Option("--ids-from-time", help="Make the entry ids from the events' own times, for history.")
    ] = False,
    batch: Annotated[int, typer.Option(min=1, max=1000, help="Events per stream entry.")] = 1,
) -> None:
    """Send CloudEvents from a file into the streams; each subject has its stream.

    Lines are sent as they are: what is wrong with one is said by the metering flow, with a reason code.
    """
    from sources.producer import Producer  # noqa: PLC0415

    settings = context().settings.redis
    if stream is not None and stream not in settings.streams:
        message = f"{stream} is not a stream of this deployment: use one of {', '.join(settings.streams)}"
        raise InvalidRequest(message)
    with _opened(file) as source, progress("Sending events", None) as advance, Producer(settings) as producer:
        records = history(source, file) if ids_from_time else live(source, file)
        report = producer.send(_shown(records, advance), batch=batch, stream=stream)
    report_sent(report)


def report_sent(report: SendReport, **more: object) -> None:
    """Print what was sent."""
    data = {
        "events": report.events,
        "entries": report.entries,
        "payload_bytes": report.payload_bytes,
        "seconds": round(report.seconds, 3),
        "streams": report.streams,
        **more,
    }
    per_s = report.events / report.seconds if report.seconds else 0.0
    lines = {
        "events": f"{report.events:,}",
        "entries": f"{report.entries:,}",
        "seconds": f"{report.seconds:.1f} ({per_s:,.0f} events/s)",
    }
    for name, part in report.streams.items():
        lines[name] = f"{part.events:,} events, ids {part.first_id} to {part.last_id}"
    emit(data, key_values(lines | {name: value for name, value in more.items() if not isinstance(value, dict)}))


@contextmanager
def _opened(file: str) -> Iterator[BinaryIO]:
    if file == "-":
        yield sys.stdin.buffer
        return
    try:
        source = Path(file).open("rb")  # noqa: SIM115  # closed below
    except OSError as error:
        message = f"cannot read {file}: {error.strerror}; name an NDJSON file of CloudEvents, or - for standard input"
        raise InvalidRequest(message) from error
    with source:
        yield source


def _lines(source: BinaryIO, name: str) -> Iterator[bytes]:
    """Yield the lines that are not empty, without their ends."""
    for number, line in enumerate(iter(lambda: source.readline(LINE_BYTES_MAX + 1), b""), start=1):
        if len(line) > LINE_BYTES_MAX:
            message = f"{name}:{number}: the line is longer than {LINE_BYTES_MAX} bytes; is it one event a line?"
            raise InvalidRequest(message)
        event = line.strip()
        if event:
            yield event


def _attributes(event: bytes) -> tuple[str, datetime | None]:
    """Return the subject ("" if it has none) and the time (None if it cannot be read)."""
    try:
        parsed = orjson.loads(event)
    except orjson.JSONDecodeError:
        return "", None
    if not isinstance(parsed, dict):
        return "", None
    subject, text = parsed.get("subject"), parsed.get("time")
    time = None
    if isinstance(text, str):
        try:
            time = datetime.fromisoformat(text)
        except ValueError:
            time = None
    is_usable = time is not None and time.tzinfo is not None
    return subject if isinstance(subject, str) else "", time if is_usable else None


def live(source: BinaryIO, name: str) -> Iterator[Record]:
    """Yield records that get their ids from the server's clock."""
    for event in _lines(source, name):
        yield None, _attributes(event)[0], event


def history(source: BinaryIO, name: str, now: datetime | None = None) -> Iterator[Record]:
    """Yield records in order of the events' own times, which become the entry ids.

    Events of one time keep their order. One without a readable time takes that of the line before it. Raises
    InvalidRequest if the first has none, if one lies in the future, or if the file is too large to sort.
    """
    now_ms = int((now or datetime.now(UTC)).timestamp() * 1000)
    events: list[tuple[int, int, str, bytes]] = []
    size_bytes, previous_ms = 0, None
    for number, event in enumerate(_lines(source, name), start=1):
        subject, time = _attributes(event)
        time_ms = previous_ms if time is None else int(time.timestamp() * 1000)
        if time_ms is None:
            message = f"{name}: event {number} has no readable time, and none stands before it; add its `time`"
            raise InvalidRequest(message)
        if time_ms > now_ms:
            message = f"{name}: event {number} lies in the future ({time}); an entry id cannot: correct its `time`"
            raise InvalidRequest(message)
        size_bytes += len(event)
        if size_bytes > SORTED_BYTES_MAX:
            message = f"{name}: more than {SORTED_BYTES_MAX} bytes cannot be sorted; split the file by time"
            raise InvalidRequest(message)
        previous_ms = time_ms
        events.append((time_ms, number, subject, event))
    events.sort(key=lambda item: item[:2])
    for time_ms, _, subject, event in events:
        yield time_ms, subject, event


def _shown(records: Iterator[Record], advance: Callable[[int], None]) -> Iterator[Record]:
    for number, record in enumerate(records, start=1):
        yield record
        if number % _PROGRESS_EVENTS == 0:
            advance(_PROGRESS_EVENTS)
