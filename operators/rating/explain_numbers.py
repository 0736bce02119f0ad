"""Numbers of an explanation: exact fractions, and how they read for a person and for a machine."""

from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext
from fractions import Fraction
from typing import Final

PLACES_SHOWN_MAX: Final = 30
"""A decimal with more places than this is shown rounded; the machine's form stays exact."""
PLACES_ROUNDED: Final = 12
_CONTEXT: Final = Context(prec=130, rounding=ROUND_HALF_EVEN)


def decimal_of(value: Fraction) -> Decimal:
    """Return the value as a decimal, rounded half-even to 130 digits where it does not end sooner."""
    with localcontext(_CONTEXT):
        return Decimal(value.numerator) / Decimal(value.denominator) + Decimal(0)


def shown(value: Fraction) -> str:
    """Return the value for a person: `12,500.25`, or `about 0.333333333333` where it does not end."""
    places = _places(value)
    if places is not None and places <= PLACES_SHOWN_MAX:
        return _digits(value, places)
    return f"about {_digits(value, PLACES_ROUNDED)}"


def plain(value: Fraction) -> str:
    """Return the exact value for a machine: a decimal without exponent, or `1/3` where that does not end."""
    places = _places(value)
    return str(value) if places is None else _digits(value, places).replace(",", "")


def _places(value: Fraction) -> int | None:
    """Return how many decimal places the value has, None if they never end."""
    rest, twos, fives = value.denominator, 0, 0
    while rest % 2 == 0:
        rest, twos = rest // 2, twos + 1
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    return max(twos, fives) if rest == 1 else None


def _digits(value: Fraction, places: int) -> str:
    scaled = round(abs(value) * 10**places)
    sign = "-" if value < 0 and scaled else ""
    if not places:
        return f"{sign}{scaled:,}"
    whole, rest = divmod(scaled, 10**places)
    return f"{sign}{whole:,}.{rest:0{places}d}"
