"""Explains what a charge comes to, line by line, so that a person can follow it with a calculator.

Pure, and exact: every number is a fraction. The total equals `charges.amount` (or `amount_of_events`) for every
input; a property test over all models and modifiers holds both to it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from math import ceil, floor
from typing import Final

from operators.rating.charges import priced_row
from operators.rating.explain_models import ZERO, Line, event_parts, parts
from operators.rating.explain_numbers import decimal_of, shown
from operators.rating.schema import Charge, Percentage, QuantityRounding, Simple

_WHOLE: Final = Fraction(1)


@dataclass(frozen=True, slots=True)
class Explanation:
    """The calculation of one charge for one quantity."""

    charge: Simple
    quantity: Decimal
    """As metered, before divisor, rounding and allowance."""
    events: int
    final: bool
    """False while the period runs: no minimum, no fee of zero usage."""
    share: Fraction
    """Part of the period that the charge was in force."""
    quantity_lines: tuple[Line, ...]
    parts: tuple[Line, ...]
    subtotal: Fraction
    """Currency units: the sum of the parts."""
    modifiers: tuple[Line, ...]
    exact: Fraction
    """Currency units: the amount, without any rounding."""

    @property
    def total(self) -> Decimal:
        """Return the amount as `charges.amount` does."""
        return decimal_of(self.exact)


@dataclass(frozen=True, slots=True)
class Compared:
    """One part in two explanations; None where it does not occur."""

    key: str
    label: str
    before: Line | None
    after: Line | None

    @property
    def difference(self) -> Fraction:
        """Return by how much the part's amount changes."""
        return _amount(self.after) - _amount(self.before)


@dataclass(frozen=True, slots=True)
class Difference:
    """What is booked when a quantity to date grows (or shrinks): the charge after less the charge before."""

    before: Explanation
    after: Explanation

    @property
    def total(self) -> Decimal:
        """Return the difference in currency units, exact."""
        return decimal_of(self.after.exact - self.before.exact)

    @property
    def parts(self) -> tuple[Compared, ...]:
        """Return the parts of both, side by side, and behind them what the modifiers did."""
        known = {line.key: line for line in self.before.parts}
        result = [Compared(line.key, line.label, known.pop(line.key, None), line) for line in self.after.parts]
        gone = [Compared(line.key, line.label, line, None) for line in known.values()]
        return (*gone, *result)

    @property
    def modified(self) -> Fraction:
        """Return what discounts and limits changed in the difference."""
        return (self.after.exact - self.after.subtotal) - (self.before.exact - self.before.subtotal)


def explain(
    charge: Charge, quantity: Decimal, events: int = 0, *, final: bool = True, share: Fraction = _WHOLE
) -> Explanation:
    """Return the calculation of `charges.amount` for the same arguments."""
    charge = priced_row(charge)
    rated, lines = _rated(charge, quantity)
    if charge.included and rated > 0:
        covered = min(Fraction(charge.included), rated)
        text = f"{shown(rated)} - {shown(covered)} = {shown(rated - covered)}"
        rated -= covered
        lines.append(Line("included", f"allowance of {shown(Fraction(charge.included))}", text, quantity=rated))
    zero_fee = final and charge.zero_usage == "first_tier_flat"
    priced = parts(charge, rated, events, zero_fee=zero_fee, share=share)
    return _finished(charge, quantity, events, final, share, lines, priced)


def explain_events(
    charge: Charge, values: Sequence[Decimal], *, final: bool = True, share: Fraction = _WHOLE
) -> Explanation:
    """Return the calculation of `charges.amount_of_events` for the same arguments."""
    charge = priced_row(charge)
    total = decimal_of(sum(map(Fraction, values), ZERO))
    if not isinstance(charge, Percentage) or not charge.looks_at_each_event:
        return explain(charge, total, len(values), final=final, share=share)
    allowance = Fraction(charge.included)
    rated = []
    for value in values:
        quantity = _rated(charge, value)[0]
        covered = min(allowance, max(quantity, ZERO))
        allowance -= covered
        rated.append(quantity - covered)
    lines = []
    if charge.unit_divisor != 1 or charge.quantity_rounding is not None or charge.included:
        text = f"divisor, rounding and allowance event by event leave {shown(sum(rated, ZERO))}"
        lines.append(Line("events_in_units", "priced units", text, quantity=sum(rated, ZERO)))
    return _finished(charge, total, len(values), final, share, lines, event_parts(charge, rated))


def compare(before: Explanation, after: Explanation) -> Difference:
    """Return the step from one quantity to date to another."""
    return Difference(before, after)


def _amount(line: Line | None) -> Fraction:
    return ZERO if line is None or line.amount is None else line.amount


def _rated(charge: Simple, quantity: Decimal) -> tuple[Fraction, list[Line]]:
    """Return the quantity in priced units, rounded where the charge says so, and the lines of that."""
    rated = Fraction(quantity)
    lines: list[Line] = []
    if charge.unit_divisor != 1:
        divisor = Fraction(charge.unit_divisor)
        text = f"{shown(rated)} / {shown(divisor)} = {shown(rated / divisor)} {charge.unit}".rstrip()
        rated /= divisor
        lines.append(Line("unit_divisor", f"in units of {shown(divisor)}", text, quantity=rated))
    if charge.quantity_rounding is not None:
        rounding = charge.quantity_rounding
        rounded = _rounded(rated, rounding)
        text = f"{shown(rated)} -> {shown(rounded)}"
        rated = rounded
        label = f"rounded {rounding.mode.replace('_', ' ')}, digits {rounding.digits}"
        lines.append(Line("quantity_rounding", label, text, quantity=rated))
    return rated, lines


def _rounded(quantity: Fraction, rounding: QuantityRounding) -> Fraction:
    scale = Fraction(10) ** rounding.digits
    scaled = quantity * scale
    if rounding.mode == "up":
        whole = ceil(scaled)
    elif rounding.mode == "down":
        whole = floor(scaled)
    elif rounding.mode == "half_even":
        whole = round(scaled)
    else:
        whole = floor(scaled + Fraction(1, 2)) if scaled >= 0 else ceil(scaled - Fraction(1, 2))
    return whole / scale


def _finished(
    charge: Simple,
    quantity: Decimal,
    events: int,
    final: bool,
    share: Fraction,
    quantity_lines: Sequence[Line],
    priced: tuple[Line, ...],
) -> Explanation:
    subtotal = sum((_amount(line) for line in priced), ZERO)
    lines = _modifiers(charge, subtotal, final, share)
    exact = _amount(lines[-1]) if lines else subtotal
    return Explanation(
        charge, quantity, events, final, share, tuple(quantity_lines), priced, subtotal, tuple(lines), exact
    )


def _modifiers(charge: Simple, amount: Fraction, final: bool, share: Fraction) -> list[Line]:
    """Return the lines of discounts and limits in their order, each with what is left after it."""
    lines: list[Line] = []

    def add(key: str, label: str, text: str) -> None:
        lines.append(Line(key, label, text, amount))

    if charge.discount_percent:
        percent = Fraction(charge.discount_percent)
        was, off = amount, amount * percent / 100
        amount = was - off
        add("discount_percent", f"discount of {shown(percent)} %", f"{shown(was)} - {shown(off)} = {shown(amount)}")
    if charge.discount_amount:
        was, off = amount, Fraction(charge.discount_amount)
        amount = max(was - off, ZERO) if was > 0 else was
        never = ", never below 0," if 0 < was < off else ""
        text = (
            f"{shown(was)} - {shown(off)}{never} = {shown(amount)}" if was > 0 else f"nothing to take off {shown(was)}"
        )
        add("discount_amount", f"discount of {shown(off)}", text)
    if charge.maximum is not None:
        was, most = amount, Fraction(charge.maximum)
        amount = min(was, most)
        text = f"{shown(was)} is cut to {shown(most)}" if was > most else f"{shown(was)} is within it"
        add("maximum", f"maximum of {shown(most)}", text)
    if charge.minimum:
        least = Fraction(charge.minimum)
        label = f"minimum of {shown(least)}"
        if share != 1:
            least *= share
            label += f" x {share.numerator:,} / {share.denominator:,} = {shown(least)}"
        if not final:
            add("minimum", label, "is not due while the period runs")
        else:
            was = amount
            amount = max(was, least)
            text = f"{shown(was)} is raised to {shown(least)}" if was < least else f"{shown(was)} reaches it"
            add("minimum", label, text)
    return lines
