"""The journal of configuration revisions: recorded before use, never changed."""

from datetime import UTC, datetime

from sqlalchemy import Engine, func, insert, select

from config.revision import History, Revision
from core.errors import InvariantViolation
from sinks.ledger import tables
from sinks.ledger.database import read, write
from sinks.ledger.times import to_datetime, to_ms

_TABLE = tables.config_revisions


def recorded(engine: Engine) -> list[tuple[Revision, datetime]]:
    """Return every revision with the time it was recorded, oldest first.

    :raises InvariantViolation: a stored text does not have its stored digest.
    """
    with read(engine) as connection:
        rows = connection.execute(select(_TABLE).order_by(_TABLE.c.known_from_ms)).all()
    out = []
    for row in rows:
        revision = Revision.parse(row.text, row.known_from_ms)
        if revision.digest != row.digest:
            message = (
                f"the configuration revision known from {datetime.fromtimestamp(row.known_from_ms / 1000, UTC)}"
                f" reads back with digest {revision.digest[:16]}, recorded was {row.digest[:16]}: the ledger's table"
                " config_revisions was edited, or this version reads it differently. Restore the ledger or the version"
            )
            raise InvariantViolation(message)
        out.append((revision, to_datetime(row.recorded_at_ms)))
    return out


def load_history(engine: Engine) -> list[Revision]:
    """Return every recorded revision, oldest first; empty before the first."""
    return [revision for revision, _ in recorded(engine)]


def load_history_if_changed(engine: Engine, known: History | None) -> History | None:
    """Return the history if it has a revision that `known` lacks, else None; also None before the first."""
    with read(engine) as connection:
        count = connection.execute(select(func.count()).select_from(_TABLE)).scalar() or 0
    if count == (0 if known is None else len(known.revisions)):
        return None
    return History(load_history(engine))


def record_revision(engine: Engine, revision: Revision, at: datetime) -> None:
    """Record a revision before it is used. Recording the newest one again changes nothing.

    :raises InvariantViolation: it would change what an earlier time knew.
    """
    with write(engine) as connection:
        last = connection.execute(select(_TABLE).order_by(_TABLE.c.known_from_ms.desc()).limit(1)).first()
        if last is not None:
            if (last.known_from_ms, last.digest) == (revision.known_from_ms, revision.digest):
                return
            if revision.known_from_ms <= last.known_from_ms:
                message = (
                    f"a revision known from {revision.known_from_ms} ms cannot be recorded: the newest recorded one is"
                    f" known from {last.known_from_ms} ms, and what was known then must not change"
                )
                raise InvariantViolation(message)
        connection.execute(
            insert(_TABLE).values(
                known_from_ms=revision.known_from_ms,
                digest=revision.digest,
                text=revision.text,
                recorded_at_ms=to_ms(at),
            )
        )
