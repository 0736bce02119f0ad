"""Documents and postings: rated amounts = documents, ClickHouse = ledger, documents = postings."""

from collections.abc import Callable, Iterator
from datetime import datetime
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Any, Final

import orjson
from sqlalchemy import Engine, select

from core.currencies import exponent
from operators.posting_rules import RECOGNITION
from queries.reconcile import Check, Span
from queries.stores import Stores, minute_of, of_hour
from sinks.ledger import tables
from sinks.ledger.amounts import exact
from sinks.ledger.database import read
from sinks.ledger.documents import FLOW

_IDENTITY: Final = ("entity", "customer", "contract", "currency", "booked_hour", "accounting_period")
_ENTRY: Final = ("plan", "plan_version", "charge", "price_row", "period_start")
_CONTEXT: Final = Context(prec=60)

Amounts = dict[tuple[Any, ...], Decimal]
Counted = Callable[[dict[str, Any]], Decimal]
"""What a line of a document adds to the side that is compared."""


def checks(stores: Stores, span: Span) -> Iterator[Check]:
    """Yield the checks of documents and postings."""
    found = _documents(stores.engine, span)
    with exact():
        yield _rated(stores, span, found)
        yield _cents(stores, span, "amount", "documents add up to the rounded total", _charge)
        yield _cents(stores, span, "revenue_amount", "documents add up to the rounded revenue", _revenue)
        yield _balanced(found)
    yield _copies(stores, span, found)
    with exact():
        yield _postings(stores.engine, found)


def _documents(engine: Engine, span: Span) -> list[dict[str, Any]]:
    table = tables.documents
    query = select(table.c.key, table.c.digest, table.c.state, table.c.posting_key, table.c.json).where(
        table.c.booked_hour >= minute_of(span.begins) // 60,
        table.c.booked_hour < minute_of(span.ends) // 60,
        table.c.state != "STAGED",
        table.c.origin == FLOW,
    )
    with read(engine) as connection:
        return [
            orjson.loads(row.json)
            | {"key": row.key, "digest": row.digest, "state": row.state, "posting_key": row.posting_key}
            for row in connection.execution_options(yield_per=1_000).execute(query)
        ]


def _is_charged(line: dict[str, Any]) -> bool:
    """Tell whether this line is the one of its entry that counts; what only moves revenue in time does not."""
    near_side = "credit" if line["swapped"] else "debit"
    return bool(line["side"] == near_side and line["kind"] != RECOGNITION)


def _signed(line: dict[str, Any], name: str) -> Decimal:
    """Return what the entry of a line charges; a swapped one takes back."""
    amount = Decimal(line[name])
    return -amount if line["swapped"] and name != "amount_exact" else amount


def _charge(line: dict[str, Any]) -> Decimal:
    return _signed(line, "amount") if _is_charged(line) else Decimal(0)


def _revenue(line: dict[str, Any]) -> Decimal:
    if not str(line["account_role"]).endswith("_revenue"):
        return Decimal(0)
    return Decimal(line["amount"]) if line["side"] == "credit" else -Decimal(line["amount"])


def _rated(stores: Stores, span: Span, found: list[dict[str, Any]]) -> Check:
    check = Check("rated amounts are in documents", "rated_usage", "ledger documents")
    columns = ", ".join(_IDENTITY)
    rows = stores.rows(
        f"SELECT {columns}, sum(r.amount) AS total FROM @rated_usage_current AS r WHERE status = 'sealed'"  # noqa: S608
        " AND booked_hour >= {from:DateTime} AND booked_hour < {to:DateTime} GROUP BY ALL",
        span.parameters,
    )
    left: Amounts = {tuple(row[name] for name in _IDENTITY): row["total"] for row in rows}
    right: Amounts = {}
    for document in found:
        key = tuple(of_hour(document[name]) if name == "booked_hour" else document[name] for name in _IDENTITY)
        own = (_signed(line, "amount_exact") for line in document["lines"] if _is_charged(line))
        right[key] = right.get(key, Decimal(0)) + sum(own, Decimal(0))
    cause = (
        "a document is missing in the ledger, or a rated row was edited"
        "|rated rows are missing, or a document was edited"
    )
    check.compare_all(_IDENTITY, left, right, cause)
    return check


def _cents(stores: Stores, span: Span, column: str, name: str, counted: Counted) -> Check:
    """Check the cents of every charge and period from its beginning: rounded total to date = sum of its lines."""
    check = Check(name, "rated_usage, rounded", "ledger documents")
    rows = stores.rows(
        "SELECT customer, contract, currency, plan, plan_version, charge, price_row, period_start,"  # noqa: S608
        f" sum(r.{column}) AS total FROM @rated_usage_current AS r WHERE status = 'sealed'"
        " AND booked_hour < {to:DateTime} GROUP BY ALL",
        span.parameters,
    )
    left: Amounts = {}
    for row in rows:
        key = (row["customer"], row["contract"], *(row[name] for name in _ENTRY))
        step = Decimal(1).scaleb(-exponent(row["currency"]))
        left[key] = row["total"].quantize(step, ROUND_HALF_UP, _CONTEXT)
    right: Amounts = {}
    for document in _documents(stores.engine, Span(of_hour(0), span.ends)):
        for line in document["lines"]:
            amount = counted(line)
            if amount:
                names = [line[name] for name in _ENTRY[:-1]]
                key = (document["customer"], document["contract"], *names, datetime.fromisoformat(line["period_start"]))
                right[key] = right.get(key, Decimal(0)) + amount
    cause = "documents are missing, or their lines were edited|rated rows are missing or were edited"
    check.compare_all(("customer", "contract", *_ENTRY), left, right, cause)
    return check


def _balanced(found: list[dict[str, Any]]) -> Check:
    check = Check("documents balance", "debits", "credits")
    for document in found:
        sums = {"debit": Decimal(0), "credit": Decimal(0)}
        for line in document["lines"]:
            sums[line["side"]] += Decimal(line["amount"])
        check.compare({"key": document["key"]}, sums["debit"], sums["credit"], "a line was edited or is missing")
    return check


def _copies(stores: Stores, span: Span, found: list[dict[str, Any]]) -> Check:
    check = Check("documents are the same in both stores", "ledger", "ClickHouse")
    rows = stores.rows(
        "SELECT key, digest FROM @financial_documents_current"
        " WHERE booked_hour >= {from:DateTime} AND booked_hour < {to:DateTime}",
        span.parameters,
    )
    cause = "the document is missing on one side, or was replaced: compare the digests"
    left = {(document["key"], document["digest"]): 1 for document in found}
    right: dict[tuple[Any, ...], int] = {}
    for row in rows:
        right[row["key"], row["digest"]] = right.get((row["key"], row["digest"]), 0) + 1
    check.compare_all(("key", "digest"), left, right, cause)
    return check


def _postings(engine: Engine, found: list[dict[str, Any]]) -> Check:
    """Check that each posting holds what its documents hold, account by account."""
    check = Check("postings hold their documents", "documents", "posting")
    keys = sorted({document["posting_key"] for document in found if document["posting_key"]})
    left: Amounts = {}
    complete = _members(engine, keys)
    for key, members in complete.items():
        for line in (line for document in members for line in document["lines"]):
            _sign_into(left, (key, line["account_role"]), line)
    right: Amounts = {}
    table = tables.postings
    with read(engine) as connection:
        for row in connection.execute(select(table.c.key, table.c.json)):
            if row.key in complete:
                for line in orjson.loads(row.json)["lines"]:
                    _sign_into(right, (row.key, line["account_role"]), line)
    cause = "the posting or one of its documents was edited after it was made"
    check.compare_all(("posting", "account_role"), left, right, cause)
    return check


def _sign_into(amounts: Amounts, key: tuple[Any, ...], line: dict[str, Any]) -> None:
    amount = Decimal(line["amount"])
    amounts[key] = amounts.get(key, Decimal(0)) + (amount if line["side"] == "debit" else -amount)


def _members(engine: Engine, keys: list[str]) -> dict[str, list[dict[str, Any]]]:
    """Return all documents of those postings: a daily posting has documents outside the span too."""
    members: dict[str, list[dict[str, Any]]] = {}
    table = tables.documents
    with read(engine) as connection:
        for start in range(0, len(keys), 500):
            query = select(table.c.posting_key, table.c.json).where(table.c.posting_key.in_(keys[start : start + 500]))
            for row in connection.execute(query):
                members.setdefault(row.posting_key, []).append(orjson.loads(row.json))
    return members
