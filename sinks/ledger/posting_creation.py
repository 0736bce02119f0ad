"""Makes postings of documents whose hour is complete, each bucket in one transaction."""

from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Connection, Engine, and_, bindparam, insert, select, update

from config.entities import Entity
from config.revision import History
from core.errors import InvariantViolation
from sinks.ledger import approval_policy, documents, exceptions, grouping, postings, progress, tables
from sinks.ledger.corrections import Corrections
from sinks.ledger.database import read, write
from sinks.ledger.erp_codes import ErpNames, taxes_of
from sinks.ledger.grouping import Draft, Drafted
from sinks.ledger.leases import Lease, check
from sinks.ledger.times import MS_PER_HOUR, to_ms

_DOCUMENTS = tables.documents
_GROUPS_PER_PASS_MAX = 1_000
_ROWS_PER_FETCH = 1_000


def complete_before_hour(history: History, watermark_ms: int) -> int:
    """Return the first booked hour that may still get documents, by the promoted watermark.

    The longest grace of any revision is used: later than needed is harmless, earlier would not be.
    """
    grace_ms = max(revision.rules.grace_s for revision in history.revisions) * 1000
    return max(0, watermark_ms - grace_ms) // MS_PER_HOUR


def entity_at(history: History, entity: str, booked_hour: int) -> Entity | None:
    """Return the entity as known at the booked hour, else as the newest revision that has it knows it."""
    at_hour = history.at(booked_hour * MS_PER_HOUR).entities.get(entity)
    return at_hour if at_hour is not None else newest_entity(history, entity)


def newest_entity(history: History, entity: str) -> Entity | None:
    """Return the entity of the newest revision that has it."""
    return next(
        (revision.entities[entity] for revision in reversed(history.revisions) if entity in revision.entities), None
    )


def erp_names(history: History, entity: Entity) -> ErpNames:
    """Return the entity's accounts and mappings, and the customers' codes, by the newest revision that has each."""
    parties: dict[str, str] = {}
    for revision in history.revisions:
        parties |= {one.id: one.erp.customer for one in revision.configuration.customers if one.erp.customer}
    mappings = entity.erp.mappings
    return ErpNames(entity.accounts, parties | mappings.customers, mappings, taxes_of(entity))


def create(
    engine: Engine, lease: Lease, history: History, entity: Entity, names: ErpNames, now: datetime, lines_max: int = 0
) -> int:
    """Group the entity's PENDING documents of complete buckets and return how many postings were made.

    `entity` and `names` are the newest; how documents are grouped is decided by the entity as known at their hour.
    Dying inside leaves a bucket's postings made with their documents marked, or nothing of the bucket.

    :raises InvariantViolation: a document belongs to a posting that exists already.
    """
    query = (
        select(_DOCUMENTS.c.currency, _DOCUMENTS.c.accounting_period, _DOCUMENTS.c.booked_hour)
        .where(_DOCUMENTS.c.entity == entity.id, _DOCUMENTS.c.state == documents.PENDING)
        .distinct()
        .order_by(_DOCUMENTS.c.booked_hour, _DOCUMENTS.c.currency, _DOCUMENTS.c.accounting_period)
    )
    with read(engine) as connection:
        complete = complete_before_hour(history, progress.get(connection, progress.PROMOTED).watermark_ms)
        hours = connection.execute(query.where(_DOCUMENTS.c.booked_hour < complete)).all()
    buckets: dict[tuple[str, str, str, str], tuple[Entity, list[int]]] = {}
    for currency, period, hour in hours:
        known = entity_at(history, entity.id, hour) or entity
        bucket = grouping.bucket_of(known, hour)
        if bucket.end_hour <= complete:
            key = (currency, period, known.posting.frequency, bucket.name)
            buckets.setdefault(key, (known, []))[1].append(hour)
    made = 0
    for (currency, period, _, _), (known, members) in list(buckets.items())[:_GROUPS_PER_PASS_MAX]:
        try:
            made += _create(engine, lease, known, entity, names, currency, period, members, now, lines_max)
        except _Clash as clash:
            _alarm(engine, str(clash), now)
    return made


class _Clash(Exception):
    """A posting of that key exists already; nothing of the bucket is stored."""


def _create(
    engine: Engine,
    lease: Lease,
    known: Entity,
    entity: Entity,
    names: ErpNames,
    currency: str,
    period: str,
    members: list[int],
    now: datetime,
    lines_max: int,
) -> int:
    """Make one bucket's postings in one transaction; what waits for approval is decided by the newest entity."""
    with write(engine) as connection:
        check(connection, lease)
        policy = known.model_copy(update={"approval": entity.approval, "close": entity.close})
        found = _load(connection, policy, currency, period, members)
        drafts = grouping.draft(known, names, currency, period, found, lines_max)
        clash = _store(connection, drafts, entity.erp.adapter, now)
        if clash:
            raise _Clash(clash)  # rolls back the totals of corrections too
        if _left(connection, entity.id, currency, period, members):
            message = f"documents of {entity.id} changed while their postings were made; nothing was stored"
            raise InvariantViolation(message)
    return len(drafts)


def _chosen(entity: str, currency: str, period: str, hours: list[int]) -> ColumnElement[bool]:
    return and_(
        _DOCUMENTS.c.entity == entity,
        _DOCUMENTS.c.state == documents.PENDING,
        _DOCUMENTS.c.currency == currency,
        _DOCUMENTS.c.accounting_period == period,
        _DOCUMENTS.c.booked_hour.in_(hours),
    )


def _left(connection: Connection, entity: str, currency: str, period: str, hours: list[int]) -> bool:
    query = select(_DOCUMENTS.c.key).where(_chosen(entity, currency, period, hours)).limit(1)
    return connection.execute(query).first() is not None


def _load(connection: Connection, entity: Entity, currency: str, period: str, hours: list[int]) -> list[Drafted]:
    """Load the documents with no more of their lines than grouping needs, and why each waits for approval."""
    table = _DOCUMENTS.c
    columns = (table.key, table.customer, table.booked_hour, table.posting_date, table.kind, table.json)
    query = select(*columns).where(_chosen(entity.id, currency, period, hours)).order_by(table.key)
    wanted = ("account_role", "side", "amount", "dimensions", *entity.posting.line_grain)
    corrections = Corrections(entity, currency)
    found = []
    for row in connection.execute(query.execution_options(yield_per=_ROWS_PER_FETCH)):
        lines = orjson.loads(row.json)["lines"]
        approval = approval_policy.wanted_by_amount(entity, lines, period)
        corrected = approval_policy.corrected_periods(lines, period)
        if corrected:
            approval = corrections.add(connection, row.customer, corrected) or approval
        slim = [{name: line[name] for name in wanted if name in line} for line in lines]
        found.append(Drafted(row.key, row.customer, row.booked_hour, row.posting_date, row.kind, slim, approval))
    return found


def _store(connection: Connection, drafts: list[Draft], adapter: str, now: datetime) -> str | None:
    """Insert the postings and mark their documents; return the key of one that exists already, inserting nothing."""
    keys = [draft.posting.key for draft in drafts]
    for start in range(0, len(keys), 500):
        taken = select(tables.postings.c.key).where(tables.postings.c.key.in_(keys[start : start + 500]))
        if (row := connection.execute(taken).first()) is not None:
            return str(row[0])
    connection.execute(insert(tables.postings), [posting_row(draft, adapter, now) for draft in drafts])
    members = [
        {"document_key": key, "posting_key": draft.posting.key}
        for draft in drafts
        for key in draft.posting.document_keys
    ]
    connection.execute(insert(tables.posting_documents), members)
    marked = update(_DOCUMENTS).where(_DOCUMENTS.c.key == bindparam("document"))
    marked = marked.where(_DOCUMENTS.c.state == documents.PENDING)
    connection.execute(
        marked.values(state=documents.IN_POSTING, posting_key=bindparam("posting")),
        [{"document": row["document_key"], "posting": row["posting_key"]} for row in members],
    )
    for draft in drafts:
        if draft.reason:
            detail = f"{draft.reason}: {draft.detail}"
            exceptions.raise_exception(connection, "posting_held", draft.posting.key, detail, now)
    return None


def posting_row(draft: Draft, adapter: str, now: datetime) -> dict[str, Any]:
    """Return the row of a new posting."""
    posting = draft.posting
    return {
        "key": posting.key,
        "digest": posting.digest,
        "entity": posting.entity,
        "adapter": adapter,
        "currency": posting.currency,
        "accounting_period": posting.accounting_period,
        "bucket": draft.bucket,
        "booked_hour": posting.booked_hour,
        "documents": len(posting.document_keys),
        "json": posting.to_json(),
        "state": postings.HELD if draft.reason else postings.PENDING,
        "reason": draft.reason,
        "detail": draft.detail,
        "created_at_ms": to_ms(now),
        "changed_at_ms": to_ms(now),
        "kind": posting.kind,
        "lines": len(posting.lines),
        "approval": postings.NEEDED if draft.approval else "",
        "reverses": posting.reverses or "",
    }


def _alarm(engine: Engine, key: str, now: datetime) -> None:
    detail = "documents came for a posting that was made already; a sealed hour never changes"
    with write(engine) as connection:
        exceptions.raise_exception(connection, "hour_already_posted", key, detail, now)
    message = f"posting {key}: {detail}. Run `meterbridge verify`, and look at `meterbridge exceptions`"
    raise InvariantViolation(message)
