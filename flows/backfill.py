"""Sends history from a file into the streams, batch by batch, and remembers how far it is.

What happens if the process dies:
 1. before a batch is acknowledged: a part of it may be in the streams. The next call examines and sends the batch
    again; ids are counted once.
 2. behind that, before the state is written: the same; what was written of the file of held lines is cut off again.
 3. behind the state: nothing is lost or repeated.
"""

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from core.directory_lock import DirectoryLock
from core.errors import InvalidRequest
from operators.dedupe_disk import SystemDisk
from queries.backfill import HELD, SEND, Book, Examiner, Preview, Verdict
from queries.stores import Stores
from sinks.ledger import audit
from sinks.ledger.database import write
from sources.event_file import read_lines
from sources.producer import Producer

Advance = Callable[[int], None]


@dataclass
class State:
    """How far a backfill is: lines of the file that are dealt with, and what became of them."""

    file: str
    book: str
    began: str
    lines: int = 0
    sent: int = 0
    held_bytes: int = 0
    verdicts: dict[str, int] = field(default_factory=dict)
    done: bool = False


@dataclass(frozen=True, slots=True)
class Person:
    """Who sends it, and why."""

    actor: str
    reason: str


def preview(stores: Stores, path: Path, book: Book, now: datetime, advance: Advance = lambda _: None) -> Preview:
    """Read the whole file and return what would become of it. Changes nothing.

    :raises InvalidRequest: the file cannot be read.
    """
    examiner = Examiner(stores, book, now)
    for lines in read_lines(path):
        examiner.examine(lines.texts)
        advance(len(lines.texts))
    return examiner.finish()


def state_path(state_dir: Path, path: Path, book: Book) -> Path:
    """Return where the state of that file's backfill is kept: another content or another rule is another backfill."""
    about = path.stat()
    identity = orjson.dumps([str(path.resolve()), about.st_size, about.st_mtime_ns, book])
    return state_dir / "backfill" / f"{hashlib.sha256(identity).hexdigest()[:16]}.json"


def held_path(path: Path) -> Path:
    """Return the file that takes what is not sent and needs somebody: each line with its number and the cause."""
    return path.with_name(f"{path.name}.held.ndjson")


def send(
    stores: Stores,
    path: Path,
    book: Book,
    person: Person,
    now: Callable[[], datetime],
    *,
    batch: int = 1,
    restart: bool = False,
    advance: Advance = lambda _: None,
) -> State:
    """Send what may be sent, from where an earlier call ended, and return what became of the file.

    :raises InvalidRequest: it was sent before as a whole (`restart` sends it again; known ids are left out).
    :raises LockHeld: another call is under way. :raises Unreachable: a server is away; call it again.
    """
    kept = state_path(stores.settings.state_dir, path, book)
    kept.parent.mkdir(parents=True, exist_ok=True)
    with DirectoryLock(kept.with_suffix(".lock")):
        state = State(str(path), book, now().isoformat())
        if kept.exists() and not restart:
            state = State(**orjson.loads(kept.read_bytes()))
        if state.done:
            message = f"{path} was sent on {state.began}: {state.sent:,} events; with --restart it is examined again"
            raise InvalidRequest(message)
        advance(state.lines)
        _send_all(stores, path, state, kept, now, book, batch, advance)
        with write(stores.engine) as connection:
            audit.record(
                connection,
                at=now(),
                actor=person.actor,
                action="backfill",
                subject=path.name,
                reason=person.reason,
                detail=f"booked {book}: {state.sent} events sent, {state.verdicts}",
            )
        state.done = True
        _save(kept, state)
    return state


def _send_all(
    stores: Stores,
    path: Path,
    state: State,
    kept: Path,
    now: Callable[[], datetime],
    book: Book,
    batch: int,
    advance: Advance,
) -> None:
    held = held_path(path)
    if state.held_bytes or held.exists():
        with held.open("ab") as file:
            file.truncate(state.held_bytes)
    counted = Counter(state.verdicts)
    with Producer(stores.settings.redis) as producer:
        for lines in read_lines(path, state.lines):
            # The clock of this batch: the flow decides by the time at which the events arrive.
            verdicts = Examiner(stores, book, now()).examine(lines.texts)
            records = [
                (None, _subject(text), text)
                for text, verdict in zip(lines.texts, verdicts, strict=True)
                if verdict.code == SEND
            ]
            if records:
                state.sent += producer.send(records, batch=batch).events
            state.held_bytes = _hold(held, lines.numbers, lines.texts, verdicts, state.held_bytes)
            counted.update(verdict.code for verdict in verdicts)
            state.verdicts = dict(counted)
            state.lines = lines.numbers[-1]
            _save(kept, state)
            advance(len(lines.texts))


def _subject(text: bytes) -> str:
    return str(orjson.loads(text)["subject"])


def _hold(path: Path, numbers: list[int], texts: list[bytes], verdicts: list[Verdict], size: int) -> int:
    """Append what needs somebody, and return the size of the file."""
    rows = [
        {"line": number, "why": verdict.code, "detail": verdict.detail, "event": text.decode("utf-8", "replace")}
        for number, text, verdict in zip(numbers, texts, verdicts, strict=True)
        if verdict.code in HELD
    ]
    if not rows:
        return size
    with path.open("ab") as file:
        file.writelines(orjson.dumps(row) + b"\n" for row in rows)
        return file.tell()


def _save(path: Path, state: State) -> None:
    unfinished = path.with_suffix(".json.new")
    unfinished.write_bytes(orjson.dumps(asdict(state)))
    unfinished.replace(path)
    SystemDisk().sync_directory(path.parent)


def to_plain(found: Preview) -> dict[str, Any]:
    """Return a preview as plain values; sums as exact text."""
    return {
        "lines": found.lines,
        "verdicts": dict(found.verdicts),
        "rejected": dict(found.reasons),
        "tenants": len(found.tenants),
        "meters": {name: {"events": events, "sum": f"{total:f}"} for name, (events, total) in found.meters.items()},
        "first": found.first,
        "last": found.last,
        "periods": [
            {"entity": entity, "period": period, "state": state, "events": events}
            for (entity, period, state), events in sorted(found.periods.items())
        ],
        "estimates": {currency: f"{total:.12f}" for currency, total in sorted(found.estimates.items())},
        "not_estimated": found.not_estimated,
    }
