"""The price of a period's usage (contract, design 3.1): parse a charge, and the amount it comes to.

Order of application: unit divisor, quantity rounding, allowance (`included`), model, percentage discount, fixed
discount (never below zero), maximum, minimum. Nothing is rounded but the quantity where the charge asks for it:
amounts are exact decimals, or, where a division does not end (a unit divisor of 3), exact fractions turned into
a decimal of 130 digits at the very end. No float anywhere.
"""

from collections.abc import Iterable, Sequence
from decimal import ROUND_HALF_EVEN, Context, Decimal, DivisionByZero, Inexact, InvalidOperation, Overflow, localcontext
from fractions import Fraction
from math import ceil, floor
from typing import Any, Final

from pydantic import TypeAdapter

from operators.rating import models
from operators.rating.models import Exact, ToExact
from operators.rating.schema import AnyCharge, Charge, Matrix, Percentage, QuantityRounding, Simple

__all__ = ["Charge", "amount", "amount_of_events", "parse_charge", "priced_row"]

_ADAPTER: Final[TypeAdapter[Charge]] = TypeAdapter(AnyCharge)
_TRAPS: Final = [InvalidOperation, DivisionByZero, Overflow]
_EXACT: Final = Context(prec=130, rounding=ROUND_HALF_EVEN, traps=[*_TRAPS, Inexact])
_WIDE: Final = Context(prec=130, rounding=ROUND_HALF_EVEN, traps=_TRAPS)
_WHOLE: Final = Fraction(1)
_ZERO: Final = Decimal(0)


def parse_charge(raw: dict[str, Any]) -> Charge:
    """Return the charge that a plan's entry describes. A field that is null is one that is not there.

    :raises pydantic.ValidationError: (a ValueError) naming every field that does not fit.
    """
    return _ADAPTER.validate_python(raw)


def amount(
    charge: Charge, quantity: Decimal, events: int = 0, *, final: bool = True, share: Fraction = _WHOLE
) -> Decimal:
    """Return what the charge comes to for a period's quantity and number of events, in currency units.

    :param final: False while the period runs: leaves out the minimum and the fee of zero usage.
    :param share: part of the period that the charge was in force; prorates flat amount and minimum.

    A charge that looks at each event (`charge.looks_at_each_event`) takes the events as of equal size here; use
    `amount_of_events` where their values are known.

    :raises ValueError: a matrix without a default row: price the row that `charge.row_for(dimensions)` returns.
    """
    charge = priced_row(charge)
    try:
        with localcontext(_EXACT):
            total: Decimal = _of_total(charge, quantity, events, final, share, _same) + _ZERO
            return total
    except Inexact:
        return _decimal(_of_total(charge, quantity, events, final, share, Fraction))


def amount_of_events(
    charge: Charge, values: Sequence[Decimal], *, final: bool = True, share: Fraction = _WHOLE
) -> Decimal:
    """Return what the charge comes to for a period's events, given in their order.

    Models that only look at totals price the sum. For the others divisor and rounding apply to each event, and
    the allowance is used up by the first events.
    """
    charge = priced_row(charge)
    if not isinstance(charge, Percentage) or not charge.looks_at_each_event:
        try:
            with localcontext(_EXACT):
                total = sum(values, _ZERO)
        except Inexact:
            exact = sum(map(Fraction, values), Fraction(0))
            return _decimal(_of_total(charge, exact, len(values), final, share, Fraction))
        return amount(charge, total, len(values), final=final, share=share)
    try:
        with localcontext(_EXACT):
            priced: Decimal = _modified(charge, _of_events(charge, values, _same), final, share, _same) + _ZERO
            return priced
    except Inexact:
        return _decimal(_modified(charge, _of_events(charge, values, Fraction), final, share, Fraction))


def priced_row(charge: Charge) -> Simple:
    """Return the charge itself, of a matrix its default row.

    :raises ValueError: a matrix without a default row.
    """
    if not isinstance(charge, Matrix):
        return charge
    row = charge.rows[-1]
    if row.when:
        message = f"matrix {charge.id} has no default row: choose the row that prices these dimensions"
        raise ValueError(message)
    return row


def _same(value: Decimal | int) -> Decimal:
    return value if isinstance(value, Decimal) else Decimal(value)


def _decimal(value: Fraction) -> Decimal:
    with localcontext(_WIDE):
        return Decimal(value.numerator) / Decimal(value.denominator) + _ZERO


def _of_total(
    charge: Simple, quantity: Decimal | Fraction, events: int, final: bool, share: Fraction, number: ToExact
) -> Exact:
    rated = _in_units(charge, quantity, number)
    if charge.included and rated > 0:
        rated = max(rated - number(charge.included), number(0))
    zero_fee = final and charge.zero_usage == "first_tier_flat"
    priced = models.of_total(charge, rated, events, zero_fee=zero_fee, share=share, number=number)
    return _modified(charge, priced, final, share, number)


def _of_events(charge: Percentage, values: Iterable[Decimal], number: ToExact) -> Exact:
    allowance = number(charge.included)
    rated = []
    for value in values:
        quantity = _in_units(charge, value, number)
        covered = min(allowance, max(quantity, number(0)))
        allowance -= covered
        rated.append(quantity - covered)
    return models.of_events(charge, rated, number)


def _in_units(charge: Simple, quantity: Decimal | Fraction, number: ToExact) -> Exact:
    """Return the quantity in priced units, rounded where the charge says so."""
    rated = number(quantity)
    if charge.unit_divisor != 1:
        rated = rated / number(charge.unit_divisor)
    if charge.quantity_rounding is not None:
        rated = number(_rounded(Fraction(rated), charge.quantity_rounding))
    return rated


def _rounded(quantity: Fraction, rounding: QuantityRounding) -> Decimal:
    scaled = quantity * Fraction(10) ** rounding.digits
    if rounding.mode == "up":
        whole = ceil(scaled)
    elif rounding.mode == "down":
        whole = floor(scaled)
    elif rounding.mode == "half_up":
        whole = floor(abs(scaled) + Fraction(1, 2)) * (1 if scaled >= 0 else -1)
    else:
        whole = round(scaled)
    return Decimal(whole).scaleb(-rounding.digits, _WIDE)


def _modified(charge: Simple, priced: Exact, final: bool, share: Fraction, number: ToExact) -> Exact:
    """Apply discounts and limits, in their order."""
    if charge.discount_percent:
        priced = priced * (number(100) - number(charge.discount_percent)) * number(models.HUNDREDTH)
    if charge.discount_amount and priced > 0:
        priced = max(priced - number(charge.discount_amount), number(0))
    if charge.maximum is not None:
        priced = min(priced, number(charge.maximum))
    if final and charge.minimum:
        minimum = number(charge.minimum)
        if share != 1:
            minimum = minimum * number(share.numerator) / number(share.denominator)
        priced = max(priced, minimum)
    return priced
