"""Explains each charge model: the parts whose amounts add up to what the model comes to.

Written from the documented rules with fractions only, apart from `models`, so that the property test that both
agree says something about both.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from math import ceil, floor
from typing import Final

from operators.rating.explain_numbers import shown
from operators.rating.schema import (
    Flat,
    Graduated,
    GraduatedPercentage,
    Package,
    Percentage,
    PercentTier,
    PerUnit,
    Simple,
    Tier,
    Volume,
)

ZERO: Final = Fraction(0)
EVENTS_SHOWN_MAX: Final = 50
"""Of a charge that looks at each event, this many events get a line of their own; the others share one."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a calculation. `key` says which line of another explanation it compares with."""

    key: str
    label: str
    """What the line is about, such as `tier 2: over 100 up to 1,000`."""
    text: str
    """The calculation, such as `900 x 0.05 = 45`."""
    amount: Fraction | None = None
    """Currency units: of this part alone, or for a modifier what is left after it; None for quantities."""
    quantity: Fraction | None = None
    """Priced units of this part, or for a step of the quantity what is left after it."""
    price: Fraction | None = None
    """Currency units per priced unit, package or event; a percentage for shares."""


def parts(charge: Simple, quantity: Fraction, events: int, *, zero_fee: bool, share: Fraction) -> tuple[Line, ...]:
    """Return the parts of the model's amount for the rated quantity; `share` prorates a flat amount."""
    if isinstance(charge, PerUnit):
        price = Fraction(charge.unit_amount)
        amount = quantity * price
        return (_product("unit", "price per unit", quantity, price, "", ZERO, amount),)
    if isinstance(charge, Graduated | GraduatedPercentage):
        return tuple(_graduated(charge, quantity, zero_fee))
    if isinstance(charge, Volume):
        return (_volume(charge, quantity, zero_fee),)
    if isinstance(charge, Package):
        return (_package(charge, quantity),)
    if isinstance(charge, Percentage):
        return tuple(_percentage(charge, quantity, events))
    return (_flat(charge, share),)


def _product(
    key: str, label: str, quantity: Fraction, price: Fraction, mark: str, flat: Fraction, amount: Fraction
) -> Line:
    fixed = f" + {shown(flat)}" if flat else ""
    return Line(
        key, label, f"{shown(quantity)} x {shown(price)}{mark}{fixed} = {shown(amount)}", amount, quantity, price
    )


def _rate(tier: Tier | PercentTier) -> tuple[Fraction, Fraction, str]:
    """Return the tier's price as written, the factor it stands for, and the mark behind it."""
    if isinstance(tier, PercentTier):
        return Fraction(tier.rate_percent), Fraction(tier.rate_percent) / 100, " %"
    return Fraction(tier.unit_amount), Fraction(tier.unit_amount), ""


def _range(number: int, lower: Fraction, up_to: Decimal | None) -> str:
    above = f"over {shown(lower)}" if lower else "from 0"
    return f"tier {number}: {above}" + ("" if up_to is None else f" up to {shown(Fraction(up_to))}")


def _beside_zero(tier: Tier | PercentTier, quantity: Fraction, zero_fee: bool) -> Line:
    """Return the line of a quantity that enters no tier: zero, or negative at the first tier's price."""
    price, factor, mark = _rate(tier)
    fee = Fraction(tier.flat_amount) if zero_fee and not quantity else ZERO
    if fee:
        return Line("tier 1", "fee without usage", f"flat amount of tier 1 = {shown(fee)}", fee, quantity)
    label = "negative usage at the price of tier 1" if quantity < 0 else "no usage: no tier is entered"
    return _product("tier 1", label, quantity, price, mark, ZERO, quantity * factor)


def _graduated(charge: Graduated | GraduatedPercentage, quantity: Fraction, zero_fee: bool) -> Iterator[Line]:
    if quantity <= 0:
        yield _beside_zero(charge.tiers[0], quantity, zero_fee)
        return
    lower = ZERO
    tiers: tuple[Tier | PercentTier, ...] = charge.tiers
    for number, tier in enumerate(tiers, start=1):
        if quantity <= lower:
            return
        upper = quantity if tier.up_to is None else min(quantity, Fraction(tier.up_to))
        price, factor, mark = _rate(tier)
        flat = Fraction(tier.flat_amount)
        amount = (upper - lower) * factor + flat
        yield _product(f"tier {number}", _range(number, lower, tier.up_to), upper - lower, price, mark, flat, amount)
        lower = upper


def _volume(charge: Volume, quantity: Fraction, zero_fee: bool) -> Line:
    if quantity <= 0:
        return _beside_zero(charge.tiers[0], quantity, zero_fee)
    place = next(
        place for place, tier in enumerate(charge.tiers) if tier.up_to is None or quantity <= Fraction(tier.up_to)
    )
    tier, number = charge.tiers[place], place + 1
    lower = Fraction(charge.tiers[place - 1].up_to or 0) if place else ZERO
    price, _, mark = _rate(tier)
    flat = Fraction(tier.flat_amount)
    label = f"all at {_range(number, lower, tier.up_to)}"
    return _product(f"tier {number}", label, quantity, price, mark, flat, quantity * price + flat)


def _package(charge: Package, quantity: Fraction) -> Line:
    free, size, price = Fraction(charge.free_units), Fraction(charge.package_size), Fraction(charge.package_amount)
    excess = max(quantity - free, ZERO)
    ratio = excess / size
    count = ceil(ratio) if charge.package_rounding == "up" else floor(ratio)
    after_free = f"({shown(quantity)} - {shown(free)} free)" if free else shown(quantity)
    if quantity <= free:
        text = f"nothing above {shown(free)}: 0 packages = 0"
    else:
        text = (
            f"{after_free} / {shown(size)} = {shown(ratio)}, {charge.package_rounding} to {count:,} packages;"
            f" {count:,} x {shown(price)} = {shown(count * price)}"
        )
    return Line("package", f"packages of {shown(size)}", text, count * price, Fraction(count), price)


def _flat(charge: Flat, share: Fraction) -> Line:
    amount = Fraction(charge.amount)
    if share == 1:
        return Line("flat", "amount of the period", shown(amount), amount)
    text = f"{shown(amount)} x {share.numerator:,} / {share.denominator:,} = {shown(amount * share)}"
    return Line("flat", "amount of the period, in force in part of it", text, amount * share)


# --- percentage ----------------------------------------------------------------------------------------


def _percentage(charge: Percentage, quantity: Fraction, events: int) -> Iterator[Line]:
    fixed = Fraction(charge.fixed_amount)
    has_limits = charge.per_event_minimum is not None or charge.per_event_maximum is not None
    if events <= 0 or not (charge.looks_at_each_event or charge.free_events or has_limits):
        free = min(max(quantity, ZERO), Fraction(charge.free_amount))
        if free:
            yield Line("free", "free amount", f"{shown(free)} is free", ZERO, free)
        rate = Fraction(charge.rate_percent)
        yield _product("rate", "share", quantity - free, rate, " %", ZERO, (quantity - free) * rate / 100)
        if fixed:
            yield _product("fixed", "fixed part per event", Fraction(events), fixed, "", ZERO, fixed * events)
        return
    value = quantity / events
    wholly_free, partly_free = _free(charge, value, events)
    if wholly_free:
        text = f"{wholly_free:,} of {events:,} events of {shown(value)} each are free"
        yield Line("free", "free events", text, ZERO, wholly_free * value)
    if partly_free:
        left = value - partly_free
        label = f"one event, of which {shown(partly_free)} is free"
        yield _event(charge, "partly free", label, left, 1)
    rest = events - wholly_free - bool(partly_free)
    if rest:
        yield _event(charge, "events", f"{rest:,} events of {shown(value)} each", value, rest)


def _free(charge: Percentage, value: Fraction, events: int) -> tuple[int, Fraction]:
    """Return how many events of equal size are free as a whole, and what is free of the next one."""
    if not charge.free_events and not charge.free_amount:
        return 0, ZERO
    most = min(events, charge.free_events or events)
    if not charge.free_amount or value <= 0:
        return most, ZERO
    whole = floor(Fraction(charge.free_amount) / value)
    if whole >= most:
        return most, ZERO
    return whole, Fraction(charge.free_amount) - whole * value


def _event(charge: Percentage, key: str, label: str, value: Fraction, count: int) -> Line:
    """Return the line of so many events that are priced alike."""
    rate, fixed = Fraction(charge.rate_percent), Fraction(charge.fixed_amount)
    amount = value * rate / 100 + fixed
    text = f"{shown(value)} x {shown(rate)} %" + (f" + {shown(fixed)}" if fixed else "") + f" = {shown(amount)}"
    if charge.per_event_maximum is not None and amount > charge.per_event_maximum:
        amount = Fraction(charge.per_event_maximum)
        text += f", at most {shown(amount)} per event"
    if charge.per_event_minimum is not None and amount < charge.per_event_minimum:
        amount = Fraction(charge.per_event_minimum)
        text += f", at least {shown(amount)} per event"
    if count != 1:
        text += f"; {count:,} x {shown(amount)} = {shown(count * amount)}"
    return Line(key, label, text, count * amount, count * value, rate)


def event_parts(charge: Percentage, values: Sequence[Fraction]) -> tuple[Line, ...]:
    """Return the parts for a period's events, given in their order."""
    lines: list[Line] = []
    others, quantity_others = ZERO, ZERO
    used = ZERO
    for place, value in enumerate(values):
        free, is_free = ZERO, False
        if (charge.free_events or charge.free_amount) and (not charge.free_events or place < charge.free_events):
            if not charge.free_amount:
                free, is_free = value, True
            elif used < charge.free_amount:
                free = min(value, Fraction(charge.free_amount) - used)
                used += free
                is_free = free == value
        label = f"event {place + 1:,} of {shown(value)}"
        if is_free:
            line = Line(f"event {place + 1}", label, "free", ZERO, value)
        else:
            if free:
                label += f", of which {shown(free)} is free"
            line = _event(charge, f"event {place + 1}", label, value - free, 1)
        if place < EVENTS_SHOWN_MAX:
            lines.append(line)
        else:
            others += line.amount or ZERO
            quantity_others += value
    if len(values) > EVENTS_SHOWN_MAX:
        count = len(values) - EVENTS_SHOWN_MAX
        text = f"priced one by one in the same way = {shown(others)}"
        lines.append(Line("events", f"{count:,} more events", text, others, quantity_others))
    return tuple(lines)
