"""What contracts come to in the end, written from the design in plain Python: no frames, no rows, no shared code.

It looks at all facts at once, asks which version of which contract each belongs to, adds them up per billing month
and prices the totals. It knows UTC months, plan versions by usage time, contracts that begin and end within a month
(prorated by days), matrices, additive, `max` and `latest` meters, and commitments per month. Times are minutes since
1970.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from typing import Any

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
PLACES = {"USD": 2, "JPY": 0, "KWD": 3}

Chain = tuple[str, int, str, str, int]
"""Contract, plan version, charge, price row, start of the month."""


@dataclass(frozen=True)
class Fact:
    meter: str
    dimensions: dict[str, str]
    usage_minute: int
    booked_minute: int
    value: Decimal


@dataclass
class World:
    """What is agreed with one customer. Raw configuration, as a person would read it."""

    versions: dict[str, list[dict[str, Any]]]
    """Per plan."""
    contracts: list[dict[str, Any]]
    months: list[int]
    """Starts of the months that are closed, ascending, and behind them the end of the last one."""
    currency: str = "USD"
    totals: dict[Chain, Fraction] = field(default_factory=dict)
    unrated: int = 0


def minutes(text: str) -> int:
    """Return the first whole minute at or after a time."""
    return -((EPOCH - datetime.fromisoformat(text)) // timedelta(minutes=1))


def q12(value: Fraction) -> Fraction:
    return Fraction(round(value * 10**12), 10**12)


def cents(value: Fraction, currency: str) -> Decimal:
    """Round half-up, away from zero."""
    exact = Decimal(value.numerator) / Decimal(value.denominator)
    return exact.quantize(Decimal(1).scaleb(-PLACES[currency]), rounding=ROUND_HALF_UP)


def price(charge: dict[str, Any], quantity: Fraction, share: Fraction) -> Fraction:
    """Return the final amount of a month."""
    model, total = charge["model"], Fraction(0)
    if model == "flat":
        total = Fraction(charge["amount"]) * share
    elif model == "per_unit":
        total = quantity * Fraction(charge["unit_amount"])
    elif model == "volume" and quantity > 0:
        tier = next(one for one in charge["tiers"] if one.get("up_to") is None or quantity <= Fraction(one["up_to"]))
        total = quantity * Fraction(tier["unit_amount"]) + Fraction(tier.get("flat_amount", 0))
    elif model == "graduated" and quantity > 0:
        lower = Fraction(0)
        for tier in charge["tiers"]:
            upper = quantity if tier.get("up_to") is None else min(quantity, Fraction(tier["up_to"]))
            if upper > lower or quantity <= 0:
                total += (upper - lower) * Fraction(tier["unit_amount"]) + Fraction(tier.get("flat_amount", 0))
                lower = upper
    elif quantity < 0:
        total = quantity * Fraction(charge["tiers"][0]["unit_amount"])
    elif quantity == 0 and charge.get("zero_usage") == "first_tier_flat":
        total = Fraction(charge["tiers"][0].get("flat_amount", 0))
    total *= 1 - Fraction(charge.get("discount_percent", 0)) / 100
    return max(total, Fraction(charge["minimum"]) * share) if charge.get("minimum") else total


def _charges(world: World, contract: dict[str, Any], number: int) -> list[dict[str, Any]]:
    """Return the charges of a version with the contract's overrides; a matrix as it stands."""
    overrides = {one["charge"]: one["set"] for one in contract.get("overrides", [])}
    raw = world.versions[contract["plan"]][number - 1]["charges"]
    return [charge | overrides.get(charge["id"], {}) for charge in raw]


def _in_force(world: World, contract: dict[str, Any], minute: int) -> int | None:
    """Return the version that holds for usage of that minute."""
    begins, ends = minutes(contract["from"]), contract.get("to")
    if minute < begins or (ends is not None and minute >= minutes(ends)):
        return None
    starts = [minutes(version["effective_from"]) for version in world.versions[contract["plan"]]]
    if contract.get("plan_version") != "latest":
        return max((number for number, start in enumerate(starts, 1) if start <= begins), default=1)
    known = [number for number, start in enumerate(starts, 1) if start <= minute]
    return max(known) if known else None


def _passes(conditions: dict[str, Any], dimensions: dict[str, str]) -> bool:
    return all(
        dimensions.get(name) in (values if isinstance(values, list) else [values])
        for name, values in conditions.items()
    )


def _rows(charge: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return (price row, charge) of everything that is priced on its own."""
    if charge["model"] != "matrix":
        return [("", charge)]
    shared = {name: charge[name] for name in ("discount_percent",) if name in charge}
    found = []
    for row in charge["rows"]:
        name = ",".join(f"{key}={value}" for key, value in row.get("when", {}).items()) or "default"
        found.append((name, {"model": "per_unit", "meter": charge["meter"]} | shared | row))
    return found


def settle(world: World, facts: list[Fact]) -> World:
    """Fill in what every charge comes to in every closed month."""
    series: dict[Chain, dict[Any, list[Fact]]] = defaultdict(lambda: defaultdict(list))
    priced: dict[Chain, dict[str, Any]] = {}
    for contract in world.contracts:
        for start, end in zip(world.months, world.months[1:], strict=False):
            versions = {_in_force(world, contract, minute) for minute in range(start, end, 30)} - {None}
            for number in versions:
                for charge in _charges(world, contract, int(number or 0)):
                    for row, one in _rows(charge):
                        priced[contract["id"], int(number or 0), charge["id"], row, start] = one
    for fact in facts:
        for chain in _taken(world, fact):
            key = tuple(sorted(fact.dimensions.items()))
            series[chain][key].append(fact)
    for chain, charge in priced.items():
        quantity = Fraction(0)
        for members in series[chain].values():
            quantity += _merged(charge["meter"], members)
        contract = next(one for one in world.contracts if one["id"] == chain[0])
        world.totals[chain] = q12(price(charge, quantity, _share(world, contract, chain)))
    return world


def _taken(world: World, fact: Fact) -> list[Chain]:
    start = max(month for month in world.months if month <= fact.usage_minute)
    found: list[Chain] = []
    for contract in world.contracts:
        number = _in_force(world, contract, fact.usage_minute)
        if number is None:
            continue
        for charge in _charges(world, contract, number):
            if charge.get("meter") != fact.meter or not _passes(charge.get("filter", {}), fact.dimensions):
                continue
            rows = [row for row, one in _rows(charge) if _passes(one.get("when", {}), fact.dimensions)]
            if not rows:
                return []  # a hole in a matrix: the usage waits as a whole
            found.append((contract["id"], number, charge["id"], rows[0], start))
    return found


def _merged(meter: str, members: list[Fact]) -> Fraction:
    if meter == "peak":
        return Fraction(max(fact.value for fact in members))
    if meter == "level":
        return Fraction(max(members, key=lambda fact: (fact.usage_minute, fact.booked_minute)).value)
    return sum((Fraction(fact.value) for fact in members), Fraction(0))


def _share(world: World, contract: dict[str, Any], chain: Chain) -> Fraction:
    """Return the share of the month's days whose last minute the version holds for."""
    start = chain[4]
    end = world.months[world.months.index(start) + 1]
    days = range(start, end, 1440)
    held = [day for day in days if _in_force(world, contract, day + 1439) == chain[1]]
    return Fraction(len(held), len(days))
