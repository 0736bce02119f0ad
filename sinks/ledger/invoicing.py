"""The invoice run: per contract and billing period, what is accrued by the cut-off hour and not invoiced yet.

The subledger moves it from unbilled to receivable and never credits revenue again; the ERP computes the taxes.
What happens if the process dies: every invoice is one transaction with its act, document and posting; a run goes on
where the last one ended, and a period that has its invoice is left alone.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime
from typing import Any, Final

import orjson
from sqlalchemy import Connection, Engine, or_, select

from config.customers import Contract
from config.entities import Entity
from config.erp_mappings import TAX_CATEGORY
from config.period_closes import PeriodCloses
from config.periods import accounting_period, billing_period
from config.posting_rules import rules_of
from config.revision import History
from sinks.erp.port import Invoice, InvoiceLine, Posting
from sinks.ledger import acts, approval_policy, audit, closes, documents, grouping, posting_creation, progress, tables
from sinks.ledger.act_documents import ActDocument
from sinks.ledger.database import read, write
from sinks.ledger.erp_codes import ErpNames, coded_invoice
from sinks.ledger.grouping import Draft, Drafted, posting_key
from sinks.ledger.invoice_lines import RECEIVABLE, InvoiceAct, invoice_of, receivable_lines, service_days, text_of
from sinks.ledger.readiness import Readiness
from sinks.ledger.reversal import store
from sinks.ledger.times import MS_PER_HOUR, to_datetime, to_ms

_DOCUMENTS = tables.documents
PERIODS_PER_CONTRACT_MAX: Final = 1_200


@dataclass(frozen=True, slots=True)
class Line:
    """What a run did with one contract and billing period."""

    customer: str
    contract: str
    entity: str
    period_start: datetime
    period_end: datetime
    key: str = ""
    kind: str = ""
    net: str = ""
    currency: str = ""
    waits: str = ""
    """Why there is no invoice yet, or why it waits for approval."""


@dataclass(frozen=True, slots=True)
class Due:
    """A billing period of a contract whose invoice is due."""

    customer: str
    contract: Contract
    entity: Entity
    start: datetime
    end: datetime
    cutoff_hour: int


def run(
    engine: Engine,
    history: History,
    readiness: Mapping[tuple[str, str], Readiness],
    *,
    actor: str,
    now: datetime,
    only_entity: str = "",
    only_customer: str = "",
    dry_run: bool = False,
) -> Iterator[Line]:
    """Make every invoice that is due and yield what was done, contract by contract, oldest period first."""
    with read(engine) as connection:
        watermark_ms = progress.get(connection, progress.PROMOTED).watermark_ms
        recorded = closes.load(connection)
    complete = posting_creation.complete_before_hour(history, watermark_ms)
    names: dict[str, ErpNames] = {}
    for customer in history.latest.configuration.customers:
        for contract in customer.contracts:
            entity = history.latest.entities[contract.entity]
            if not entity.invoicing.enabled or (only_entity and entity.id != only_entity):
                continue
            if only_customer and customer.id != only_customer:
                continue
            if entity.id not in names:
                names[entity.id] = posting_creation.erp_names(history, entity)
            ready = readiness.get((customer.id, contract.id))
            yield from _of_contract(
                engine, history, customer.id, contract, entity, names[entity.id], ready, recorded, complete, actor, now,
                dry_run=dry_run,
            )  # fmt: skip


def due_periods(entity: Entity, customer: str, contract: Contract, first: datetime, complete: int) -> Iterator[Due]:
    """Yield the billing periods from `first` on whose cut-off hour is complete, oldest first."""
    at = max(first, contract.from_)
    for _ in range(PERIODS_PER_CONTRACT_MAX):
        start, end = billing_period(contract.billing_period, contract.from_, at)
        cutoff_hour = -(-to_ms(end + entity.invoicing.grace) // MS_PER_HOUR)
        if cutoff_hour > complete:
            return
        yield Due(customer, contract, entity, start, end, cutoff_hour)
        at = end


def _of_contract(
    engine: Engine,
    history: History,
    customer: str,
    contract: Contract,
    entity: Entity,
    names: ErpNames,
    ready: Readiness | None,
    recorded: PeriodCloses,
    complete: int,
    actor: str,
    now: datetime,
    *,
    dry_run: bool,
) -> Iterator[Line]:
    with read(engine) as connection:
        firsts = _first_periods(connection, entity.id, customer, contract.id)
    imagined: list[dict[str, Any]] = []
    for currency, first in sorted(firsts.items()):
        for due in due_periods(entity, customer, contract, first, complete):
            line = Line(customer, contract.id, entity.id, due.start, due.end, currency=currency)
            with write(engine) as connection:
                act = _act(connection, due, currency, history.latest.version, recorded)
                if acts.find(connection, act.key) is not None:
                    continue
                mine = documents_of(connection, act)
                imaginary = [one for one in imagined if one["currency"] == currency]
                made = invoice_of(act, [*mine, *imaginary], counted(connection, act))
                if made is None:
                    continue
                line = replace(line, key=made.key, kind=made.kind, net=made.total)
                if ready is not None and not ready.is_ready:
                    yield replace(line, waits="; ".join(ready.missing))
                    return
                if dry_run:
                    imagined.append(made.plain)
                else:
                    line = replace(line, waits=_store(connection, act, made, entity, names, _acts_in(mine), actor, now))
            yield line


def _first_periods(connection: Connection, entity: str, customer: str, contract: str) -> dict[str, datetime]:
    """Return by currency from when on billing periods may be due: the end of the last one that has an invoice."""
    chosen = (_DOCUMENTS.c.customer == customer, _DOCUMENTS.c.contract == contract, _DOCUMENTS.c.entity == entity)
    counts = _DOCUMENTS.c.state.in_((documents.PENDING, documents.IN_POSTING))
    firsts: dict[str, datetime] = {}
    for currency in connection.execute(select(_DOCUMENTS.c.currency).where(*chosen, counts).distinct()).scalars().all():
        last = acts.last(connection, acts.INVOICE, f"{customer}/{contract}/{currency}")
        if last is not None:
            firsts[currency] = datetime.fromisoformat(str(last.content["period_end"]))
            continue
        query = select(_DOCUMENTS.c.booked_hour, _DOCUMENTS.c.json).where(*chosen, counts)
        rows = connection.execute(query.where(_DOCUMENTS.c.currency == currency).execution_options(yield_per=1_000))
        firsts[currency] = min(when for row in rows for when in _begins(row.booked_hour, orjson.loads(row.json)))
    return firsts


def _begins(booked_hour: int, document: Mapping[str, Any]) -> Iterator[datetime]:
    yield to_datetime(booked_hour * MS_PER_HOUR)
    yield from {datetime.fromisoformat(one["period_start"]) for one in document["lines"] if one.get("period_start")}


def documents_of(connection: Connection, act: InvoiceAct) -> list[dict[str, Any]]:
    """Return what an invoice is made of: the flow's documents since the last invoice's billing period, all of acts.

    Nothing is booked before its own period begins, so what that invoice left open lies in there.
    """
    begins = datetime.fromisoformat(act.since_period) if act.since_period else None
    query = select(_DOCUMENTS.c.json).where(
        _DOCUMENTS.c.customer == act.customer,
        _DOCUMENTS.c.contract == act.contract,
        _DOCUMENTS.c.entity == act.entity,
        _DOCUMENTS.c.currency == act.currency,
        _DOCUMENTS.c.state.in_((documents.PENDING, documents.IN_POSTING)),
        or_(
            _DOCUMENTS.c.origin == documents.ACT,
            _DOCUMENTS.c.booked_hour >= (0 if begins is None else to_ms(begins) // MS_PER_HOUR),
        ),
    )
    ordered = query.order_by(_DOCUMENTS.c.booked_hour, _DOCUMENTS.c.key)
    return [orjson.loads(text) for text in connection.execute(ordered).scalars()]


def counted(connection: Connection, act: InvoiceAct) -> frozenset[str]:
    """Return the keys of the documents of acts that the invoice before knew, and of its own."""
    before = acts.find(connection, act.previous) if act.previous else None
    return frozenset() if before is None else frozenset([*before.content["after"], before.content["document"]])


def _acts_in(known: list[dict[str, Any]]) -> list[str]:
    """Return the keys of documents that acts made: with the flow's, they are all an invoice follows from."""
    return [one["key"] for one in known if one["kind"] in documents.ACT_KINDS]


def _act(connection: Connection, due: Due, currency: str, version: str, recorded: PeriodCloses) -> InvoiceAct:
    """Date the invoice at its cut-off hour: the first open period of that time takes it."""
    cutoff = to_datetime(due.cutoff_hour * MS_PER_HOUR)
    period = recorded.first_open(due.entity, accounting_period(due.entity, cutoff), cutoff).name
    posting_date = grouping.default_date(due.entity, due.cutoff_hour, period).isoformat()
    act = InvoiceAct(
        due.entity.id,
        due.customer,
        due.contract.id,
        currency,
        _text(due.start),
        _text(due.end),
        due.cutoff_hour,
        period,
        posting_date,
        version,
        text=rules_of(due.entity.posting_rules)["invoice"].text,
    )
    last = acts.last(connection, acts.INVOICE, _subject(act), act.cutoff_hour)
    if last is None:
        return act
    return replace(
        act,
        credits=_posting_of_document(connection, str(last.content["document"])),
        previous=last.key,
        since_hour=last.booked_hour,
        since_period=str(last.content["period_start"]),
    )


def _posting_of_document(connection: Connection, document: str) -> str:
    """Return the key of the posting that has a document now: one moved out of a closed period has a key of its own."""
    table = tables.posting_documents.c
    return str(connection.execute(select(table.posting_key).where(table.document_key == document)).scalar_one())


def _text(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _subject(act: InvoiceAct) -> str:
    return f"{act.customer}/{act.contract}/{act.currency}"


def _store(
    connection: Connection,
    act: InvoiceAct,
    made: ActDocument,
    entity: Entity,
    names: ErpNames,
    after: list[str],
    actor: str,
    now: datetime,
) -> str:
    """Record act, document and posting; return why it waits for approval, or an empty text."""
    posting = posting_of(act, made, entity, names)
    approval = approval_policy.wanted_by_amount(entity, receivable_lines(made.plain["lines"]), act.accounting_period)
    reason, detail = grouping.hold_reason(posting, approval)
    store(connection, Draft(posting, f"invoice {act.period_start[:10]}", reason, detail, approval), [made],
          entity.erp.adapter, now)  # fmt: skip
    content = asdict(act) | {"posting": posting.key, "document": made.key, "after": after}
    recorded = acts.Act(act.key, acts.INVOICE, _subject(act), act.entity, act.cutoff_hour, content)
    reason_text = f"billing period {act.period_start} to {act.period_end}"
    acts.record(connection, recorded, actor=actor, reason=reason_text, at=now)
    audit.record(connection, at=now, actor=actor, action="invoice", subject=posting.key, reason=reason_text,
                 detail=f"{act.customer} {made.kind} {made.total} {act.currency}")  # fmt: skip
    return detail


def posting_of(act: InvoiceAct, made: ActDocument, entity: Entity, names: ErpNames) -> Posting:
    """Return what the ERP gets: an invoice, with its journal without taxes beside it."""
    grain = ("customer",) if names.mappings.taxes is None else ("customer", TAX_CATEGORY)
    by_customer = entity.model_copy(
        update={"posting": entity.posting.model_copy(update={"line_grain": grain, "grain": "customer"})}
    )
    member = Drafted(made.key, act.customer, act.cutoff_hour, act.posting_date, made.kind, made.plain["lines"])
    (draft,) = grouping.draft(by_customer, names, act.currency, act.accounting_period, [member])
    lines = tuple(
        InvoiceLine(
            text_of(line),
            _amount(line),
            names.accounts.get(line["account_role"], ""),
            line["tax_category"],
            *service_days(line),
            line["account_role"],
        )
        for line in made.plain["lines"]
        if line["account_role"] != RECEIVABLE
    )
    credited = act.credits if made.kind == "credit_note" and act.credits else None
    party = names.parties.get(act.customer, "")
    return replace(
        draft.posting,
        key=posting_key("invoice", made.key),
        kind=made.kind,
        description=f"{made.kind.replace('_', ' ').capitalize()} {act.customer} {act.contract} {act.period_start[:10]}",
        posting_date=date.fromisoformat(act.posting_date),
        invoice=coded_invoice(Invoice(party, made.key, lines, credited), names),
        extra={"state": entity.invoicing.state},
    )


def _amount(line: Mapping[str, Any]) -> Any:
    amount = approval_policy.signed(line)
    return -amount
