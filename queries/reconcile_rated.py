"""Rated rows against facts: sum of facts = sum of rated quantity + unrated, per charge and booked hour."""

from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from operators.rate_terms import index_of
from operators.sums import ADDITIVE
from queries.pricing_of import Priced, charges_of
from queries.reconcile import Check, Span
from queries.stores import EPOCH, Row, Stores, minute_of, of_hour

_CAUSE: Final = (
    "rated rows are missing: deleted, or the hour was not rated"
    "|rated_usage holds more than the facts behind it, or facts are missing"
)
_RATED: Final = ("customer", "contract", "plan", "plan_version", "charge", "meter", "booked_hour")
_UNRATED: Final = ("tenant", "meter", "booked_hour")
_NONE: Final = (0, Decimal(0))
_SPLIT_PER_QUERY: Final = 200

Totals = dict[tuple[Any, ...], tuple[int, Decimal]]


def checks(stores: Stores, span: Span) -> Iterator[Check]:
    """Yield the checks of rated and of unrated usage."""
    rated, unrated = _expected(stores, span)
    columns = ", ".join(_RATED)
    yield _compare(
        "facts are rated",
        _RATED,
        rated,
        stores.rows(
            f"SELECT {columns}, sum(r.events) AS n, sum(r.quantity) AS q FROM @rated_usage_current AS r"  # noqa: S608
            " WHERE status = 'sealed' AND line_kind IN ('usage', 'late_usage', 'void') AND meter != ''"
            " AND booked_hour >= {from:DateTime} AND booked_hour < {to:DateTime} GROUP BY ALL",
            span.parameters,
        ),
        stores,
    )
    columns = ", ".join(_UNRATED)
    yield _compare(
        "what has no price is unrated",
        _UNRATED,
        unrated,
        stores.rows(
            f"SELECT {columns}, sum(r.events) AS n, sum(r.quantity) AS q FROM @rated_usage_current AS r"  # noqa: S608
            " WHERE status = 'unrated' AND booked_hour >= {from:DateTime} AND booked_hour < {to:DateTime} GROUP BY ALL",
            span.parameters,
        ),
        stores,
    )


def _compare(name: str, names: tuple[str, ...], expected: Totals, rows: list[Row], stores: Stores) -> Check:
    check = Check(name, "usage_facts", "rated_usage")
    stored = {tuple(row[column] for column in names): (int(row["n"]), row["q"]) for row in rows}
    meters = stores.history.latest.meters
    for key in sorted(expected.keys() | stored.keys(), key=str):
        where = dict(zip(names, key, strict=True))
        (events, quantity), (events_stored, quantity_stored) = expected.get(key, _NONE), stored.get(key, _NONE)
        check.compare(where | {"compared": "events"}, events, events_stored, _CAUSE)
        meter = meters.get(where["meter"])
        # The quantity of a maximum or a level is a difference of what merges, which facts of an hour do not show.
        if meter is not None and meter.aggregation in (*ADDITIVE, "unique_count", "weighted_sum"):
            check.compare(where | {"compared": "quantity"}, quantity, quantity_stored, _CAUSE)
    return check


_BY_HOUR: Final = (
    "SELECT tenant, meter, dimensions, toStartOfHour(usage_minute) AS used, toStartOfHour(booked_minute) AS booked,"
    " sum(f.events) AS n, sum(f.value) AS q FROM @usage_facts_current AS f WHERE sealed = 1"
    " AND booked_minute >= {from:DateTime} AND booked_minute < {to:DateTime} GROUP BY ALL"
)
_BY_MINUTE: Final = (
    "SELECT tenant, meter, dimensions, usage_minute AS used, toStartOfHour(booked_minute) AS booked,"
    " sum(f.events) AS n, sum(f.value) AS q FROM @usage_facts_current AS f WHERE sealed = 1"
    " AND booked_minute >= {from:DateTime} AND booked_minute < {to:DateTime}"
    " AND (tenant, toStartOfHour(usage_minute)) IN {split:Array(Tuple(String, DateTime))} GROUP BY ALL"
)


def _expected(stores: Stores, span: Span) -> tuple[Totals, Totals]:
    """Return events and quantity per charge and booked hour, and of what no charge takes.

    Facts are read by the hour. Hours of a tenant in which terms change, which are few, are read by the minute.
    """
    expectation = _Expectation(stores)
    # A later revision may price what was booked before the span, so then all that is booked is looked at.
    parameters = span.parameters | ({"from": EPOCH} if len(stores.history.revisions) > 1 else {})
    for block in stores.client.blocks(stores.resolved(_BY_HOUR), parameters):
        for row in block:
            if expectation.is_split(row[0], row[3]):
                expectation.split.add((row[0], row[3]))
            else:
                expectation.take(row)
    if expectation.split:
        split = sorted(expectation.split)
        for start in range(0, len(split), _SPLIT_PER_QUERY):
            part = parameters | {"split": split[start : start + _SPLIT_PER_QUERY]}
            for block in stores.client.blocks(stores.resolved(_BY_MINUTE), part):
                for row in block:
                    expectation.take(row)
    within = (span.begins, span.ends)
    return _cut(expectation.rated, within), _cut(expectation.unrated, within)


class _Expectation:
    """Adds up what rating must have made of the facts."""

    def __init__(self, stores: Stores) -> None:
        self.rated: Totals = {}
        self.unrated: Totals = {}
        self.split: set[tuple[str, datetime]] = set()
        self._history = stores.history
        self._known: dict[tuple[Any, ...], list[Priced]] = {}
        self._is_split: dict[tuple[str, datetime], bool] = {}

    def is_split(self, tenant: str, hour: datetime) -> bool:
        """Tell whether the tenant's terms change inside that hour, under any revision."""
        key = (tenant, hour)
        if key not in self._is_split:
            number = minute_of(hour) // 60
            self._is_split[key] = any(
                len(index_of(revision).segments(tenant, number)) > 1 for revision in self._history.revisions
            )
        return self._is_split[key]

    def take(self, row: Any) -> None:
        """Take facts of one series, usage time and booked hour."""
        tenant, meter, dimensions, used, booked, events, quantity = row
        booked_minute = minute_of(booked)
        identity = (tenant, meter, tuple(dimensions.items()), used, booked)
        found = self._known.get(identity)
        if found is None:
            found = charges_of(self._history, tenant, meter, dimensions, minute_of(used), booked_minute)
            self._known[identity] = found
        at_hour = self._history.at(booked_minute * 60_000)
        if found or meter in index_of(at_hour).priced_meters:
            _spread(self.rated, self.unrated, (tenant, meter, booked), found, (int(events), quantity))


def _spread(
    rated: Totals,
    unrated: Totals,
    where: tuple[str, str, datetime],
    found: list[Priced],
    amount: tuple[int, Decimal],
) -> None:
    tenant, meter, booked = where
    hour = of_hour(found[0].booked_hour) if found else None
    if hour is None or hour > booked:
        _add(unrated, (tenant, meter, booked), amount)
    if hour is not None and hour > booked:
        _add(unrated, (tenant, meter, hour), (-amount[0], -amount[1]))
    for each in found:
        terms = each.terms
        key = (terms.customer, terms.contract.id, terms.plan, terms.plan_version, each.charge.id, meter, hour)
        _add(rated, key, amount)


def _add(totals: Totals, key: tuple[Any, ...], amount: tuple[int, Decimal]) -> None:
    events, quantity = totals.get(key, _NONE)
    totals[key] = (events + amount[0], quantity + amount[1])


def _cut(totals: Totals, within: tuple[datetime, datetime]) -> Totals:
    return {key: value for key, value in totals.items() if within[0] <= key[-1] < within[1] and value != _NONE}
