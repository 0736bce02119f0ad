"""Draft invoices in the ERP: read again until a person posted them, and the difference is booked as an adjustment.

A draft is in no balance. Once the ERP says that it is posted (or was cancelled), its tax is kept, and what differs
from what we sent becomes a document under a key of its own.
What happens if the process dies: each draft is one transaction; the next call finds those that are left.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import orjson
from sqlalchemy import Connection, Engine, Row, insert, select, update

from sinks.erp.port import ErpEntry, ErpPort, NetLine, Posting
from sinks.ledger import acts, audit, documents, seals, tables
from sinks.ledger.adjustments import AdjustmentAct, adjustment_of, posting_of
from sinks.ledger.amounts import exact
from sinks.ledger.database import read, write
from sinks.ledger.grouping import Draft
from sinks.ledger.invoice_lines import RECEIVABLE
from sinks.ledger.posting_creation import posting_row
from sinks.ledger.postings import BOOKED, RECONCILED
from sinks.ledger.times import MS_PER_HOUR, to_ms

KEYS_PER_LOOKUP: Final = 500

_POSTINGS, _ENTRIES = tables.postings, tables.erp_entries


@dataclass(frozen=True, slots=True)
class Settled:
    """A draft that is none any more."""

    posting: str
    number: str
    changed_by: str
    adjustment: str
    """Key of the adjusting document, or empty if nothing was changed."""
    amount: Decimal
    """How much more was billed than we sent, without taxes."""


def open_drafts(engine: Engine, adapter: str, entities: Sequence[str]) -> list[str]:
    """Return the keys of postings whose invoice waits for a person in the ERP."""
    with read(engine) as connection:
        return [row.key for row in connection.execute(_open(adapter, entities))]


def _open(adapter: str, entities: Sequence[str]) -> Any:
    same = (_ENTRIES.c.posting_key == _POSTINGS.c.key) & (_ENTRIES.c.number == _POSTINGS.c.erp_number)
    return (
        select(_POSTINGS)
        .join(_ENTRIES, same)
        .where(
            _ENTRIES.c.adapter == adapter,
            _ENTRIES.c.draft == 1,
            _POSTINGS.c.entity.in_(list(entities)),
            _POSTINGS.c.state.in_(BOOKED),
        )
        .order_by(_POSTINGS.c.key)
    )


def settle(engine: Engine, adapter: ErpPort, entities: Sequence[str], now: datetime) -> list[Settled]:
    """Ask the ERP for all open drafts; those that are posted by now are drafts no longer.

    :raises Unreachable: the ERP does not answer; what was settled before stays.
    """
    keys = open_drafts(engine, adapter.name, entities)
    settled: list[Settled] = []
    for start in range(0, len(keys), KEYS_PER_LOOKUP):
        for key, found in adapter.lookup(keys[start : start + KEYS_PER_LOOKUP]).items():
            # One that is gone, or there twice, is an exception: the read-back raises it, a person decides.
            if len(found) == 1 and not found[0].draft:
                reads = adapter.capabilities.reads_lines
                settled += _settle(engine, adapter.name, key, found[0], now, compare=reads)
    return settled


def give_up(engine: Engine, key: str, *, actor: str, reason: str, now: datetime) -> Settled | None:
    """Take a draft that was deleted in the ERP for one that bills nothing; None if it is no draft any more."""
    with read(engine) as connection:
        row = connection.execute(select(_POSTINGS).where(_POSTINGS.c.key == key)).one()
    gone = ErpEntry(key, row.erp_number, "", changed_by=actor, changed_at=now)
    return next(_settle(engine, row.adapter, key, gone, now, reason=reason), None)


def _settle(
    engine: Engine,
    adapter: str,
    key: str,
    entry: ErpEntry,
    now: datetime,
    *,
    reason: str = "edited in the ERP",
    compare: bool = True,
) -> Iterator[Settled]:
    with write(engine) as connection:
        mine = (_ENTRIES.c.adapter == adapter, _ENTRIES.c.posting_key == key, _ENTRIES.c.draft == 1)
        done = connection.execute(update(_ENTRIES).where(*mine).values(draft=0, tax=entry.tax))
        if done.rowcount != 1:
            return  # another process was faster
        row = connection.execute(select(_POSTINGS).where(_POSTINGS.c.key == key)).one()
        made = _adjust(connection, row, entry, now, reason) if compare else ("", Decimal(0))
    yield Settled(key, entry.number, entry.changed_by, *made)


def _adjust(connection: Connection, row: Row[Any], entry: ErpEntry, now: datetime, reason: str) -> tuple[str, Decimal]:
    posting = Posting.from_json(row.json)
    query = select(tables.documents.c.json).where(tables.documents.c.key.in_(posting.document_keys))
    texts = connection.execute(query.order_by(tables.documents.c.key)).scalars()
    sent = [orjson.loads(text) for text in texts]
    day = _unsealed(connection, posting.entity, entry.posting_date or posting.posting_date)
    act = AdjustmentAct(
        documents=[one["key"] for one in sent],
        posting=posting.key,
        accounts={line.account_role: line.account for line in posting.lines},
        net=[(one.place, one.account, format(one.amount, "f")) for one in net_lines(posting, entry)],
        number=entry.number,
        booked_hour=to_ms(now) // MS_PER_HOUR,
        accounting_period=f"{day:%Y-%m}",
        posting_date=day.isoformat(),
        changed_by=entry.changed_by,
        changed_at="" if entry.changed_at is None else entry.changed_at.isoformat(timespec="seconds"),
    )
    made = adjustment_of(act, sent)
    if made is None:
        return "", Decimal(0)
    adjusting = posting_of(act, made, posting)
    documents.insert_acts(connection, [made])
    # It is read from the ERP, so it is there: nothing has to be sent or compared.
    known = posting_row(Draft(adjusting, f"adjustment of {posting.key}"), row.adapter, now)
    connection.execute(insert(_POSTINGS).values(known | {"state": RECONCILED, "erp_number": entry.number}))
    connection.execute(insert(tables.posting_documents).values(document_key=made.key, posting_key=adjusting.key))
    change = update(tables.documents).where(tables.documents.c.key == made.key)
    connection.execute(change.values(state=documents.IN_POSTING, posting_key=adjusting.key))
    actor = entry.changed_by or row.adapter
    recorded = acts.Act(act.key, acts.ADJUSTMENT, posting.key, posting.entity, act.booked_hour, asdict(act))
    acts.record(connection, recorded, actor=actor, reason=reason, at=now)
    audit.record(connection, at=now, actor=actor, action="adjust", subject=posting.key, reason=reason,
                 detail=f"{entry.number}: {made.total} {made.currency}, {act.changed_at}")  # fmt: skip
    return made.key, Decimal(made.total)


def _unsealed(connection: Connection, entity: str, day: date) -> date:
    """Return the day, or the first one of the next month that is not sealed: what is sealed never changes."""
    while seals.find(connection, entity, f"{day:%Y-%m}") is not None:  # there are as many months as there are seals
        day = (day.replace(day=1) + timedelta(days=32)).replace(day=1)
    return day


def net_lines(posting: Posting, entry: ErpEntry) -> Sequence[NetLine]:
    """Return the ERP's lines without receivable and taxes; an ERP that keeps none apart has no taxes in its lines."""
    if entry.net or not entry.lines:
        return entry.net
    receivable = {line.account for line in posting.lines if line.account_role == RECEIVABLE}
    sums: dict[str, Decimal] = {}
    with exact():
        for account, amount in entry.lines:
            if account not in receivable:
                sums[account] = sums.get(account, Decimal(0)) + amount
    return [NetLine(0, account, amount) for account, amount in sorted(sums.items())]


def adjustments(engine: Engine, keys: Sequence[str]) -> dict[str, Posting]:
    """Return, by the invoice's posting, the postings of these keys that adjust one."""
    found: dict[str, Posting] = {}
    with read(engine) as connection:
        for start in range(0, len(keys), KEYS_PER_LOOKUP):
            query = select(_POSTINGS.c.json).where(_POSTINGS.c.key.in_(keys[start : start + KEYS_PER_LOOKUP]))
            for text in connection.execute(query).scalars():
                one = Posting.from_json(text)
                found[str(one.extra["adjusts"])] = one
    return found
