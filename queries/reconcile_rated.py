"""Rated rows against facts: sum of facts = sum of rated quantity + unrated, per charge and booked hour."""

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

import orjson

from config.revision import History, Revision
from operators.rate_terms import Terms, index_of
from operators.sums import ADDITIVE
from queries.pricing_of import Priced, charges_of
from queries.reconcile import Check, Span, parts
from queries.stores import EPOCH, Stores, of_hour

_CAUSE: Final = (
    "rated rows are missing: deleted, or the hour was not rated"
    "|rated_usage holds more than the facts behind it, or facts are missing"
)
_RATED: Final = ("customer", "contract", "plan", "plan_version", "charge", "meter", "booked_hour")
_UNRATED: Final = ("tenant", "meter", "booked_hour")
_NONE: Final = (0, Decimal(0))
_SPLIT_PER_QUERY: Final = 200
_MS_PER_HOUR: Final = 3_600_000
_COMPARED: Final = (*ADDITIVE, "unique_count", "weighted_sum")
"""Aggregations whose quantity is the sum of facts; others' is a difference of what merges."""

Totals = dict[tuple[Any, ...], tuple[int, Decimal]]
"""Events and quantity; the last part of a key is the booked hour since 1970."""


def checks(stores: Stores, span: Span) -> Iterator[Check]:
    """Yield the checks of rated and of unrated usage."""
    rated = Check("facts are rated", "usage_facts", "rated_usage")
    unrated = Check("what has no price is unrated", "usage_facts", "rated_usage")
    prices = _Prices(stores.history)
    for part in parts(stores, span):
        expected = _expected(stores, part, prices)
        usage = "status = 'sealed' AND line_kind IN ('usage', 'late_usage', 'void') AND meter != ''"
        _compare(rated, _RATED, expected.rated, _stored(stores, part, _RATED, usage), stores)
        _compare(unrated, _UNRATED, expected.unrated, _stored(stores, part, _UNRATED, "status = 'unrated'"), stores)
    yield rated
    yield unrated


def _stored(stores: Stores, span: Span, names: tuple[str, ...], condition: str) -> Totals:
    columns = ", ".join(names[:-1])
    text = (
        f"SELECT {columns}, intDiv(toUnixTimestamp(booked_hour), 3600) AS hour, sum(r.events), sum(r.quantity)"  # noqa: S608
        f" FROM @rated_usage_current AS r WHERE {condition}"
        " AND booked_hour >= {from:DateTime} AND booked_hour < {to:DateTime} GROUP BY ALL"
    )
    blocks = stores.client.blocks(stores.resolved(text), span.parameters)
    return {tuple(row[:-2]): (int(row[-2]), row[-1]) for block in blocks for row in block}


def _compare(check: Check, names: tuple[str, ...], expected: Totals, stored: Totals, stores: Stores) -> None:
    meters = stores.history.meters
    place = names.index("meter")
    for key in sorted(expected.keys() | stored.keys()):
        (events, quantity), (events_stored, quantity_stored) = expected.get(key, _NONE), stored.get(key, _NONE)
        meter = meters.get(key[place])
        compares = meter is not None and meter.aggregation in _COMPARED
        if events == events_stored and (not compares or quantity == quantity_stored):
            check.groups += 1 + compares
            continue
        where = dict(zip(names, (*key[:-1], of_hour(key[-1])), strict=True))
        check.compare(where | {"compared": "events"}, events, events_stored, _CAUSE)
        # The quantity of a maximum or a level is a difference of what merges, which facts of an hour do not show.
        if compares:
            check.compare(where | {"compared": "quantity"}, quantity, quantity_stored, _CAUSE)


_FROM_FACTS: Final = (
    " intDiv(toUnixTimestamp(booked_minute), 3600) AS booked, sum(f.events) AS n, sum(f.value) AS q"
    " FROM @usage_facts AS f FINAL WHERE sealed = 1 AND meter IN {meters:Array(String)}"
    " AND booked_minute >= {from:DateTime} AND booked_minute < {to:DateTime}"
)
_BY_HOUR: Final = (
    f"SELECT tenant, meter, series, intDiv(toUnixTimestamp(usage_minute), 3600) AS used,{_FROM_FACTS} GROUP BY ALL"
)
_BY_MINUTE: Final = (
    f"SELECT tenant, meter, series, intDiv(toUnixTimestamp(usage_minute), 60) AS used,{_FROM_FACTS}"
    " AND (tenant, intDiv(toUnixTimestamp(usage_minute), 3600)) IN {split:Array(Tuple(String, UInt32))} GROUP BY ALL"
)


class _Prices:
    """Which charges take a series, remembered: most hours of a tenant are under the same terms as the hour before."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.meters = sorted({name for revision in history.revisions for name in index_of(revision).priced_meters})
        self._terms: dict[tuple[int, str, int], tuple[Terms, ...] | None] = {}
        self._matches: dict[tuple[int, str, str], tuple[tuple[Terms, str], ...]] = {}
        self._kept: list[Any] = []
        self._split: dict[tuple[str, int], bool] = {}

    def forget(self) -> None:
        """Begin anew, so that a long span needs no more memory than a part of it."""
        self._terms.clear()
        self._split.clear()
        self._matches.clear()
        self._kept.clear()

    def is_split(self, tenant: str, hour: int) -> bool:
        """Tell whether the tenant's terms change inside that hour, under any revision."""
        key = (tenant, hour)
        found = self._split.get(key)
        if found is None:
            found = any(self._of_hour(revision, tenant, hour) is None for revision in self.history.revisions)
            self._split[key] = found
        return found

    def _of_hour(self, revision: Revision, tenant: str, hour: int) -> tuple[Terms, ...] | None:
        key = (revision.known_from_ms, tenant, hour)
        if key not in self._terms:
            segments = index_of(revision).segments(tenant, hour)
            self._terms[key] = segments[0].terms if len(segments) == 1 else None
        return self._terms[key]

    def of_hour(
        self, tenant: str, meter: str, series: str, used: int, booked: int
    ) -> tuple[int, tuple[tuple[Terms, str], ...]]:
        """Return the hour in which usage of an hour that is not split is rated, and by which terms and charges."""
        first = self.history.at(booked * _MS_PER_HOUR).known_from_ms
        for revision in self.history.revisions:
            if revision.known_from_ms >= first:
                terms = self._of_hour(revision, tenant, used)
                found = self._matching(terms, meter, series) if terms else ()
                if found:
                    return max(booked, revision.known_from_ms // _MS_PER_HOUR), found
        return booked, ()

    def _matching(self, all_terms: tuple[Terms, ...], meter: str, series: str) -> tuple[tuple[Terms, str], ...]:
        key = (id(all_terms), meter, series)
        found = self._matches.get(key)
        if found is None:
            self._kept.append(all_terms)  # its id must stay its own
            dimensions = orjson.loads(series)
            found = self._matches[key] = tuple(
                (terms, terms.pricing.prices[place][0].id)
                for terms in all_terms
                for place in terms.pricing.matching(meter, dimensions) or ()
            )
        return found


def _expected(stores: Stores, span: Span, prices: _Prices) -> "_Expectation":
    """Return events and quantity per charge and booked hour, and of what no charge takes.

    Facts are read by the hour. Hours of a tenant in which terms change, which are few, are read by the minute.
    """
    expectation = _Expectation(prices, span)
    prices.forget()
    parameters: dict[str, Any] = dict(span.parameters) | {"meters": prices.meters}
    if any(span.begins <= _known_hour(revision) < span.ends for revision in stores.history.revisions[1:]):
        parameters["from"] = EPOCH  # what had no price until then is rated in the revision's first hour
    split: set[tuple[str, int]] = set()
    for block in stores.client.blocks(stores.resolved(_BY_HOUR), parameters):
        for row in block:
            if prices.is_split(row[0], row[3]):
                split.add((row[0], row[3]))
            else:
                expectation.take_hour(row)
    listed = sorted(split)
    for start in range(0, len(listed), _SPLIT_PER_QUERY):
        some = parameters | {"split": listed[start : start + _SPLIT_PER_QUERY]}
        for block in stores.client.blocks(stores.resolved(_BY_MINUTE), some):
            for row in block:
                expectation.take_minute(row)
    return expectation


def _known_hour(revision: Revision) -> Any:
    return EPOCH + timedelta(hours=revision.known_from_ms // _MS_PER_HOUR)


class _Expectation:
    """Adds up what rating must have made of the facts, in the hours of a span."""

    def __init__(self, prices: _Prices, span: Span) -> None:
        self.rated: Totals = {}
        self.unrated: Totals = {}
        self._prices = prices
        hour = timedelta(hours=1)
        self._first, self._end = (span.begins - EPOCH) // hour, (span.ends - EPOCH) // hour

    def take_hour(self, row: Any) -> None:
        """Take facts of one series, usage hour and booked hour."""
        tenant, meter, series, used, booked, events, quantity = row
        hour, found = self._prices.of_hour(tenant, meter, series, used, booked)
        self._take(tenant, meter, booked, hour, found, (int(events), quantity))

    def take_minute(self, row: Any) -> None:
        """Take facts of one series, usage minute and booked hour."""
        tenant, meter, series, used, booked, events, quantity = row
        priced: list[Priced] = charges_of(self._prices.history, tenant, meter, orjson.loads(series), used, booked * 60)
        found = tuple((one.terms, one.charge.id) for one in priced)
        hour = priced[0].booked_hour if priced else booked
        self._take(tenant, meter, booked, hour, found, (int(events), quantity))

    def _take(
        self,
        tenant: str,
        meter: str,
        booked: int,
        hour: int,
        found: tuple[tuple[Terms, str], ...],
        amount: tuple[int, Decimal],
    ) -> None:
        if not found and meter not in index_of(self._prices.history.at(booked * _MS_PER_HOUR)).priced_meters:
            return
        if not found or hour > booked:
            self._add(self.unrated, (tenant, meter, booked), amount)
        if found and hour > booked:
            self._add(self.unrated, (tenant, meter, hour), (-amount[0], -amount[1]))
        for terms, charge in found:
            key = (terms.customer, terms.contract.id, terms.plan, terms.plan_version, charge, meter, hour)
            self._add(self.rated, key, amount)

    def _add(self, totals: Totals, key: tuple[Any, ...], amount: tuple[int, Decimal]) -> None:
        if self._first <= key[-1] < self._end:
            events, quantity = totals.get(key, _NONE)
            totals[key] = (events + amount[0], quantity + amount[1])
