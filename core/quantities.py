"""Exact quantities: decimals with 12 places, held as integers scaled by 10^12 (design 2.2).

The grammar of a quantity written as text is strict: `-?digits[.digits][(e|E)[+|-]digits]`, at most
TEXT_CHARS_MAX characters. A plus sign in front, spaces, underscores, hexadecimal, `.5`, `5.`, `inf` and `nan` are
not quantities. `-0` is 0. What has more than 12 places is rounded half-even; a rounded magnitude of 10^18 or more
is not a quantity.
"""

import re
from collections.abc import Callable
from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext
from functools import wraps
from typing import Final, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

PLACES: Final = 12
UNIT: Final = 10**PLACES
"""One, as a scaled integer."""

LIMIT: Final = 10**18 * UNIT
"""Scaled magnitudes from here on are refused; everything below fits Decimal(38, 12)."""

TEXT_CHARS_MAX: Final = 256

_GRAMMAR: Final = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?", re.ASCII)
# Wide enough that scaling a text of TEXT_CHARS_MAX digits is exact, so the only rounding is the half-even one.
_EXACT: Final = Context(prec=TEXT_CHARS_MAX + 64, Emax=10**9, Emin=-(10**9))
_EXPONENT_MAX: Final = 10_000


_WIDE: Final = Context(prec=120)


def exactly(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function add and subtract quantities exactly.

    Decimals keep 28 digits by default, which is less than Decimal(38, 12) has: a sum of quantities of 10^16 or more
    would lose its last places, and amounts to date would not telescope.
    """

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with localcontext(_WIDE):
            return function(*args, **kwargs)

    return run


def scaled_of_decimal(value: Decimal) -> int | None:
    """Return the value times 10^12, rounded half-even to an integer; None if it is not finite or too large."""
    if not value.is_finite():
        return None
    if value.is_zero() or value.adjusted() < -PLACES - 1:
        return 0
    if value.adjusted() >= 18:
        return None
    scaled = int(value.scaleb(PLACES, _EXACT).to_integral_value(ROUND_HALF_EVEN, _EXACT))
    return scaled if -LIMIT < scaled < LIMIT else None


def scaled_of_text(text: str) -> int | None:
    """Read a quantity written as text; return it scaled, or None if it breaks the grammar or is too large."""
    if len(text) > TEXT_CHARS_MAX or _GRAMMAR.fullmatch(text) is None:
        return None
    mantissa, _, exponent = text.lower().partition("e")
    if exponent and abs(int(exponent)) > _EXPONENT_MAX:
        # Out of the decimal type's range, but decided all the same: nothing, or far too large.
        return 0 if exponent.startswith("-") or not mantissa.strip("-0.") else None
    return scaled_of_decimal(Decimal(text))


def scaled_of_integer(value: int) -> int | None:
    """Return an integer scaled; None if it is too large."""
    scaled = value * UNIT
    return scaled if -LIMIT < scaled < LIMIT else None


def scaled_of_double(value: float) -> int | None:
    """Return the shortest decimal that reads back to the same double, scaled; None if not finite or too large."""
    return scaled_of_decimal(Decimal(repr(value)))


def scaled_of_json_number(literal: str) -> int | None:
    """Read a JSON number literal: integers are exact, others are the shortest decimal of their double."""
    if literal.lstrip("-").isdigit():
        # JSON forbids leading zeros, so the length alone tells that an integer is too large.
        return scaled_of_integer(int(literal)) if len(literal) <= 20 else None
    return scaled_of_double(float(literal))


def decimal_of_scaled(scaled: int) -> Decimal:
    """Return the exact decimal of a scaled integer, with 12 places."""
    return Decimal(scaled).scaleb(-PLACES, _EXACT)


def number_text(literal: str) -> str:
    """Return the canonical text of a JSON number literal, as dimensions and counted values use it.

    Integers stay as they are written (JSON has no leading zeros; `-0` is `0`); others become the shortest
    decimal of their double as Python writes it (`1.0`, `0.1`, `1e-07`, `1e+22`, `inf` when out of range).
    """
    if literal.lstrip("-").isdigit():
        return "0" if literal == "-0" else literal
    return double_text(float(literal))


def double_text(value: float) -> str:
    """Return the canonical text of a double; minus zero is `0.0`."""
    return repr(value if value else 0.0)
