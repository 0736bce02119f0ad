"""Reverses what is in the books: the opposite documents and posting, under keys of their own, made once.

What happens if the process dies: before the commit nothing was recorded; after it, everything was, and the poster
sends it. Asking again answers with the reversal that is there.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any

import orjson
from sqlalchemy import Connection, Engine, Row, insert, select, update

from config.entities import Entity
from config.period_closes import PeriodCloses, period_named
from core.errors import InvalidRequest
from sinks.erp.port import Posting, PostingLine
from sinks.ledger import acts, approval_policy, audit, closes, documents, exceptions, grouping, postings, tables
from sinks.ledger.act_documents import ActDocument, When, lines_of, reversal_of
from sinks.ledger.adjustments import OTHER, adjustment_key
from sinks.ledger.corrections import Corrections
from sinks.ledger.database import write
from sinks.ledger.erp_codes import ErpNames
from sinks.ledger.grouping import Draft, Drafted, default_date, posting_key
from sinks.ledger.invoice_lines import RECEIVABLE, receivable_lines
from sinks.ledger.posting_creation import posting_row
from sinks.ledger.times import MS_PER_HOUR, to_ms

_POSTINGS = tables.postings
REASON_CODE = "concession"


@dataclass(frozen=True, slots=True)
class Reversal:
    """What came of it."""

    key: str
    """Key of the reversing posting."""
    reverses: str
    documents: tuple[str, ...]
    made_now: bool
    approval: str
    """Why it waits for approval, or empty."""


def reverse(
    engine: Engine,
    entities: Mapping[str, Entity],
    names: ErpNames,
    key: str,
    *,
    actor: str,
    reason: str,
    now: datetime,
    dry_run: bool = False,
) -> Reversal:
    """Record the reversal of a posting, or of one document of a posting, for the poster to send.

    :param entities: the newest configuration's, by id.
    :param dry_run: do all of it and take it back, so that the answer is what would come of it.
    :raises InvalidRequest: there is nothing of that key, or it is not in the books.
    """
    with write(engine) as connection:
        done = _reverse(connection, entities, names, key, actor, reason, now)
        if dry_run:
            connection.rollback()
    return done


def _reverse(
    connection: Connection,
    entities: Mapping[str, Entity],
    names: ErpNames,
    key: str,
    actor: str,
    reason: str,
    now: datetime,
) -> Reversal:
    row, alone = _subject(connection, key)
    subject = key if alone else row.key
    target = posting_key("reversal", subject)
    known = acts.find(connection, target)
    if known is not None:
        return Reversal(target, subject, tuple(known.content["documents"]), False, "")
    if row.state not in postings.BOOKED or row.state == postings.REVERSED:
        message = f"posting {row.key} is {row.state}: only what is in the books can be reversed"
        raise InvalidRequest(message)
    entity = entities.get(row.entity)
    if entity is None:
        message = f"no configuration has the entity {row.entity}: put it back, its periods are needed"
        raise InvalidRequest(message)
    original, adjusting = Posting.from_json(row.json), _adjusting(connection, row)
    when = _when(entity, original.accounting_period, closes.load(connection), now)
    made = [reversal_of(one, when, REASON_CODE) for one in _documents(connection, row.key, key if alone else None)]
    _refuse_twice(connection, made)
    posting = (
        _of_document(entity, names, made[0], target, when)
        if alone
        else _of_posting(original, adjusting, made, target, when)
    )
    approval = _wanted(connection, entity, original.currency, made, when)
    hold, detail = grouping.hold_reason(posting, approval)
    draft = Draft(posting, f"reversal of {subject}", hold, detail, approval)
    store(connection, draft, made, row.adapter, now)
    if not alone:
        change = update(_POSTINGS).where(_POSTINGS.c.key == target)
        connection.execute(change.values(reverses=row.key))
    content = {"documents": [one.key for one in made], "of": [one.reverses for one in made]} | _plain(when)
    act = acts.Act(target, acts.REVERSAL, subject, row.entity, when.booked_hour, content)
    acts.record(connection, act, actor=actor, reason=reason, at=now)
    audit.record(connection, at=now, actor=actor, action="reverse", subject=subject, reason=reason, detail=target)
    return Reversal(target, subject, tuple(one.key for one in made), True, approval)


def _refuse_twice(connection: Connection, made: list[ActDocument]) -> None:
    """Make sure that none of these documents was reversed before, alone or with the rest of its posting.

    :raises InvalidRequest: one was.
    """
    table = tables.documents.c
    keys = {one.key: one.reverses for one in made}
    known = select(table.key, table.posting_key).where(table.key.in_(list(keys))).order_by(table.key)
    row = connection.execute(known.limit(1)).first()
    if row is not None:
        message = (
            f"document {keys[row.key]} is reversed already, by posting {row.posting_key}: reverse the other documents"
            " of its posting one by one, or reverse that reversal"
        )
        raise InvalidRequest(message)


def _wanted(connection: Connection, entity: Entity, currency: str, made: list[ActDocument], when: When) -> str:
    """Return why the reversal waits for approval: by its amount, or as a correction of a closed period."""
    lines = lines_of(one.plain for one in made)
    approval = approval_policy.wanted_by_amount(entity, receivable_lines(lines) or lines, when.accounting_period)
    corrections = Corrections(entity, currency)
    for one in made:
        found = approval_policy.corrected_periods(one.plain["lines"], when.accounting_period)
        corrected = {period: amount for period, amount in found.items() if amount}
        approval = (corrections.add(connection, one.customer, corrected) if corrected else "") or approval
    return approval


def entity_of(engine: Engine, key: str) -> str:
    """Return the entity of a posting or document.

    :raises InvalidRequest: there is none of that key in the books.
    """
    with write(engine) as connection:
        return str(_subject(connection, key)[0].entity)


def _adjusting(connection: Connection, row: Row[Any]) -> Posting | None:
    """Return what a person changed in the draft that the posting was, or None.

    :raises InvalidRequest: it is still a draft, or has lines that are none of ours.
    """
    entry = tables.erp_entries.c
    draft = select(entry.draft).where(entry.posting_key == row.key, entry.draft == 1)
    if connection.execute(draft).first() is not None:
        message = (
            f"{row.erp_number} is a draft in the ERP, in no books yet: cancel it there, and `meterbridge reconcile"
            f" --erp` takes it back; if it was deleted, `meterbridge erp drop-draft {row.key} --reason TEXT`"
        )
        raise InvalidRequest(message)
    query = select(_POSTINGS.c.json).where(_POSTINGS.c.key == adjustment_key(row.key))
    text = connection.execute(query).scalar()
    found = None if text is None else Posting.from_json(text)
    if found is not None and any(line.account_role == OTHER for line in found.lines):
        message = f"{row.erp_number} has lines that somebody added in the ERP: credit it there, as a whole"
        raise InvalidRequest(message)
    return found


def _plain(when: When) -> dict[str, Any]:
    return {"accounting_period": when.accounting_period, "posting_date": when.posting_date}


def _subject(connection: Connection, key: str) -> tuple[Row[Any], bool]:
    """Return the posting to look at, and whether only one document of several is meant."""
    row = connection.execute(select(_POSTINGS).where(_POSTINGS.c.key == key).with_for_update()).first()
    if row is not None:
        return row, False
    members = tables.posting_documents
    inner = select(members.c.posting_key).where(members.c.document_key == key).scalar_subquery()
    row = connection.execute(select(_POSTINGS).where(_POSTINGS.c.key == inner).with_for_update()).first()
    if row is None:
        message = f"no posting or document {key} is in the books: `meterbridge report postings` lists postings"
        raise InvalidRequest(message)
    return row, row.documents > 1


def _when(entity: Entity, period: str, recorded: PeriodCloses, now: datetime) -> When:
    """Book it now: in the period it reverses while that is open, else in the first open one."""
    hour = to_ms(now) // MS_PER_HOUR
    target = recorded.first_open(entity, period_named(entity, period), now).name
    return When(hour, target, default_date(entity, hour, target).isoformat())


def _documents(connection: Connection, posting: str, only: str | None) -> list[dict[str, Any]]:
    table, members = tables.documents, tables.posting_documents
    query = select(table.c.json).join(members, members.c.document_key == table.c.key)
    query = query.where(members.c.posting_key.in_((posting, adjustment_key(posting)))).order_by(table.c.key)
    if only is not None:
        query = query.where(table.c.key == only)
    return [orjson.loads(text) for text in connection.execute(query).scalars()]


def _of_posting(original: Posting, adjusting: Posting | None, made: list[ActDocument], key: str, when: When) -> Posting:
    """Return the opposite posting; an invoice is taken back by a credit note that names it, as it was edited."""
    changed = () if adjusting is None else adjusting.lines
    lines = tuple(_swapped(line) for line in (*original.lines, *changed))
    opposite = replace(
        original,
        key=key,
        kind="reversal",
        reverses=original.key,
        description=f"Reversal of {original.key}: {original.description}",
        lines=lines,
        document_keys=tuple(one.key for one in made),
        booked_hour=when.booked_hour,
        accounting_period=when.accounting_period,
        posting_date=date.fromisoformat(when.posting_date),
    )
    if original.invoice is None:
        return opposite
    given_back = tuple(replace(line, amount=-line.amount) for line in original.invoice.lines)
    codes = original.invoice.tax_codes
    for line in changed:
        if line.account_role != RECEIVABLE:
            place = next(index for index, one in enumerate(given_back) if one.account == line.account)
            text = f"{given_back[place].text}, as it was edited"
            given_back += (replace(given_back[place], text=text, amount=line.signed),)
            codes = None if codes is None else (*codes, codes[place])
    credit = replace(original.invoice, reference=key, lines=given_back, credits=original.key, tax_codes=codes)
    return replace(opposite, kind="credit_note", reverses=None, invoice=credit)


def _swapped(line: PostingLine) -> PostingLine:
    return replace(line, side="credit" if line.side == "debit" else "debit")


def _of_document(entity: Entity, names: ErpNames, made: ActDocument, key: str, when: When) -> Posting:
    """Return a posting of the one opposite document, of a posting that holds others too."""
    member = Drafted(made.key, made.customer, made.booked_hour, made.posting_date, made.kind, made.plain["lines"])
    (draft,) = grouping.draft(entity, names, made.currency, when.accounting_period, [member])
    description = f"Reversal of document {made.reverses}"
    return replace(draft.posting, key=key, description=description)


def store(connection: Connection, draft: Draft, made: list[ActDocument], adapter: str, now: datetime) -> None:
    """Insert documents of an act with their posting, ready for the poster."""
    documents.insert_acts(connection, made)
    connection.execute(insert(_POSTINGS).values(posting_row(draft, adapter, now)))
    key = draft.posting.key
    connection.execute(
        insert(tables.posting_documents), [{"document_key": one.key, "posting_key": key} for one in made]
    )
    change = update(tables.documents).where(tables.documents.c.key.in_([one.key for one in made]))
    connection.execute(change.values(state=documents.IN_POSTING, posting_key=key))
    if draft.reason:
        exceptions.raise_exception(connection, "posting_held", key, f"{draft.reason}: {draft.detail}", now)
