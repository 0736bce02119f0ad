"""From resolved facts to what touches each chain in a booked hour, and which accounting period it lands in."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import Final

import polars as pl

from config.entities import Entity
from config.period_closes import NONE_RECORDED, PeriodCloses
from config.periods import AccountingPeriod, accounting_period
from config.revision import Revision
from operators.rate_chains import ChainKey, Merge, SeriesValue, Touch, key_of
from operators.rate_resolve import Resolved
from operators.rate_terms import EPOCH, Terms, moment
from operators.rating.schema import Simple

US_PER_HOUR: Final = 3_600_000_000

_MERGES: Final = {"max": "max", "min": "min", "latest": "latest"}


def merging_meters(revision: Revision) -> list[str]:
    """Return the meters whose values do not add up over facts: the largest, smallest or latest counts."""
    return [meter.id for meter in revision.configuration.meters if meter.aggregation in _MERGES]


def merge_of(revision: Revision, meter: str) -> Merge:
    """Return how the meter's values come together over a period; counts and sums add up."""
    found = revision.meters.get(meter)
    return "sum" if found is None else _MERGES.get(found.aggregation, "sum")


def booking_period(
    entity: Entity, fiscal: AccountingPeriod, booked_hour: int, closes: PeriodCloses = NONE_RECORDED
) -> str:
    """Return the usage's own fiscal month if it is open at the booked hour, else the first open one after it.

    It is closed by its cut-off, or by a recorded close known at that hour; a recorded reopen opens it.
    """
    return closes.first_open(entity, fiscal, moment(booked_hour * 60)).name


@dataclass(frozen=True, slots=True)
class BookedAt:
    """The booked hour that is rated, and the period closes known in it."""

    hour: int
    closes: PeriodCloses = NONE_RECORDED

    def place(self, entity: Entity, time_us: int) -> tuple[int, str, str]:
        """Return usage hour, accounting period and own fiscal month of an item that is due up to that time."""
        last_us = time_us - 1
        fiscal = accounting_period(entity, EPOCH + timedelta(microseconds=last_us))
        return last_us // US_PER_HOUR, booking_period(entity, fiscal, self.hour, self.closes), fiscal.name


@dataclass(slots=True)
class Touched:
    """One chain's usage in a booked hour, by (usage hour, accounting period, kind)."""

    terms: Terms
    charge: Simple
    merge: Merge
    by_place: dict[tuple[int, str, int], Touch] = field(default_factory=dict)

    def add(self, touch: Touch) -> None:
        """Add usage; what has the same place becomes one touch, since it has one row."""
        place = (touch.usage_hour, touch.accounting_period, touch.kind)
        known = self.by_place.get(place)
        if known is not None:
            touch = touch._replace(
                original_period=min(known.original_period, touch.original_period),
                quantity=known.quantity + touch.quantity,
                events=known.events + touch.events,
                version=known.version + touch.version,
                series=(*known.series, *touch.series),
            )
        self.by_place[place] = touch

    def in_order(self) -> list[Touch]:
        """Return the touches, oldest usage hour first, and by kind within one."""
        return [self.by_place[place] for place in sorted(self.by_place)]


def touched(
    resolved: Resolved, revision: Revision, owner: int, booked_hour: int, closes: PeriodCloses = NONE_RECORDED
) -> list[tuple[ChainKey, Touched]]:
    """Return the chains this shard owns that the facts touch, in order of their keys."""
    found: dict[ChainKey, Touched] = {}
    keys: dict[tuple[int, int], Touched] = {}
    periods: dict[int, str] = {}
    for place, charge_place, usage_hour, kind, quantity, events, version, series in _groups(resolved, revision, owner):
        terms = resolved.terms[place]
        target = keys.get((place, charge_place))
        if target is None:
            price = terms.pricing.prices[charge_place]
            merge = merge_of(revision, price.charge.meter)
            target = found.setdefault(key_of(terms, price), Touched(terms, price.charge, merge))
            keys[place, charge_place] = target
        accounting = periods.get(place)
        if accounting is None:
            accounting = periods[place] = booking_period(terms.entity, terms.fiscal, booked_hour, closes)
        target.add(Touch(usage_hour, accounting, terms.fiscal.name, kind, quantity, events, version, series))
    return sorted(found.items(), key=lambda item: item[0])


_Group = tuple[int, int, int, int, Decimal, int, int, tuple[SeriesValue, ...]]


def _groups(resolved: Resolved, revision: Revision, owner: int) -> Iterator[_Group]:
    priced = resolved.priced.filter(pl.col("owner") == owner)
    merging = merging_meters(revision)
    by = ["terms", "charge", "usage_hour", "kind"]
    sums = [pl.col("value").sum(), pl.col("events").sum(), pl.col("version").sum()]
    additive = priced.filter(~pl.col("meter").is_in(merging)) if merging else priced
    for row in additive.group_by(by).agg(sums).iter_rows():
        yield (*row, ())
    if not merging:
        return
    rest = priced.filter(pl.col("meter").is_in(merging))
    columns = [*by, "value", "events", "version", "tenant", "dimensions", "value_time_us", "booked_minute"]
    for row in rest.select(columns).sort(columns).iter_rows():
        series = SeriesValue(f"{row[7]}\x1f{row[8]}", row[4], row[9], row[10])
        yield (*row[:4], Decimal(0), row[5], row[6], (series,))
