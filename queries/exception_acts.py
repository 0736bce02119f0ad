"""What a person does about exceptions: resolve, export, send again. Every act is in the audit log with who and why.

The only part of `queries` that writes: rows of the ledger, and events to the streams. What was refused never entered
the set of known ids, so a corrected event may have the same id; the audit log links it to the refused one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import orjson

from core.errors import InvalidRequest
from queries.exceptions import RESOLVED_PREFIX, Group
from queries.stores import Row, Stores
from sinks.ledger import audit, exceptions, held
from sinks.ledger.database import write
from sources.producer import Producer

EVENTS_MAX: Final = 100_000
"""At most so many events are exported or sent again in one call."""

RETRIED_IN_AUDIT_MAX: Final = 1_000
"""So many single links are written to the audit log; the act itself names the count."""

_NEVER_AGAIN: Final = frozenset({"conflicting_duplicate", "already_voided", "unusable_value"})
"""Their id is known already: sent again they would be refused, or counted as a duplicate, again."""


@dataclass(frozen=True, slots=True)
class Person:
    """Who acts, and why."""

    actor: str
    reason: str


def resolve(stores: Stores, group: Group, person: Person, now: datetime) -> None:
    """Mark the group as seen to: it is open again when something comes after this."""
    with write(stores.engine) as connection:
        if group.origin == "ledger":
            exceptions.resolve(connection, group.kind, group.identities, now)
        else:
            kind = RESOLVED_PREFIX + group.kind
            exceptions.raise_exception(connection, kind, group.key, group.cause, now)
            # Until the last one that was seen: what arrived meanwhile, and is stored later, opens it again.
            exceptions.resolve(connection, kind, [group.key], group.last)
        audit.record(
            connection,
            at=now,
            actor=person.actor,
            action="resolve_exception",
            subject=group.key,
            reason=person.reason,
            detail=f"{group.kind}: {group.cause} ({group.count})",
        )


def refused_events(stores: Stores, group: Group) -> Iterator[Row]:
    """Yield the refused events of a group: position, reason, detail and the raw bytes as text.

    :raises InvalidRequest: the group is not one of refused events, or has more than EVENTS_MAX.
    """
    if group.origin != "rejects":
        message = f"{group.key} ({group.kind}) is not a group of refused events: there is nothing to export or send"
        raise InvalidRequest(message)
    if group.count > EVENTS_MAX:
        message = f"{group.key} has {group.count:,} events, at most {EVENTS_MAX:,} at once: correct them at the source"
        raise InvalidRequest(message)
    reason = "invalid_quantity" if group.kind == "unusable_value" else group.kind
    columns = ("stream", "entry_id", "entry_index", "reason", "detail", "raw")
    blocks = stores.client.blocks(
        stores.resolved(
            f"SELECT {', '.join(columns)} FROM @usage_rejects_current"  # noqa: S608
            " WHERE reason = {reason:String} AND counted = {counted:UInt8}"
            " AND replaceRegexpAll(detail, '[0-9a-f]{8,}|[0-9]+', '#') = {cause:String}"
            " ORDER BY ingest_time, stream, entry_id, entry_index"
        ),
        {"reason": reason, "counted": int(group.kind != "unusable_value"), "cause": group.cause},
    )
    for block in blocks:
        for row in block:
            yield dict(zip(columns, row, strict=True))


def export(stores: Stores, group: Group, path: Path) -> int:
    """Write the refused events as lines to correct: each a JSON object with `position`, `detail` and `event`."""
    count = 0
    with path.open("wb") as file:
        for row in refused_events(stores, group):
            file.write(orjson.dumps(export_line(row)) + b"\n")
            count += 1
    return count


def export_line(row: Row) -> dict[str, Any]:
    """Return a refused event as a line to correct."""
    position = f"{row['stream']} {row['entry_id']} {row['entry_index']}"
    try:
        event = orjson.loads(row["raw"])
    except orjson.JSONDecodeError:
        event = row["raw"]  # text to be made an object by whoever corrects it
    return {"position": position, "reason": row["reason"], "detail": row["detail"], "event": event}


def corrected(group: Group, path: Path) -> list[dict[str, Any]]:
    """Read a corrected export: lines with `position` and `event`.

    :raises InvalidRequest: a line is not such an object; the message has its number.
    """
    found = []
    with path.open("rb") as file:
        for number, text in enumerate(file, 1):
            if not text.strip():
                continue
            try:
                line = orjson.loads(text)
            except orjson.JSONDecodeError as error:
                message = f"{path}, line {number}: not JSON: {error}"
                raise InvalidRequest(message) from None
            if not isinstance(line, dict) or not isinstance(line.get("event"), dict) or "position" not in line:
                message = (
                    f"{path}, line {number}: needs `position` and `event`, an object, as `exceptions export` writes"
                )
                raise InvalidRequest(message)
            found.append(line)
            if len(found) > EVENTS_MAX:
                message = f"{path}: more than {EVENTS_MAX:,} lines for {group.key}; send it in parts"
                raise InvalidRequest(message)
    return found


def check_sendable(group: Group) -> None:
    """Make sure that sending the group's events again can come to something.

    :raises InvalidRequest: it cannot; the message says what to do instead.
    """
    if group.kind in _NEVER_AGAIN:
        message = f"{group.kind}: the event with this id was accepted already; take it back by a void, and use a new id"
        raise InvalidRequest(message)


def check_releasable(group: Group) -> None:
    """Make sure that the group is a held posting.

    :raises InvalidRequest: it is something else, which nobody tries again by hand.
    """
    if group.kind != "posting_held":
        message = f"{group.kind} is not tried again by hand: {group.cause}"
        raise InvalidRequest(message)


def send_again(stores: Stores, group: Group, lines: list[dict[str, Any]], person: Person, now: datetime) -> int:
    """Send events of a refused group, corrected or as they were, and link each to the refused one.

    Dying half-way leaves a part sent: sending all again is harmless, since ids are counted once.

    :raises InvalidRequest: events of that kind can never be accepted by sending them again, or one is no object.
    """
    check_sendable(group)
    records = []
    for line in lines:
        event = line["event"]
        if not isinstance(event, dict):
            message = f"{line['position']}: is not a JSON object; export, correct and send it with --file"
            raise InvalidRequest(message)
        records.append((None, str(event.get("subject", "")), orjson.dumps(event)))
    with Producer(stores.settings.redis) as producer:
        report = producer.send(records)
    with write(stores.engine) as connection:
        for line in lines[:RETRIED_IN_AUDIT_MAX]:
            audit.record(
                connection,
                at=now,
                actor=person.actor,
                action="send_again",
                subject=f"{line['event'].get('source')} {line['event'].get('id')}",
                reason=person.reason,
                detail=f"was refused at {line['position']}",
            )
    resolve(stores, group, Person(person.actor, f"{person.reason} ({report.events} events sent again)"), now)
    return report.events


def release(stores: Stores, group: Group, person: Person, now: datetime) -> str:
    """Let the poster try held postings again, under the same keys, and return the keys.

    :raises InvalidRequest: the group is not a held posting.
    """
    check_releasable(group)
    for key in group.identities:
        held.release(stores.engine, key, actor=person.actor, reason=person.reason, now=now)
    return ", ".join(group.identities)
