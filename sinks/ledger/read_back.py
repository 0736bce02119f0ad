"""Read-back: what the ERP holds under our keys, against what we sent. Marks postings RECONCILED or MISMATCHED.

Works one booked day at a time, so memory does not grow with the books. Nothing in the ERP is changed. Dying anywhere
leaves some postings marked; the next run marks the rest.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import Connection, Engine, and_, func, or_, select, update

from sinks.erp.port import ErpEntry, ErpPort, Posting, Window
from sinks.ledger import drafts, exceptions, tables
from sinks.ledger.adjustments import adjustment_key
from sinks.ledger.amounts import exact
from sinks.ledger.database import read, write
from sinks.ledger.invoice_lines import ADJUSTMENT, RECEIVABLE
from sinks.ledger.postings import (
    BOOKED,
    CONFLICT,
    MISMATCHED,
    POSTED,
    RECONCILED,
    UNKNOWN,
    Stored,
    stored,
)
from sinks.ledger.postings import DUPLICATED as POSTED_TWICE
from sinks.ledger.times import MS_PER_HOUR, to_datetime, to_ms

_TABLE = tables.postings
_KEYS_PER_QUERY: Final = 500
EDITED, DELETED, DUPLICATED, UNEXPECTED, FOREIGN, BALANCE = (
    "erp_edited", "erp_deleted", "erp_duplicated", "erp_unexpected", "erp_unknown_entry", "erp_balance",
)  # fmt: skip
HOURS_PER_DAY: Final = 24
_ALARMED: Final = (CONFLICT, POSTED_TWICE)
"""States that only a correction in the ERP ends: once there is one, the poster looks the key up again."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as we sent it. `identity` is our key, or the ERP's number where it has none of ours."""

    kind: str
    identity: str
    ours: str
    erp: str
    cause: str


@dataclass(slots=True)
class Result:
    """What a read-back compared and found."""

    compared: int = 0
    reconciled: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Tell whether everything is as we sent it."""
        return not self.findings


def days_of(engine: Engine, adapter: str, first_hour: int, end_hour: int) -> list[date]:
    """Return the booked days (UTC) of the adapter's postings in [first_hour, end_hour)."""
    query = select(func.min(_TABLE.c.booked_hour), func.max(_TABLE.c.booked_hour)).where(
        _TABLE.c.adapter == adapter, _TABLE.c.booked_hour >= first_hour, _TABLE.c.booked_hour < end_hour
    )
    with read(engine) as connection:
        low, high = connection.execute(query).one()
    if low is None:
        return []
    first, last = (to_datetime(hour * MS_PER_HOUR).date() for hour in (low, high))
    return [first + timedelta(days=step) for step in range((last - first).days + 1)]


def read_back(engine: Engine, adapter: ErpPort, entities: Sequence[str], days: Iterable[date], now: datetime) -> Result:
    """Compare the entities' postings of those booked days with the adapter's books, and mark them.

    One that was in conflict or there twice, and is not any more, is UNKNOWN again: the poster looks it up by its key.

    :raises Unreachable: the ERP does not answer; what was compared before is marked.
    """
    result = Result()
    for day in days:
        ours = _postings_of(engine, adapter.name, entities, day)
        entries: dict[str, list[ErpEntry]] = {}
        for entry in adapter.read_back(Window(day, day)):
            entries.setdefault(entry.key, []).append(entry)
        strangers = [key for key in entries if key not in ours]
        missing = [key for key, row in ours.items() if key not in entries and row.state in (*BOOKED, *_ALARMED)]
        for start in range(0, len(missing), _KEYS_PER_QUERY):
            entries |= {k: v for k, v in adapter.lookup(missing[start : start + _KEYS_PER_QUERY]).items() if v}
        invoices = [adjustment_key(key) for key, row in ours.items() if row.posting.invoice is not None]
        adjusted = drafts.adjustments(engine, invoices)
        found = {key: compare(row, entries.get(key, []), adapter, adjusted.get(key)) for key, row in ours.items()}
        _mark(engine, ours, found, now, result)
        _strangers(engine, [entries[key] for key in strangers], now, result)
    return result


def _postings_of(engine: Engine, adapter: str, entities: Sequence[str], day: date) -> dict[str, Stored]:
    first = to_ms(datetime.combine(day, datetime.min.time(), tzinfo=to_datetime(0).tzinfo)) // MS_PER_HOUR
    query = select(_TABLE).where(
        _TABLE.c.adapter == adapter,
        _TABLE.c.entity.in_(list(entities)),
        _TABLE.c.booked_hour >= first,
        _TABLE.c.booked_hour < first + HOURS_PER_DAY,
        _TABLE.c.kind != ADJUSTMENT,  # part of its invoice's entry
    )
    with read(engine) as connection:
        return {row.key: stored(row) for row in connection.execute(query)}


def compare(
    row: Stored, entries: Sequence[ErpEntry], adapter: ErpPort, adjusting: Posting | None = None
) -> Finding | None:
    """Compare one posting with the entries under its key; None if they agree. Pure but for the adapter's names.

    :param adjusting: what a person changed in the draft before it was posted, booked by now.
    """
    if row.state not in BOOKED and row.state not in _ALARMED:
        if not entries or row.state in ("SUBMITTED", "UNKNOWN", "ACCEPTED"):
            return None  # the poster's own business: it looks these up
        numbers = ", ".join(entry.number for entry in entries)
        return Finding(UNEXPECTED, row.key, row.state, numbers, "somebody booked it by hand, or the ledger is older")
    if not entries and adjusting is not None and not any(_expected(row.posting, adapter, adjusting).values()):
        return None  # a draft that was given up
    if not entries:
        if row.state in _ALARMED:
            return None  # what was in the way is gone
        return Finding(DELETED, row.key, row.number, "no entry", "the entry was deleted in the ERP")
    if len(entries) > 1:
        numbers = ", ".join(entry.number for entry in entries)
        cause = "the entry was copied in the ERP: reverse the extras, and take our key out of them"
        return Finding(DUPLICATED, row.key, row.number or row.state, numbers, cause)
    return _differs(row, entries[0], adapter, adjusting)


def _expected(posting: Posting, adapter: ErpPort, adjusting: Posting | None) -> dict[str, Decimal]:
    more = () if adjusting is None else adapter.expected(adjusting)
    return by_account([*adapter.expected(posting), *more])


def _differs(row: Stored, entry: ErpEntry, adapter: ErpPort, adjusting: Posting | None) -> Finding | None:
    posting = row.posting
    is_persons = posting.invoice is not None and posting.extra.get("state") == "draft"
    checks: list[tuple[str, Any, Any]] = [("number", row.number, entry.number)] if row.state in BOOKED else []
    if entry.currency:
        checks.append(("currency", posting.currency, entry.currency))
    if entry.posting_date is not None and not is_persons:
        checks.append(("date", posting.posting_date, entry.posting_date))
    if entry.digest:
        checks.append(("digest", posting.digest, entry.digest))
    for name, ours, theirs in checks:
        if ours != theirs:
            return Finding(EDITED, row.key, f"{name} {ours}", f"{name} {theirs}", f"the {name} was edited in the ERP")
    if not adapter.capabilities.reads_lines or entry.draft:
        return None  # a draft may be changed until it is posted
    ours, theirs = _expected(posting, adapter, adjusting), by_account(entry.lines)
    differences = {
        account: (ours.get(account, Decimal(0)), theirs.get(account, Decimal(0)))
        for account in sorted(ours.keys() | theirs.keys())
        if ours.get(account, Decimal(0)) != theirs.get(account, Decimal(0))
    }
    if not differences or _is_tax(posting, entry, differences):
        return None
    texts = [", ".join(f"{account} {pair[side]:f}" for account, pair in differences.items()) for side in (0, 1)]
    return Finding(EDITED, row.key, texts[0], texts[1], "an amount or account was edited in the ERP")


def _is_tax(posting: Posting, entry: ErpEntry, differences: Mapping[str, tuple[Decimal, Decimal]]) -> bool:
    """Tell whether the difference is the tax that the ERP added to an invoice: so much more on each side."""
    if posting.invoice is None or entry.tax is None:
        return False
    moved = [theirs - ours for ours, theirs in differences.values()]
    taxed = sum((amount for amount in moved if amount * entry.tax > 0), Decimal(0))
    return sum(moved) == 0 and abs(taxed) == abs(entry.tax)


def by_account(lines: Iterable[tuple[str, Decimal]]) -> dict[str, Decimal]:
    """Return the sums by account."""
    sums: dict[str, Decimal] = {}
    with exact():
        for account, amount in lines:
            sums[account] = sums.get(account, Decimal(0)) + amount
    return sums


def _mark(
    engine: Engine,
    ours: Mapping[str, Stored],
    found: Mapping[str, Finding | None],
    now: datetime,
    result: Result,
) -> None:
    result.compared += sum(row.state in BOOKED for row in ours.values())
    with write(engine) as connection:
        for key, finding in found.items():
            row = ours[key]
            if finding is not None:
                result.findings.append(finding)
                detail = f"ours: {finding.ours}; ERP: {finding.erp}; {finding.cause}"
                exceptions.raise_exception(connection, finding.kind, key, detail, now)
            if row.state in _ALARMED and finding is None:
                _look_up_again(connection, row, now)
            if row.state not in BOOKED:
                continue
            good = finding is None
            result.reconciled += good
            # What was reversed stays so; the poster changes no other state of what is in the books.
            target = RECONCILED if good else MISMATCHED
            if row.state in (POSTED, RECONCILED, MISMATCHED) and row.state != target:
                change = update(_TABLE).where(_TABLE.c.key == key, _TABLE.c.state == row.state)
                text = "" if finding is None else f"{finding.kind}: {finding.cause}"
                connection.execute(
                    change.values(
                        state=target, reason="" if finding is None else finding.kind, detail=text,
                        changed_at_ms=to_ms(now), version=_TABLE.c.version + 1,
                    )
                )  # fmt: skip
        clean = [key for key, finding in found.items() if finding is None]
        for kind in (EDITED, DELETED, DUPLICATED, UNEXPECTED):
            exceptions.resolve(connection, kind, clean, now)


def _look_up_again(connection: Connection, row: Stored, now: datetime) -> None:
    """Let the poster find out what the ERP has now; nothing is sent before its lookups say that nothing is there."""
    change = update(_TABLE).where(_TABLE.c.key == row.key, _TABLE.c.state == row.state)
    values = {"state": UNKNOWN, "reason": "corrected", "detail": f"was {row.state}: {row.detail}", "lookups": 0}
    connection.execute(
        change.values(values | {"due_at_ms": 0, "changed_at_ms": to_ms(now), "version": _TABLE.c.version + 1})
    )
    exceptions.resolve(connection, f"posting_{row.state.lower()}", [row.key], now)


def _strangers(engine: Engine, groups: Sequence[Sequence[ErpEntry]], now: datetime, result: Result) -> None:
    """Raise entries that carry a key nobody here knows; one that another day or entity has is no stranger."""
    keys = [group[0].key for group in groups]
    known: set[str] = set()
    with read(engine) as connection:
        for start in range(0, len(keys), _KEYS_PER_QUERY):
            part = select(_TABLE.c.key).where(_TABLE.c.key.in_(keys[start : start + _KEYS_PER_QUERY]))
            known |= set(connection.execute(part).scalars())
    with write(engine) as connection:
        for group in groups:
            if group[0].key in known:
                continue
            for entry in group:
                cause = (
                    "an entry with a key of ours that the ledger does not have: made by hand, or the ledger is older"
                )
                result.findings.append(Finding(FOREIGN, entry.number, "no posting", f"key {entry.key}", cause))
                exceptions.raise_exception(connection, FOREIGN, entry.number, f"key {entry.key}: {cause}", now)


def booked_totals(engine: Engine, adapter: ErpPort, entities: Sequence[str]) -> dict[tuple[str, str], Decimal]:
    """Return what all booked postings come to, by (account as the ERP names it, currency).

    The tax that the ERP told of an invoice is owed too; it stands on the receivable. A draft is in no balance.
    """
    entry, one = tables.erp_entries.c, _TABLE.c
    is_entry = (entry.adapter == one.adapter, entry.posting_key == one.key, entry.number == one.erp_number)
    query = (
        select(one.json, entry.tax)
        .select_from(_TABLE.outerjoin(tables.erp_entries, and_(*is_entry)))
        .where(one.adapter == adapter.name, one.entity.in_(list(entities)), one.state.in_(BOOKED))
        .where(or_(entry.draft.is_(None), entry.draft == 0))
    )
    totals: dict[tuple[str, str], Decimal] = {}
    with read(engine) as connection, exact():
        for text, tax in connection.execute(query.execution_options(yield_per=1_000)):
            posting = Posting.from_json(text)
            amounts = [*adapter.expected(posting)]
            if tax:
                owed = [line for line in posting.lines if line.account_role == RECEIVABLE]
                amounts += [(account, tax) for account, _ in adapter.expected(replace(posting, lines=tuple(owed[:1])))]
            for account, amount in amounts:
                key = (account, posting.currency)
                totals[key] = totals.get(key, Decimal(0)) + amount
    return totals


def accounts_of(engine: Engine, adapter: ErpPort, entities: Sequence[str], roles: Sequence[str]) -> set[str]:
    """Return the accounts, as the ERP names them, that lines of these roles are on."""
    found: set[str] = set()
    query = select(_TABLE.c.json).where(
        _TABLE.c.adapter == adapter.name, _TABLE.c.entity.in_(list(entities)), _TABLE.c.state.in_(BOOKED)
    )
    with read(engine) as connection:
        for text in connection.execute(query.execution_options(yield_per=1_000)).scalars():
            posting = Posting.from_json(text)
            lines = tuple(line for line in posting.lines if line.account_role in roles)
            found |= {account for account, _ in adapter.expected(replace(posting, lines=lines))}
    return found


def balances(
    engine: Engine, adapter: ErpPort, entities: Sequence[str], now: datetime
) -> Iterator[tuple[str, str, Decimal, Decimal]]:
    """Yield account, currency, our total and the ERP's balance, for every account of ours; differences are raised.

    :raises Unreachable: the ERP does not answer.
    """
    ours = booked_totals(engine, adapter, entities)
    theirs = adapter.balances()
    with write(engine) as connection:
        for (account, currency), total in sorted(ours.items()):
            balance = theirs.get((account, currency), Decimal(0))
            identity = f"{account} {currency}"
            if balance == total:
                exceptions.resolve(connection, BALANCE, [identity], now)
            else:
                detail = f"ours {total:f}, the ERP's balance {balance:f}: others book on it, or an entry was changed"
                exceptions.raise_exception(connection, BALANCE, identity, detail, now)
            yield account, currency, total, balance
