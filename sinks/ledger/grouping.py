"""Groups documents into postings: pure, so that the same documents always make the same posting.

A bucket is the span one posting covers: a booked hour, or the entity's local day or month by the booked hour. It
may be posted once all its hours are complete.
"""

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import orjson

from config.entities import Entity
from sinks.erp.port import Posting, PostingLine, Side
from sinks.ledger.amounts import exact
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


@dataclass(frozen=True, slots=True)
class Draft:
    """A posting to be made, and the account roles the entity does not map (then it is held)."""

    posting: Posting
    bucket: str
    missing_roles: tuple[str, ...]


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
    accounts: Mapping[str, str],
    currency: str,
    accounting_period: str,
    documents: Iterable[Drafted],
) -> list[Draft]:
    """Make the postings of one bucket: one for all, or one per customer by the entity's grain.

    A document with an account role nobody mapped gets a posting of its own, so that it holds nobody else.
    `accounts` is role to ERP code, of the newest configuration.
    """
    groups: dict[tuple[str, str], list[Drafted]] = {}
    for document in sorted(documents, key=lambda one: one.key):
        missing = any(not accounts.get(line["account_role"]) for line in document.lines)
        customer = document.customer if entity.posting.grain == "customer" else ""
        groups.setdefault((customer, document.key if missing else ""), []).append(document)
    drafts = []
    for (customer, alone), members in sorted(groups.items()):
        bucket = bucket_of(entity, members[0].booked_hour)
        identity = (entity.id, currency, accounting_period, entity.posting.frequency, bucket.name, customer, alone)
        drafts.append(_draft(entity, accounts, currency, accounting_period, members, bucket, posting_key(*identity)))
    return drafts


def _draft(
    entity: Entity,
    accounts: Mapping[str, str],
    currency: str,
    accounting_period: str,
    members: list[Drafted],
    bucket: Bucket,
    key: str,
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
        lines=_sum_lines(accounts, members, entity.posting.line_grain),
        document_keys=tuple(member.key for member in members),
        customer=customers.pop() if len(customers) == 1 else None,
    )
    return Draft(posting, bucket.name, missing_roles(posting))


def missing_roles(posting: Posting) -> tuple[str, ...]:
    """Return the account roles of a posting that have no ERP account."""
    return tuple(sorted({line.account_role for line in posting.lines if not line.account}))


def _sum_lines(
    accounts: Mapping[str, str], members: list[Drafted], line_grain: tuple[str, ...]
) -> tuple[PostingLine, ...]:
    """Sum lines by account role, side and the dimensions the entity wants; never netted, so that totals tie."""
    sums: dict[tuple[str, Side, tuple[tuple[str, str], ...]], Decimal] = {}
    with exact():
        for member in members:
            for line in member.lines:
                wanted = tuple((name, _dimension(member, line, name)) for name in line_grain)
                key = (line["account_role"], line["side"], wanted)
                sums[key] = sums.get(key, Decimal(0)) + Decimal(line["amount"])
    return tuple(
        PostingLine(
            account_role=role,
            account=accounts.get(role, ""),
            side=side,
            amount=amount,
            customer=dict(dimensions).get("customer"),
            dimensions=tuple(pair for pair in dimensions if pair[0] != "customer"),
        )
        for (role, side, dimensions), amount in sorted(sums.items(), key=_debit_first)
        if amount
    )


def _debit_first(item: tuple[tuple[str, str, tuple[tuple[str, str], ...]], Decimal]) -> tuple[bool, str, Any]:
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
