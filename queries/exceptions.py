"""Everything a person should look at, in one list: refused events, unusable values, unrated usage, held postings.

What has one cause is one group: a bad release with a million rejects is one line with a count, samples, and first and
last time. A group's key is a digest of its kind and cause, so it stays the same from day to day.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import Connection, select

from core.errors import InvalidRequest
from queries.exception_amounts import at_stake
from queries.stores import EPOCH, Stores
from sinks.ledger import tables
from sinks.ledger.amounts import exact
from sinks.ledger.database import read
from sinks.ledger.times import to_datetime

SAMPLES_MAX: Final = 3
GROUPS_MAX: Final = 10_000
RESOLVED_PREFIX: Final = "group:"
"""Kind under which the ledger keeps that a group of ClickHouse's rows was resolved, and up to when."""

CAUSE: Final = "replaceRegexpAll(detail, '[0-9a-f]{8,}|[0-9]+', '#')"
"""Positions, digests and numbers differ from event to event; what is left is the cause."""

_DIFFERS: Final = re.compile(r"\b[A-Z2-7]{16}\b|[0-9a-f]{8,}|[0-9]+")


@dataclass(slots=True)
class Group:
    """Exceptions of one kind with one cause. `origin` says where they lie: rejects, exceptions or ledger."""

    key: str
    kind: str
    cause: str
    origin: str
    count: int
    first: datetime
    last: datetime
    tenants: list[str] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)
    resolved_until: datetime | None = None
    identities: list[str] = field(default_factory=list)
    """Of the ledger's exceptions: all that the group stands for."""
    at_stake: dict[str, Decimal] = field(default_factory=dict)
    """By currency the debits of the postings that wait; empty where no amount is known yet."""

    @property
    def is_open(self) -> bool:
        """Tell whether something came after the group was last resolved."""
        return self.resolved_until is None or self.resolved_until < self.last


def key_of(kind: str, cause: str) -> str:
    """Return the group's key: 12 hex characters."""
    return hashlib.sha256(f"{len(kind)}:{kind}{cause}".encode()).hexdigest()[:12]


def groups(
    stores: Stores,
    *,
    kind: str = "",
    tenant: str = "",
    tenants: Sequence[str] | None = None,
    since: datetime | None = None,
    amount_min: Decimal | None = None,
    everything: bool = False,
) -> list[Group]:
    """Return the groups, those with the most exceptions first; resolved ones only if `everything` is asked for.

    With `amount_min` those behind which at least that much waits in some currency: not what has no known amount.
    With a tenant, or `tenants`, counts and samples are theirs alone, and what has no tenant is left out.
    """
    only = [tenant] if tenant else list(tenants or ())
    if tenants is not None and (not tenants or (tenant and tenant not in tenants)):
        return []
    parameters = {"tenants": only, "since": since or EPOCH, "limit": GROUPS_MAX}
    found = [*_rejects(stores, parameters), *_exceptions(stores, parameters), *_ledger(stores, since)]
    with read(stores.engine) as connection:
        resolved = resolved_until(connection)
    for group in found:
        group.resolved_until = resolved.get(group.key, group.resolved_until)
    kept = [
        group
        for group in found
        if (everything or group.is_open)
        and kind in ("", group.kind)
        and (amount_min is None or max(group.at_stake.values(), default=Decimal(-1)) >= amount_min)
        and (not only or not set(only).isdisjoint(group.tenants))
    ]
    return sorted(kept, key=lambda group: (-group.count, group.key))


def find(stores: Stores, keys: Sequence[str], tenants: Sequence[str] | None = None) -> list[Group]:
    """Return the groups with those keys; the beginning of a key is enough if only one has it.

    With `tenants` their part of the groups only.

    :raises InvalidRequest: a key names no group, or several.
    """
    known = groups(stores, everything=True, tenants=tenants)
    found = []
    for key in keys:
        matching = [group for group in known if group.key.startswith(key)]
        if len(matching) != 1:
            message = f"{len(matching)} groups have a key that begins with {key!r}: see `meterbridge exceptions list`"
            raise InvalidRequest(message)
        if matching[0] not in found:
            found.append(matching[0])
    return found


def _rejects(stores: Stores, parameters: dict[str, Any]) -> list[Group]:
    rows = stores.rows(
        f"SELECT if(counted, toString(reason), 'unusable_value') AS kind, {CAUSE} AS cause, count() AS n,"  # noqa: S608
        " min(ingest_time) AS first, max(ingest_time) AS last,"
        " arraySort(groupUniqArray(20)(JSONExtractString(raw, 'subject'))) AS tenants,"
        f" groupArraySample({SAMPLES_MAX}, 1)((stream, entry_id, entry_index, detail, substring(raw, 1, 500)))"
        " AS samples"
        " FROM @usage_rejects_current WHERE ingest_time >= toDateTime64({since:DateTime}, 3, 'UTC')"
        " AND (empty({tenants:Array(String)}) OR has({tenants:Array(String)}, JSONExtractString(raw, 'subject')))"
        " GROUP BY kind, cause ORDER BY n DESC LIMIT {limit:UInt32}",
        parameters,
    )
    names = ("stream", "entry_id", "entry_index", "detail", "raw")
    return [
        Group(
            key_of(row["kind"], row["cause"]),
            row["kind"],
            row["cause"],
            "rejects",
            int(row["n"]),
            row["first"],
            row["last"],
            [tenant for tenant in row["tenants"] if tenant],
            [dict(zip(names, sample, strict=True)) for sample in row["samples"]],
        )
        for row in rows
    ]


def _exceptions(stores: Stores, parameters: dict[str, Any]) -> list[Group]:
    rows = stores.rows(
        f"SELECT kind AS k, {CAUSE} AS cause, sum(e.events) AS n, min(booked_minute) AS first,"  # noqa: S608
        " max(booked_minute) AS last, arraySort(groupUniqArray(20)(e.tenant)) AS tenants,"
        f" groupArraySample({SAMPLES_MAX}, 1)((identity, meter, detail)) AS samples FROM @exceptions_current AS e"
        " WHERE booked_minute >= {since:DateTime}"
        " AND (empty({tenants:Array(String)}) OR has({tenants:Array(String)}, e.tenant))"
        " GROUP BY k, cause ORDER BY n DESC LIMIT {limit:UInt32}",
        parameters,
    )
    return [
        Group(
            key_of(row["k"], row["cause"]),
            row["k"],
            row["cause"],
            "exceptions",
            int(row["n"]),
            row["first"],
            row["last"],
            [tenant for tenant in row["tenants"] if tenant],
            [dict(zip(("identity", "meter", "detail"), sample, strict=True)) for sample in row["samples"]],
        )
        for row in rows
    ]


def _ledger(stores: Stores, since: datetime | None) -> list[Group]:
    """Return the ledger's own exceptions, grouped by kind and cause, with the money behind them.

    Of a cause that is open somewhere, what was resolved is left out.
    """
    table = tables.exceptions
    query = select(table).where(~table.c.kind.startswith(RESOLVED_PREFIX))
    # Resolved ones pile up over the years: where the limit cuts, it is the oldest of them that are left out.
    newest = query.order_by(table.c.resolved_at_ms.is_not(None), table.c.created_at_ms.desc()).limit(GROUPS_MAX)
    with read(stores.engine) as connection:
        rows = sorted(connection.execute(newest).all(), key=lambda row: row.created_at_ms)
    by_cause: dict[tuple[str, str], list[Any]] = {}
    for row in rows:
        if since is None or to_datetime(row.created_at_ms) >= since:
            by_cause.setdefault((row.kind, ledger_cause(row.detail)), []).append(row)
    amounts = at_stake(stores.engine, [row.identity for row in rows])
    return [_ledger_group(kind, cause, members, amounts) for (kind, cause), members in by_cause.items()]


def _ledger_group(kind: str, cause: str, rows: list[Any], amounts: dict[str, tuple[str, Decimal]]) -> Group:
    own = [row for row in rows if row.resolved_at_ms is None] or rows
    times = [to_datetime(row.created_at_ms) for row in own]
    group = Group(key_of(kind, cause), kind, cause, "ledger", len(own), min(times), max(times))
    group.identities = [row.identity for row in own]
    group.samples = [{"identity": row.identity, "detail": row.detail} for row in own[:SAMPLES_MAX]]
    if len(own) == 1:
        group.cause = own[0].detail
    if own[0].resolved_at_ms is not None:
        group.resolved_until = max(to_datetime(row.resolved_at_ms) for row in own)
    with exact():
        for identity in group.identities:
            if identity in amounts:
                currency, amount = amounts[identity]
                group.at_stake[currency] = group.at_stake.get(currency, Decimal(0)) + amount
    return group


def ledger_cause(detail: str) -> str:
    """Return what is left of a detail without keys, digests and numbers, which differ from one to the next."""
    return _DIFFERS.sub("#", detail)


def resolved_until(connection: Connection) -> dict[str, datetime]:
    """Return up to when each group of ClickHouse's rows was resolved, by the group's key."""
    table = tables.exceptions
    query = select(table.c.identity, table.c.resolved_at_ms).where(
        table.c.kind.startswith(RESOLVED_PREFIX), table.c.resolved_at_ms.is_not(None)
    )
    return {row.identity: to_datetime(row.resolved_at_ms) for row in connection.execute(query)}
