"""Rounding to the smallest unit of a currency: the one place where amounts are rounded."""

from decimal import ROUND_HALF_UP, Context, Decimal
from functools import lru_cache
from typing import Final

from core.currencies import exponent

_WIDE: Final = Context(prec=60)


def cents(amount: Decimal, currency: str) -> Decimal:
    """Round an amount half-up, ties away from zero, to the currency's exponent."""
    return amount.quantize(_unit(currency), ROUND_HALF_UP, _WIDE)


@lru_cache(maxsize=1024)
def _unit(currency: str) -> Decimal:
    return Decimal(1).scaleb(-exponent(currency))
