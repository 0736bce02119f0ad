"""Sums of amounts that are exact or fail: never a silent rounding."""

import decimal
from contextlib import AbstractContextManager


def exact() -> AbstractContextManager[decimal.Context]:
    """Return a context in which decimal arithmetic has 60 digits and raises `decimal.Inexact` if that is too few."""
    return decimal.localcontext(decimal.Context(prec=60, traps=[decimal.Inexact, decimal.InvalidOperation]))
