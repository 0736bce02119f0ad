"""Which charges price which facts: the columnar part of rating.

Facts are joined with the terms of their subject and usage hour, and with the charges that match their meter and
dimensions. Python runs per distinct (subject, hour) and per distinct (price list, meter, dimensions) only.
"""

from dataclasses import dataclass
from typing import Final

import orjson
import polars as pl

from core.frames import QUANTITY, Schema
from operators.rate_prices import Pricing
from operators.rate_terms import Terms, TermsIndex, shard_of

USAGE, LATE, VOID = 0, 1, 2
"""Kinds of a slice of usage, in the order in which they are rated within a usage hour."""

SLICE_SCHEMA: Final[Schema] = {
    "tenant": pl.String,
    "meter": pl.String,
    "dimensions": pl.String,
    "usage_minute": pl.Int64,
    "booked_minute": pl.Int64,
    "kind": pl.UInt8,
    "value": QUANTITY,
    "value_time_us": pl.Int64,
    "events": pl.Int64,
    "version": pl.UInt64,
}
"""Facts as rating keeps them: with their kind, without `sealed`."""


def slices(facts: pl.DataFrame) -> pl.DataFrame:
    """Return facts (FACT_SCHEMA) as SLICE_SCHEMA.

    A fact takes back usage (VOID) if it stands for less than no events, or for no event and a negative value:
    more was voided than came in at its minutes. Not so without any input (version 0): then a change of a level in
    another hour corrects a held one. It is LATE if it was booked after its usage hour.
    """
    nothing = (pl.col("events") == 0) & (pl.col("version") > 0)
    voided = (pl.col("events") < 0) | (nothing & (pl.col("value") < 0))
    late = pl.col("usage_minute") // 60 < pl.col("booked_minute") // 60
    kind = pl.when(voided).then(VOID).when(late).then(LATE).otherwise(USAGE).cast(pl.UInt8)
    return facts.with_columns(kind.alias("kind")).select(list(SLICE_SCHEMA))


@dataclass(frozen=True, slots=True)
class Resolved:
    """Facts with their charges. `priced` has one row per fact and charge that prices it."""

    priced: pl.DataFrame
    """SLICE_SCHEMA and: usage_hour, customer, owner (shard), terms (place in `terms`), charge (place), begins.

    `begins` is the first minute of the usage hour from which on these terms hold.
    """
    unpriced: pl.DataFrame
    """SLICE_SCHEMA and: usage_hour, customer ("" if the subject has none), begins."""
    terms: list[Terms]


def resolve(frame: pl.DataFrame, index: TermsIndex, shards: int) -> Resolved:
    """Find terms and charges of slices; meters that no plan prices are left out."""
    frame = frame.filter(pl.col("meter").is_in(list(index.priced_meters)))
    frame = frame.with_columns((pl.col("usage_minute") // 60).alias("usage_hour"))
    segments, sets = _segments(frame, index, shards)
    frame = frame.join(segments, on=["tenant", "usage_hour"], how="inner")
    frame = frame.filter(pl.col("usage_minute").is_between(pl.col("begins"), pl.col("ends"), closed="left"))
    frame = frame.drop("ends")
    prices = _prices(frame, sets)
    priced = frame.join(prices, on=["set", "meter", "dimensions"], how="inner")
    unpriced = frame.join(prices, on=["set", "meter", "dimensions"], how="anti").drop("set", "owner")
    members, terms = _members(sets)
    return Resolved(priced.join(members, on=["set", "member"], how="inner"), unpriced, terms)


def _segments(frame: pl.DataFrame, index: TermsIndex, shards: int) -> tuple[pl.DataFrame, list[tuple[Terms, ...]]]:
    rows: list[tuple[str, int, int, int, str, int, int]] = []
    places: dict[int, int] = {}
    sets: list[tuple[Terms, ...]] = []
    owners: dict[str, int] = {}
    for tenant, hour in frame.select("tenant", "usage_hour").unique().iter_rows():
        for segment in index.segments(tenant, hour):
            place = places.get(id(segment.terms))
            if place is None:
                place = places[id(segment.terms)] = len(sets)
                sets.append(segment.terms)
            owner = owners.get(segment.customer)
            if owner is None:
                owner = owners[segment.customer] = shard_of(segment.customer, shards)
            rows.append((tenant, hour, segment.begins, segment.ends, segment.customer, owner, place))
    schema = {
        "tenant": pl.String,
        "usage_hour": pl.Int64,
        "begins": pl.Int64,
        "ends": pl.Int64,
        "customer": pl.String,
        "owner": pl.Int64,
        "set": pl.Int64,
    }
    return pl.DataFrame(rows, schema=schema, orient="row"), sets


def _prices(frame: pl.DataFrame, sets: list[tuple[Terms, ...]]) -> pl.DataFrame:
    """Return which charges match: set, meter, dimensions, member (place in the set), charge."""
    lists: dict[tuple[int, ...], int] = {}
    pricings: list[tuple[Pricing, ...]] = []
    list_of_set: list[int] = []
    for members in sets:
        key = tuple(id(terms.pricing) for terms in members)
        if key not in lists:
            lists[key] = len(pricings)
            pricings.append(tuple(terms.pricing for terms in members))
        list_of_set.append(lists[key])
    by_set = pl.DataFrame({"set": range(len(sets)), "list": list_of_set}, schema={"set": pl.Int64, "list": pl.Int64})
    wanted = frame.select("set", "meter", "dimensions").unique().join(by_set, on="set")
    rows: list[tuple[int, str, str, int, int]] = []
    for place, meter, text in wanted.select("list", "meter", "dimensions").unique().iter_rows():
        rows.extend((place, meter, text, *found) for found in _matching(pricings[place], meter, orjson.loads(text)))
    schema = {
        "list": pl.Int64,
        "meter": pl.String,
        "dimensions": pl.String,
        "member": pl.Int64,
        "charge": pl.Int64,
    }
    matches = pl.DataFrame(rows, schema=schema, orient="row")
    return wanted.join(matches, on=["list", "meter", "dimensions"]).drop("list")


def _matching(pricings: tuple[Pricing, ...], meter: str, dimensions: dict[str, str]) -> list[tuple[int, int]]:
    """Return (member, place of the price); nothing at all where one of them has a hole: usage is not rated in part."""
    found: list[tuple[int, int]] = []
    for member, pricing in enumerate(pricings):
        places = pricing.matching(meter, dimensions)
        if places is None:
            return []
        found.extend((member, place) for place in places)
    return found


def _members(sets: list[tuple[Terms, ...]]) -> tuple[pl.DataFrame, list[Terms]]:
    places: dict[int, int] = {}
    terms: list[Terms] = []
    rows = []
    for number, members in enumerate(sets):
        for member, each in enumerate(members):
            if id(each) not in places:
                places[id(each)] = len(terms)
                terms.append(each)
            rows.append((number, member, places[id(each)]))
    schema = {"set": pl.Int64, "member": pl.Int64, "terms": pl.Int64}
    return pl.DataFrame(rows, schema=schema, orient="row"), terms
