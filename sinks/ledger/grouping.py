"""Groups documents into postings: pure, so that the same documents always make the same posting.

A bucket is the span one posting covers: a booked hour, or the entity's local day or month by the booked hour. It
may be posted once all its hours are complete.
"""

import base64
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import orjson

from config.account_roles import RECEIVABLE
from config.entities import Entity
from sinks.erp.port import Posting, PostingLine, Side
from sinks.ledger.amounts import exact
from sinks.ledger.erp_codes import ErpNames, coded, coded_invoice, unmapped
from sinks.ledger.times import MS_PER_HOUR, hour_text, to_datetime, to_ms


@dataclass(frozen=True, slots=True)
class Bucket:
    """A span of booked hours: its name, and the first hour after it."""

    name: str
    end_hour: int


@dataclass(frozen=True, slots=True)
class Drafted:
    """One document as grouping needs it."""

    key: str
    customer: str
    booked_hour: int
    posting_date: str
    kind: str
    lines: Sequence[Mapping[str, Any]]
    approval: str = ""
    """Why it waits for a person, or empty."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A posting to be made; with a reason it is held."""

    posting: Posting
    bucket: str
    reason: str = ""
    detail: str = ""
    approval: str = ""
    """Why it waits for a person, or empty: also where something else holds it first."""


def bucket_of(entity: Entity, booked_hour: int) -> Bucket:
    """Return the bucket a booked hour belongs to, by the entity's posting frequency and time zone."""
    if entity.posting.frequency == "hourly":
        return Bucket(hour_text(booked_hour), booked_hour + 1)
    zone = entity.zone()
    local = to_datetime(booked_hour * MS_PER_HOUR).astimezone(zone).date()
    if entity.posting.frequency == "daily":
        name, following = local.isoformat(), local + timedelta(days=1)
    else:
        name, following = local.strftime("%Y-%m"), (local.replace(day=1) + timedelta(days=32)).replace(day=1)
    start = datetime(following.year, following.month, following.day, tzinfo=zone).astimezone(UTC)
    return Bucket(name, -(-to_ms(start) // MS_PER_HOUR))


def posting_key(*identity: str) -> str:
    """Return 16 characters [A-Z2-7], the base32 of a SHA-256 over the unambiguous identity."""
    encoded = orjson.dumps(["posting", *identity])
    return base64.b32encode(hashlib.sha256(encoded).digest()).decode()[:16]


def default_date(entity: Entity, booked_hour: int, accounting_period: str) -> date:
    """Return the booked hour's local date, moved to the near end of the accounting period if outside it."""
    local = to_datetime(booked_hour * MS_PER_HOUR).astimezone(entity.zone()).date()
    first = date.fromisoformat(f"{accounting_period}-01")
    last = (first + timedelta(days=32)).replace(day=1) - timedelta(days=1)
    return min(max(local, first), last)


def draft(
    entity: Entity,
    names: ErpNames,
    currency: str,
    accounting_period: str,
    documents: Iterable[Drafted],
    lines_max: int = 0,
) -> list[Draft]:
    """Make the postings of one bucket: one for all, or one per customer by the entity's grain.

    A document that is held (something is not mapped, or it waits for approval) gets a posting of its own, so that it
    holds nobody else. More than `lines_max` lines (0: no limit) make further postings of whole documents.
    """
    groups: dict[tuple[str, str], list[Drafted]] = {}
    for document in sorted(documents, key=lambda one: one.key):
        held = bool(document.approval or _missing(entity, names, document))
        customer = document.customer if entity.posting.grain == "customer" else ""
        groups.setdefault((customer, document.key if held else ""), []).append(document)
    drafts = []
    for (customer, alone), members in sorted(groups.items()):
        bucket = bucket_of(entity, members[0].booked_hour)
        identity = (entity.id, currency, accounting_period, entity.posting.frequency, bucket.name, customer, alone)
        for part, packed in enumerate(_packed(entity, members, lines_max)):
            key = posting_key(*identity, *([str(part + 1)] if part else []))
            drafts.append(_draft(entity, names, currency, accounting_period, packed, bucket, key, lines_max))
    return drafts


def _missing(entity: Entity, names: ErpNames, document: Drafted) -> bool:
    if "customer" in entity.posting.line_grain and not names.parties.get(document.customer):
        return True
    if any(not names.accounts.get(line["account_role"]) for line in document.lines):
        return True
    mapped = [name for name in entity.posting.line_grain if names.mappings.maps_dimension(name)]
    return any(
        names.mappings.dimension(name, _dimension(document, line, name))[1] is None
        for line in (document.lines if mapped else ())
        if Decimal(line["amount"])
        for name in mapped
    )


def _packed(entity: Entity, members: list[Drafted], lines_max: int) -> Iterator[list[Drafted]]:
    """Yield the members in runs whose summed lines are within the limit; a document is never cut."""
    run: list[Drafted] = []
    used: set[_LineKey] = set()
    for member in members:
        own = {_line_key(member, line, entity.posting.line_grain) for line in member.lines if Decimal(line["amount"])}
        if run and lines_max and len(used | own) > lines_max:
            yield run
            run, used = [], set()
        run.append(member)
        used |= own
    yield run


def _draft(
    entity: Entity,
    names: ErpNames,
    currency: str,
    accounting_period: str,
    members: list[Drafted],
    bucket: Bucket,
    key: str,
    lines_max: int,
) -> Draft:
    hour_last = max(member.booked_hour for member in members)
    given = [member.posting_date for member in members if member.posting_date]
    customers = {member.customer for member in members}
    posting = Posting(
        key=key,
        entity=entity.id,
        company=entity.erp.company,
        currency=currency,
        accounting_period=accounting_period,
        posting_date=(date.fromisoformat(max(given)) if given else default_date(entity, hour_last, accounting_period)),
        booked_hour=hour_last,
        kind="journal",
        description=f"Usage {entity.id} {currency} {accounting_period}, booked {bucket.name}",
        lines=_sum_lines(names, members, entity.posting.line_grain),
        document_keys=tuple(member.key for member in members),
        customer=customers.pop() if len(customers) == 1 else None,
    )
    approval = members[0].approval if len(members) == 1 else ""
    reason, detail = hold_reason(posting, approval, lines_max)
    return Draft(posting, bucket.name, reason, detail, approval)


def hold_reason(posting: Posting, approval: str, lines_max: int = 0) -> tuple[str, str]:
    """Return why a posting cannot be sent as it is, and the details; two empty texts if it can."""
    reason, detail = unmapped(posting)
    if reason:
        return reason, detail
    if lines_max and len(posting.lines) > lines_max:
        detail = f"{len(posting.lines)} lines, the ERP takes {lines_max}: choose a coarser posting.line_grain"
        return "too_many_lines", detail
    return ("approval_required", approval) if approval else ("", "")


def remapped(posting: Posting, entity: Entity, names: ErpNames) -> Posting:
    """Return the posting with the company, accounts, customers, dimensions and tax codes of today."""
    lines = tuple(coded(line, names) for line in posting.lines)
    invoice = posting.invoice
    if invoice is not None:
        # Where several roles had one code, or none, the code does not tell which of them a line is on.
        roles = {line.account: line.account_role for line in posting.lines if line.account_role != RECEIVABLE}
        billed = tuple(
            replace(line, account=names.accounts.get(line.account_role or roles.get(line.account, ""), line.account))
            for line in invoice.lines
        )
        party = names.parties.get(posting.customer or "", invoice.party)
        invoice = coded_invoice(replace(invoice, party=party, lines=billed), names)
    return replace(posting, lines=lines, company=entity.erp.company, invoice=invoice)


_LineKey = tuple[str, Side, tuple[tuple[str, str], ...]]


def _line_key(member: Drafted, line: Mapping[str, Any], line_grain: tuple[str, ...]) -> _LineKey:
    wanted = tuple((name, _dimension(member, line, name)) for name in line_grain)
    return line["account_role"], line["side"], wanted


def _sum_lines(names: ErpNames, members: list[Drafted], line_grain: tuple[str, ...]) -> tuple[PostingLine, ...]:
    """Sum lines by account role, side and the dimensions the entity wants; never netted, so that totals tie."""
    sums: dict[_LineKey, Decimal] = {}
    with exact():
        for member in members:
            for line in member.lines:
                key = _line_key(member, line, line_grain)
                sums[key] = sums.get(key, Decimal(0)) + Decimal(line["amount"])
    lines = []
    for (role, side, dimensions), amount in sorted(sums.items(), key=_debit_first):
        customer = dict(dimensions).get("customer")
        if amount:
            others = tuple(pair for pair in dimensions if pair[0] != "customer")
            lines.append(coded(PostingLine(role, "", side, amount, customer, others), names))
    return tuple(lines)


def _debit_first(item: tuple[_LineKey, Decimal]) -> tuple[bool, str, Any]:
    (role, side, dimensions), _ = item
    return side != "debit", role, dimensions


def _dimension(member: Drafted, line: Mapping[str, Any], name: str) -> str:
    if name == "customer":
        return member.customer
    value = line.get(name)
    if value is None:
        dimensions = line.get("dimensions")
        value = dimensions.get(name) if isinstance(dimensions, Mapping) else None
    return "" if value is None else str(value)
