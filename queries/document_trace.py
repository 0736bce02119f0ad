"""From a document back to its events: entries, rated rows, facts, events (design 2.7, the way back).

What a level holds is looked up by key and compared with the level above, so that a document that does not tie with
its rows, or rows that do not tie with their facts, shows here and not in an audit.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from core.frames import USAGE_KINDS
from core.quantities import exactly
from operators.posting_rules import RECOGNITION
from operators.rate_chains import PRICE_CHANGE
from queries.corrected import correction_of
from queries.document_state import posting_of
from queries.pricing_of import charges_of
from queries.stores import Row, Stores, minute_of, of_hour
from sinks.ledger import documents

ADDITIVE: Final = ("count", "sum", "unique_count", "weighted_sum")
_ENTRY_FIELDS: Final = (
    "kind",
    "plan",
    "plan_version",
    "charge",
    "price_row",
    "meter",
    "period_start",
    "service_from",
    "service_to",
    "original_period",
    "unit",
    "quantity",
    "events",
    "amount_exact",
    "cumulative_before",
    "cumulative_after",
)
_RATED_COLUMNS: Final = (
    "plan, plan_version, charge, price_row, meter, period_start, usage_hour, booked_hour, accounting_period,"
    " original_period, line_kind, quantity, events, amount, amount_before, amount_after, currency, status"
)


@dataclass(slots=True)
class ChargeTrace:
    """All that one charge brought to the document: entries (a debit and a credit line each), rated rows, facts.

    Voids of an hour are rated in lines of their own but are part of the same facts, so levels tie per charge.
    """

    name: tuple[Any, ...]
    entries: list[Row]
    rated: list[Row]
    facts: list[Row]
    additive: bool

    @property
    @exactly
    def amounts_tie(self) -> bool:
        """Tell whether the entries' exact amounts are those of the rated rows.

        What moves revenue in time stands beside the amounts and is no part of them.
        """
        charged = [entry for entry in self.entries if entry["kind"] != RECOGNITION]
        entries = sum((Decimal(entry["amount_exact"]) for entry in charged), Decimal(0))
        return entries == sum((row["amount"] for row in self.rated), Decimal(0))

    @property
    @exactly
    def quantities_tie(self) -> bool | None:
        """Tell whether the rated quantity is the sum of the facts; None where facts do not add up by nature."""
        if not self.additive:
            return None
        return self.quantity == sum((fact["value"] for fact in self.facts), Decimal(0))

    @property
    @exactly
    def quantity(self) -> Decimal:
        """Return the rated quantity."""
        return sum((row["quantity"] for row in self.rated), Decimal(0))


@dataclass(slots=True)
class DocumentTrace:
    """A document, what became of it, and what each charge in it is made of."""

    document: Row
    state: str
    posting: Row | None
    charges: list[ChargeTrace] = field(default_factory=list)
    correction: Row | None = None
    """The approved price correction behind it: who approved it, why, and which documents it corrects."""


def trace_document(stores: Stores, key: str) -> DocumentTrace | None:
    """Return the document with that key and what is behind it, or None if the ledger has no such document."""
    document = documents.load(stores.engine, key)
    if document is None:
        return None
    became = posting_of(stores, key)
    trace = DocumentTrace(
        {name: value for name, value in document.items() if name != "lines"}, became["state"], became["posting"]
    )
    if document["kind"] in documents.ACT_KINDS:
        return trace  # it follows from other documents: `reverses` or `billing_period` says from which
    rated: dict[tuple[Any, ...], list[Row]] = {}
    for row in _rated(stores, document):
        rated.setdefault(_name(row), []).append(row)
    entries: dict[tuple[Any, ...], list[Row]] = {}
    for entry in _entries(document["lines"]):
        entries.setdefault(_name(entry), []).append(entry)
    for name in sorted({*rated, *entries}, key=str):
        own, rows = entries.get(name, []), rated.get(name, [])
        facts, additive = _facts(stores, document, name, rows)
        trace.charges.append(ChargeTrace(name, own, rows, facts, additive))
    if document.get("approval"):
        chains = {name for name, rows in rated.items() if any(row["line_kind"] == PRICE_CHANGE for row in rows)}
        trace.correction = correction_of(stores, document, chains)
    return trace


def _name(row: Row) -> tuple[Any, ...]:
    """Return what tells charges of a document apart: plan, version, charge, price row, meter, period start."""
    start = row["period_start"]
    start = datetime.fromisoformat(start) if isinstance(start, str) else start
    return row["plan"], row["plan_version"], row["charge"], row["price_row"], row["meter"], start


def _entries(lines: list[Row]) -> Iterator[Row]:
    """Yield each entry once: both its lines carry the same quantity and amounts."""
    seen = set()
    for line in lines:
        entry = {name: line.get(name) for name in _ENTRY_FIELDS}
        identity = tuple(map(str, entry.values()))
        if identity not in seen:
            seen.add(identity)
            yield entry


def _rated(stores: Stores, document: Row) -> list[Row]:
    return stores.rows(
        f"SELECT {_RATED_COLUMNS} FROM @rated_usage_current"  # noqa: S608
        " WHERE customer = {customer:String} AND contract = {contract:String} AND currency = {currency:String}"
        " AND booked_hour = {booked:DateTime} AND accounting_period = {period:String} AND status = 'sealed'"
        " ORDER BY charge, usage_hour, line_kind",
        {
            "customer": document["customer"],
            "contract": document["contract"],
            "currency": document["currency"],
            "booked": of_hour(document["booked_hour"]),
            "period": document["accounting_period"],
        },
    )


def _facts(stores: Stores, document: Row, name: tuple[Any, ...], rated: list[Row]) -> tuple[list[Row], bool]:
    """Return the sealed facts that the rated rows were made of, and whether their values add up."""
    charge, price_row, meter = name[2:5]
    hours = sorted({row["usage_hour"] for row in rated if row["line_kind"] in USAGE_KINDS})
    if not meter or not hours:
        return [], False
    booked_hour = of_hour(document["booked_hour"])
    number = minute_of(booked_hour) // 60
    revision = stores.history.at(number * 3_600_000)
    customer = revision.customers.get(document["customer"])
    subjects = [] if customer is None else sorted({subject.id for subject in customer.subjects})
    rows = stores.rows(
        "SELECT tenant, dimensions, usage_minute, booked_minute, value, events FROM @usage_facts_current"
        " WHERE tenant IN {tenants:Array(String)} AND meter = {meter:String} AND sealed = 1"
        # Nothing is booked before it is used: with both ends this is a range of the table's key.
        " AND booked_minute >= {first:DateTime} AND booked_minute < {end:DateTime} + INTERVAL 1 HOUR"
        " AND toStartOfHour(usage_minute) IN {hours:Array(DateTime)}"
        " ORDER BY usage_minute, tenant, booked_minute",
        {"tenants": subjects, "meter": meter, "first": hours[0], "end": booked_hour, "hours": hours},
    )
    known: dict[tuple[Any, ...], bool] = {}
    kept = []
    for row in rows:
        usage, booked = minute_of(row["usage_minute"]), minute_of(row["booked_minute"])
        identity = (row["tenant"], tuple(row["dimensions"].items()), usage, booked // 60)
        if identity not in known:
            priced = charges_of(stores.history, row["tenant"], meter, row["dimensions"], usage, booked)
            known[identity] = any(
                each.booked_hour == number
                and each.terms.contract.id == document["contract"]
                and (each.charge.id, each.price_row) == (charge, price_row)
                for each in priced
            )
        if known[identity]:
            kept.append(row)
    known_meter = revision.meters.get(meter)
    return kept, known_meter is not None and known_meter.aggregation in ADDITIVE
