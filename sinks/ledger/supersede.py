"""Moves a posting that the ERP refused for a closed period into an open one, under a key of its own.

The ERP never took the first one, so its successor may take its documents at once; the key changes with the content,
so that whatever was sent under the old key can never be mistaken for it.
"""

from dataclasses import replace
from datetime import datetime

from sqlalchemy import Engine, insert, select, update

from config.entities import Entity
from config.erp_mappings import ORIGINAL_PERIOD
from sinks.erp.port import Posting
from sinks.ledger import exceptions, tables
from sinks.ledger.database import write
from sinks.ledger.grouping import default_date, posting_key
from sinks.ledger.leases import Lease, check
from sinks.ledger.postings import HELD, PENDING, SUPERSEDED, Stored
from sinks.ledger.times import to_ms

_POSTINGS = tables.postings


def in_period(entity: Entity, posting: Posting, period: str) -> Posting:
    """Return the posting in another accounting period, with its original one as a dimension and in the text."""
    original = posting.accounting_period
    lines = tuple(
        line
        if any(name == ORIGINAL_PERIOD for name, _ in line.dimensions)
        else replace(
            line,
            dimensions=(*line.dimensions, (ORIGINAL_PERIOD, original)),
            erp_dimensions=(
                None if line.erp_dimensions is None else (*line.erp_dimensions, (ORIGINAL_PERIOD, original))
            ),
        )
        for line in posting.lines
    )
    return replace(
        posting,
        key=posting_key("next_open", posting.key, period),
        accounting_period=period,
        posting_date=default_date(entity, posting.booked_hour, period),
        description=f"{posting.description}, posted in {period} since {original} is closed",
        lines=lines,
    )


def supersede(engine: Engine, lease: Lease, row: Stored, successor: Posting, now: datetime) -> bool:
    """Put the successor in the place of a HELD posting, documents and approval included, in one transaction.

    Return whether it was done: a person may have released the posting since it was read.
    """
    at_ms = to_ms(now)
    with write(engine) as connection:
        check(connection, lease)
        held = select(_POSTINGS).where(_POSTINGS.c.key == row.key, _POSTINGS.c.state == HELD).with_for_update()
        old = connection.execute(held).first()
        if old is None:
            return False
        values = dict(old._mapping) | {
            "key": successor.key,
            "digest": successor.digest,
            "accounting_period": successor.accounting_period,
            "json": successor.to_json(),
            "state": PENDING,
            "reason": "",
            "detail": "",
            # Readers keep the newest version per document: it must go on growing.
            "version": old.version + 2,
            "version_written": 0,
            "attempts": 0,
            "lookups": 0,
            "created_at_ms": at_ms,
            "submitted_at_ms": 0,
            "changed_at_ms": at_ms,
            "due_at_ms": 0,
            "fence": lease.fence,
            "supersedes": row.key,
        }
        connection.execute(insert(_POSTINGS).values(values))
        connection.execute(
            update(_POSTINGS)
            .where(_POSTINGS.c.key == row.key)
            .values(state=SUPERSEDED, detail=f"by {successor.key}", changed_at_ms=at_ms, version=old.version + 1)
        )
        for table in (tables.posting_documents, tables.documents):
            moved = update(table).where(table.c.posting_key == row.key)
            connection.execute(moved.values(posting_key=successor.key))
        exceptions.resolve(connection, "posting_held", [row.key], now)
    return True
