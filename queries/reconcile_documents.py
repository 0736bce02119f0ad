"""Documents and postings: rated amounts = documents, ClickHouse = ledger, documents = postings."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Any, Final

import orjson
from sqlalchemy import Engine, select

from core.currencies import exponent
from operators.posting_rules import RECOGNITION
from queries.reconcile import Check, Span
from queries.stores import Stores, minute_of, of_hour
from sinks.ledger import retention, tables
from sinks.ledger.amounts import exact
from sinks.ledger.database import read
from sinks.ledger.documents import ACT, FLOW

_IDENTITY: Final = ("entity", "customer", "contract", "currency", "booked_hour", "accounting_period")
_ENTRY: Final = ("plan", "plan_version", "charge", "price_row", "period_start")
_CHARGE: Final = ("customer", "contract", *_ENTRY)
_CONTEXT: Final = Context(prec=60)
_ZERO: Final = Decimal(0)
_ROWS_PER_FETCH: Final = 1_000
_KEYS_PER_QUERY: Final = 100
_AHEAD: Final = timedelta(days=2)
"""Usage is booked at most so long before its billing period begins: what is ahead of the clock, in any time zone."""

Amounts = dict[tuple[Any, ...], Decimal]


def checks(stores: Stores, span: Span) -> Iterator[Check]:
    """Yield the checks of documents and postings. Documents are read one at a time; sums of them are kept."""
    read_documents = _Documents(span)
    with exact():
        for document in _documents(stores.engine, span):
            read_documents.take(document)
        yield _rated(stores, span, read_documents.rated)
        yield from _cents(stores, span, read_documents)
    yield read_documents.balance
    yield _copies(stores, span, read_documents.digests)
    with exact():
        yield _postings(stores.engine, sorted(read_documents.posting_keys))


class _Documents:
    """What the documents of a span say, added up in one pass."""

    def __init__(self, span: Span) -> None:
        self.span = span
        self.rated: Amounts = {}
        self.charged: Amounts = {}
        self.revenue: Amounts = {}
        self.digests: dict[tuple[Any, ...], int] = {}
        self.posting_keys: set[str] = set()
        self.balance = Check("documents balance", "debits", "credits")

    def take(self, document: dict[str, Any]) -> None:
        """Add a document of the span."""
        key = tuple(of_hour(document[name]) if name == "booked_hour" else document[name] for name in _IDENTITY)
        own, sums = _ZERO, {"debit": _ZERO, "credit": _ZERO}
        for line in document["lines"]:
            sums[line["side"]] += Decimal(line["amount"])
            if _is_charged(line):
                own += Decimal(line["amount_exact"])
        self.rated[key] = self.rated.get(key, _ZERO) + own
        self.balance.compare({"key": document["key"]}, sums["debit"], sums["credit"], "a line was edited or is missing")
        self.digests[document["key"], document["digest"]] = 1
        if document["posting_key"]:
            self.posting_keys.add(document["posting_key"])
        self.add_cents(document, None)

    def add_cents(self, document: dict[str, Any], begins: str | None) -> None:
        """Add the rounded amounts of a document to their charges; of periods from `begins` on, if it is given."""
        for line in document["lines"]:
            if begins is not None and line["period_start"] < begins:
                continue
            charge, revenue = _charge(line), _revenue(line)
            if not charge and not revenue:
                continue
            key = (document["customer"], document["contract"], *(line[name] for name in _ENTRY))
            if charge:
                self.charged[key] = self.charged.get(key, _ZERO) + charge
            if revenue:
                self.revenue[key] = self.revenue.get(key, _ZERO) + revenue


def _documents(engine: Engine, span: Span) -> Iterator[dict[str, Any]]:
    table = tables.documents
    query = select(table.c.key, table.c.digest, table.c.posting_key, table.c.json).where(
        table.c.booked_hour >= minute_of(span.begins) // 60,
        table.c.booked_hour < minute_of(span.ends) // 60,
        table.c.state != "STAGED",
        table.c.origin == FLOW,
    )
    with read(engine) as connection:
        for row in connection.execution_options(yield_per=_ROWS_PER_FETCH).execute(query):
            yield orjson.loads(row.json) | {"key": row.key, "digest": row.digest, "posting_key": row.posting_key}


def _is_charged(line: dict[str, Any]) -> bool:
    """Tell whether this line is the one of its entry that counts; what only moves revenue in time does not."""
    near_side = "credit" if line["swapped"] else "debit"
    return bool(line["side"] == near_side and line["kind"] != RECOGNITION)


def _charge(line: dict[str, Any]) -> Decimal:
    """Return what the line charges, rounded; a swapped one takes back."""
    if not _is_charged(line):
        return _ZERO
    return -Decimal(line["amount"]) if line["swapped"] else Decimal(line["amount"])


def _revenue(line: dict[str, Any]) -> Decimal:
    if not str(line["account_role"]).endswith("_revenue"):
        return _ZERO
    return Decimal(line["amount"]) if line["side"] == "credit" else -Decimal(line["amount"])


def _rated(stores: Stores, span: Span, right: Amounts) -> Check:
    check = Check("rated amounts are in documents", "rated_usage", "ledger documents")
    columns = ", ".join(_IDENTITY)
    rows = stores.rows(
        f"SELECT {columns}, sum(r.amount) AS total FROM @rated_usage_current AS r WHERE status = 'sealed'"  # noqa: S608
        " AND booked_hour >= {from:DateTime} AND booked_hour < {to:DateTime} GROUP BY ALL",
        span.parameters,
    )
    left: Amounts = {tuple(row[name] for name in _IDENTITY): row["total"] for row in rows}
    cause = (
        "a document is missing in the ledger, or a rated row was edited"
        "|rated rows are missing, or a document was edited"
    )
    check.compare_all(_IDENTITY, left, right, cause)
    return check


def _cents(stores: Stores, span: Span, found: _Documents) -> Iterator[Check]:
    """Check the cents of every charge and period from its beginning: rounded total to date = sum of its lines.

    Looked at are the billing periods of what is in the span and all that begin after the first of these; of them
    everything, also what was booked before the span.
    """
    begins = _first_period(stores, span, found)
    expired = retention.expired_before(stores.engine).get("rated_usage")
    if begins is not None and expired is not None:
        begins = max(begins, expired)  # of periods that began before some rows are gone
    if begins is not None:
        earlier = Span(max(of_hour(0), min(begins - _AHEAD, span.begins)), span.begins)
        for document in _documents(stores.engine, earlier):
            found.add_cents(document, _text(begins))
    rows = stores.rows(
        "SELECT customer, contract, currency, plan, plan_version, charge, price_row, period_start,"
        " sum(r.amount) AS amount, sum(r.revenue_amount) AS revenue FROM @rated_usage_current AS r"
        " WHERE status = 'sealed' AND booked_hour < {to:DateTime} AND period_start >= {begins:DateTime64(6)}"
        " GROUP BY ALL",
        span.parameters | {"begins": begins or span.ends},
    )
    left: dict[str, Amounts] = {"amount": {}, "revenue": {}}
    for row in rows:
        key = (row["customer"], row["contract"], *(row[name] for name in _ENTRY))
        step = Decimal(1).scaleb(-exponent(row["currency"]))
        for column, amounts in left.items():
            amounts[key] = row[column].quantize(step, ROUND_HALF_UP, _CONTEXT)
    cause = "documents are missing, or their lines were edited|rated rows are missing or were edited"
    for column, right in (("amount", found.charged), ("revenue", found.revenue)):
        total = "total" if column == "amount" else column
        check = Check(f"documents add up to the rounded {total}", "rated_usage, rounded", "ledger documents")
        dated = {(*key[:-1], datetime.fromisoformat(key[-1])): value for key, value in right.items()}
        check.compare_all(_CHARGE, left[column], dated, cause)
        yield check


def _first_period(stores: Stores, span: Span, found: _Documents) -> datetime | None:
    """Return when the first billing period begins of which something is in the span."""
    rows = stores.rows(
        "SELECT min(period_start) AS first, count() AS n FROM @rated_usage_current WHERE status = 'sealed'"
        " AND booked_hour >= {from:DateTime} AND booked_hour < {to:DateTime}",
        span.parameters,
    )
    starts = [datetime.fromisoformat(key[-1]) for amounts in (found.charged, found.revenue) for key in amounts]
    return min([*starts, *(row["first"] for row in rows if row["n"])], default=None)


def _text(when: datetime) -> str:
    """Return a time as lines of documents write it: such texts are in the order of their times."""
    return f"{when:%Y-%m-%dT%H:%M:%SZ}"


def _copies(stores: Stores, span: Span, left: dict[tuple[Any, ...], int]) -> Check:
    check = Check("documents are the same in both stores", "ledger", "ClickHouse")
    blocks = stores.client.blocks(
        stores.resolved(
            "SELECT key, digest FROM @financial_documents FINAL"
            " WHERE booked_hour >= {from:DateTime} AND booked_hour < {to:DateTime}"
        ),
        span.parameters,
    )
    cause = "the document is missing on one side, or was replaced: compare the digests"
    told, untold = _acts(stores.engine, span)
    left |= dict.fromkeys(told, 1)
    right: dict[tuple[Any, ...], int] = {}
    for block in blocks:
        for key, digest in block:
            if (key, digest) not in untold:  # the poster died between telling and noting it, and tells it again
                right[key, digest] = right.get((key, digest), 0) + 1
    check.compare_all(("key", "digest"), left, right, cause)
    return check


def _acts(engine: Engine, span: Span) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    """Return key and digest of documents of acts that the poster has told ClickHouse, and of those it has not yet."""
    table = tables.documents
    query = select(table.c.key, table.c.digest, table.c.state_written).where(
        table.c.booked_hour >= minute_of(span.begins) // 60,
        table.c.booked_hour < minute_of(span.ends) // 60,
        table.c.origin == ACT,
    )
    told: set[tuple[str, str]] = set()
    untold: set[tuple[str, str]] = set()
    with read(engine) as connection:
        for row in connection.execute(query):
            (told if row.state_written else untold).add((row.key, row.digest))
    return told, untold


def _postings(engine: Engine, keys: list[str]) -> Check:
    """Check that each posting holds what its documents hold, account by account."""
    check = Check("postings hold their documents", "documents", "posting")
    documents, postings = tables.documents, tables.postings
    cause = "the posting or one of its documents was edited after it was made"
    for start in range(0, len(keys), _KEYS_PER_QUERY):
        part = keys[start : start + _KEYS_PER_QUERY]
        sides: tuple[Amounts, Amounts] = ({}, {})
        # All documents of a posting: a daily one has some outside the span too.
        sources = (
            select(documents.c.posting_key, documents.c.json).where(documents.c.posting_key.in_(part)),
            select(postings.c.key, postings.c.json).where(postings.c.key.in_(part)),
        )
        with read(engine) as connection:
            for amounts, query in zip(sides, sources, strict=True):
                for key, text in connection.execution_options(yield_per=_ROWS_PER_FETCH).execute(query):
                    for line in orjson.loads(text)["lines"]:
                        _sign_into(amounts, (key, line["account_role"]), line)
        check.compare_all(("posting", "account_role"), *sides, cause)
    return check


def _sign_into(amounts: Amounts, key: tuple[Any, ...], line: dict[str, Any]) -> None:
    amount = Decimal(line["amount"])
    amounts[key] = amounts.get(key, _ZERO) + (amount if line["side"] == "debit" else -amount)
