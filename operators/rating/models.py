"""The arithmetic of each charge model.

It works on exact numbers of one kind: Decimal, or Fraction where a division does not end. `number` turns a
configured decimal into that kind.

Below zero (net negative usage of a meter that allows it): the linear models go on below zero, tiers price at
the first tier's unit amount without its flat amount, and packages, free parts and allowances have nothing to
count. So every model is total, and a credit is never lost nor a flat fee paid back that was not due.
"""

from collections.abc import Callable, Iterable
from decimal import Decimal
from fractions import Fraction
from math import ceil, floor
from typing import Any

from operators.rating.schema import (
    Flat,
    Graduated,
    GraduatedPercentage,
    Package,
    Percentage,
    PerUnit,
    Simple,
    Volume,
)

Exact = Any
"""A Decimal or a Fraction; one calculation never mixes them."""
ToExact = Callable[[Any], Exact]
"""Takes a decimal or a whole number; where the exact numbers are fractions, a fraction too."""

HUNDREDTH = Decimal("0.01")


def of_total(
    charge: Simple, quantity: Exact, events: int, *, zero_fee: bool, share: Fraction, number: ToExact
) -> Exact:
    """Return the model's amount for the rated quantity. `share` prorates a flat amount."""
    if isinstance(charge, Graduated):
        return _graduated(charge, quantity, zero_fee, number)
    if isinstance(charge, PerUnit):
        return quantity * number(charge.unit_amount)
    if isinstance(charge, Volume):
        return _volume(charge, quantity, zero_fee, number)
    if isinstance(charge, Package):
        return _package(charge, quantity, number)
    if isinstance(charge, Percentage):
        return _percentage(charge, quantity, events, number)
    if isinstance(charge, GraduatedPercentage):
        return _graduated_percentage(charge, quantity, zero_fee, number)
    return _flat(charge, share, number)


def _graduated(charge: Graduated, quantity: Exact, zero_fee: bool, number: ToExact) -> Exact:
    if quantity <= 0:
        first = charge.tiers[0]
        fee = number(first.flat_amount) if zero_fee and not quantity else number(0)
        return quantity * number(first.unit_amount) + fee
    total, lower = number(0), number(0)
    for tier in charge.tiers:
        upper = quantity if tier.up_to is None else min(quantity, number(tier.up_to))
        total += (upper - lower) * number(tier.unit_amount) + number(tier.flat_amount)
        if upper == quantity:
            break
        lower = upper
    return total


def _graduated_percentage(charge: GraduatedPercentage, quantity: Exact, zero_fee: bool, number: ToExact) -> Exact:
    percent = number(HUNDREDTH)
    if quantity <= 0:
        first = charge.tiers[0]
        fee = number(first.flat_amount) if zero_fee and not quantity else number(0)
        return quantity * number(first.rate_percent) * percent + fee
    total, lower = number(0), number(0)
    for tier in charge.tiers:
        upper = quantity if tier.up_to is None else min(quantity, number(tier.up_to))
        total += (upper - lower) * number(tier.rate_percent) * percent + number(tier.flat_amount)
        if upper == quantity:
            break
        lower = upper
    return total


def _volume(charge: Volume, quantity: Exact, zero_fee: bool, number: ToExact) -> Exact:
    if quantity <= 0:
        first = charge.tiers[0]
        fee = number(first.flat_amount) if zero_fee and not quantity else number(0)
        return quantity * number(first.unit_amount) + fee
    tier = next(step for step in charge.tiers if step.up_to is None or quantity <= number(step.up_to))
    return quantity * number(tier.unit_amount) + number(tier.flat_amount)


def _package(charge: Package, quantity: Exact, number: ToExact) -> Exact:
    excess = quantity - number(charge.free_units)
    if excess <= 0:
        return number(0)
    packages = Fraction(excess) / Fraction(charge.package_size)
    count = ceil(packages) if charge.package_rounding == "up" else floor(packages)
    return number(count) * number(charge.package_amount)


def _flat(charge: Flat, share: Fraction, number: ToExact) -> Exact:
    if share == 1:
        return number(charge.amount)
    return number(charge.amount) * number(share.numerator) / number(share.denominator)


def _percentage(charge: Percentage, quantity: Exact, events: int, number: ToExact) -> Exact:
    """Price a total. Where each event matters, the events are taken as of equal size."""
    rate = number(charge.rate_percent) * number(HUNDREDTH)
    fixed = number(charge.fixed_amount)
    free_amount = number(charge.free_amount)
    if events <= 0 or not (charge.looks_at_each_event or charge.free_events or _has_limits(charge)):
        free = min(max(quantity, number(0)), free_amount)
        return (quantity - free) * rate + fixed * number(events)
    value = quantity / number(events)
    free_events = 0
    if charge.free_events or charge.free_amount:
        free_events = min(events, charge.free_events or events)
        if charge.free_amount and value > 0:
            within = floor(Fraction(free_amount) / Fraction(value))
            if within < free_events:
                part = value - (free_amount - number(within) * value)
                rest = number(events - within - 1) * _of_event(charge, value, number)
                return _of_event(charge, part, number) + rest
    return number(events - free_events) * _of_event(charge, value, number)


def _has_limits(charge: Percentage) -> bool:
    return charge.per_event_minimum is not None or charge.per_event_maximum is not None


def of_events(charge: Percentage, values: Iterable[Exact], number: ToExact) -> Exact:
    """Price the events of a period one by one, in their order."""
    total, used = number(0), number(0)
    free_amount = number(charge.free_amount)
    has_free = bool(charge.free_events or charge.free_amount)
    for place, value in enumerate(values):
        free = number(0)
        if has_free and (not charge.free_events or place < charge.free_events):
            if not charge.free_amount:
                continue
            if used < free_amount:
                free = min(value, free_amount - used)
                used += free
                if free == value:
                    continue
        total += _of_event(charge, value - free, number)
    return total


def _of_event(charge: Percentage, value: Exact, number: ToExact) -> Exact:
    amount = value * number(charge.rate_percent) * number(HUNDREDTH) + number(charge.fixed_amount)
    if charge.per_event_maximum is not None:
        amount = min(amount, number(charge.per_event_maximum))
    if charge.per_event_minimum is not None:
        amount = max(amount, number(charge.per_event_minimum))
    return amount
