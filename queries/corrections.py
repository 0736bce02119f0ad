"""Usage that was booked after its own hour: late events and voids. When used, when booked, what it changed, where."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from core.errors import InvalidRequest
from queries.stores import Row, Stores
from sinks.ledger.amounts import exact

ROWS_MAX: Final = 500
_ROWS_ASKED_FOR: Final = 500
"""Documents of so many rows are asked for at once: their customers are part of the question."""
SPAN_MAX: Final = timedelta(days=93)
_SETTINGS: Final = "SETTINGS optimize_move_to_prewhere_if_final = 1"
"""Kind, hour and customer are in the key: rows of others are left out before versions are compared."""
KINDS: Final = ("late_usage", "void")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which corrections: booked from one hour to another (exclusive), of some customers, tenants or meters."""

    begins: datetime
    ends: datetime
    customers: tuple[str, ...] | None = None
    """None for all; a scoped viewer's customers otherwise."""
    customer: str = ""
    meter: str = ""
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Corrections:
    """Corrections newest first, cut to so many rows, and the totals of all of them."""

    rows: list[Row]
    total_rows: int
    by_kind: list[Row]
    """`line_kind`, `currency`, `rows`, `events`, `amount`."""
    by_hour: list[Row]
    """`hour`, `kind`, `currency`, `rows`, `events`, `amount`: what each booked hour corrected."""


def corrections(stores: Stores, wanted: Wanted, rows_max: int = ROWS_MAX) -> Corrections:
    """Return the sealed rated rows that corrected an earlier hour, each with the document that carries it.

    :raises InvalidRequest: the span is longer than SPAN_MAX.
    """
    if wanted.ends - wanted.begins > SPAN_MAX:
        message = f"at most {SPAN_MAX.days} days at once: choose a later --from"
        raise InvalidRequest(message)
    condition, values = _condition(wanted)
    rows = stores.rows(
        "SELECT customer, contract, entity, plan, plan_version, charge, price_row, meter, period_start, usage_hour,"  # noqa: S608
        " booked_hour, accounting_period, original_period, toString(line_kind) AS line_kind, quantity, events, amount,"
        f" currency FROM @rated_usage_current WHERE {condition}"
        " ORDER BY booked_hour DESC, abs(amount) DESC, customer, charge, usage_hour LIMIT {limit:UInt32}"
        f" {_SETTINGS}",
        values | {"limit": rows_max},
    )
    by_hour = stores.rows(
        "SELECT r.booked_hour AS hour, toString(r.line_kind) AS kind, toString(r.currency) AS currency,"  # noqa: S608
        " count() AS rows, sum(r.events) AS events, sum(r.amount) AS amount"
        f" FROM @rated_usage_current AS r WHERE {condition}"
        f" GROUP BY hour, kind, currency ORDER BY hour, kind, currency {_SETTINGS}",
        values,
    )
    by_kind = _by_kind(by_hour)
    for first in range(0, len(rows), _ROWS_ASKED_FOR):
        _add_documents(stores, rows[first : first + _ROWS_ASKED_FOR])
    return Corrections(rows, sum(int(row["rows"]) for row in by_kind), by_kind, by_hour)


def _by_kind(by_hour: list[Row]) -> list[Row]:
    """Return the totals by kind and currency."""
    found: dict[tuple[str, str], Row] = {}
    with exact():
        for row in by_hour:
            empty = {"rows": 0, "events": 0, "amount": Decimal(0)}
            total = found.setdefault(
                (row["kind"], row["currency"]), {"kind": row["kind"], "currency": row["currency"], **empty}
            )
            for name in empty:
                total[name] += row[name]
    return [found[key] for key in sorted(found)]


def _condition(wanted: Wanted) -> tuple[str, dict[str, Any]]:
    parts = [
        "status = 'sealed'",
        "line_kind IN {kinds:Array(String)}",
        "booked_hour >= {from:DateTime}",
        "booked_hour < {to:DateTime}",
    ]
    kinds = [wanted.kind] if wanted.kind else list(KINDS)
    values: dict[str, Any] = {"kinds": kinds, "from": wanted.begins, "to": wanted.ends}
    if wanted.customers is not None:
        parts.append("customer IN {customers:Array(String)}")
        values["customers"] = list(wanted.customers)
    for name in ("customer", "meter"):
        if value := getattr(wanted, name):
            parts.append(f"{name} = {{{name}:String}}")
            values[name] = value
    return " AND ".join(parts), values


def _add_documents(stores: Stores, rows: list[Row]) -> None:
    """Add `document` and `posting_state`: a document has the contract, currency, hour and period of its rows."""
    found = stores.rows(
        "SELECT key, customer, contract, currency, booked_hour, accounting_period, posting_state"
        " FROM @financial_documents_current WHERE kind = 'accrual' AND booked_hour IN {hours:Array(DateTime)}"
        " AND customer IN {customers:Array(String)}",
        {
            "hours": sorted({row["booked_hour"] for row in rows}),
            "customers": sorted({row["customer"] for row in rows}),
        },
    )
    names = ("customer", "contract", "currency", "booked_hour", "accounting_period")
    documents = {tuple(row[name] for name in names): row for row in found}
    for row in rows:
        document = documents.get(tuple(row[name] for name in names))
        row["document"] = document["key"] if document else ""
        row["posting_state"] = document["posting_state"] if document else ""
