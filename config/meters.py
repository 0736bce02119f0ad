"""Meters: which events count, and how (contract, design 3.1)."""

from datetime import timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints, model_validator

from config.base import Identifier, Model, Number

Aggregation = Literal["count", "sum", "max", "min", "latest", "unique_count", "weighted_sum"]

TAKES_VOIDS: Final[frozenset[Aggregation]] = frozenset({"count", "sum", "weighted_sum"})
"""Aggregations from which an event can be taken back."""

LEVEL_EXPIRY_MAX: Final = timedelta(days=3660)

Path = Annotated[str, StringConstraints(pattern=r"^\$(\.[A-Za-z_][A-Za-z0-9_-]*){1,8}$")]
"""A path into `data`: `$.name` or `$.outer.inner`."""


_ZERO: Final = Decimal(0)
_PLACES: Final = Decimal(1).scaleb(-12)
_EXACT: Final = Context(prec=400)
_VALUE_BOUND: Final = Decimal(10) ** 18
_AMOUNT_BOUND: Final = Decimal(10) ** 19


class PerEvent(Model):
    """What one event comes to, in currency units: a share of its value and a fixed part, within limits.

    Same meaning as the fields of the `percentage` charge; the minimum has the last word.
    """

    rate_percent: Number = _ZERO
    fixed_amount: Number = _ZERO
    minimum: Number | None = None
    maximum: Number | None = None

    @model_validator(mode="after")
    def _check(self) -> "PerEvent":
        # Between the two the amount lies between theirs.
        if any(abs(self._exact(value)) >= _AMOUNT_BOUND for value in (_VALUE_BOUND, -_VALUE_BOUND)):
            message = "an event could come to 10^19 or more: lower the rate, or set a maximum"
            raise ValueError(message)
        return self

    def amount(self, value: Decimal) -> Decimal:
        """Return what an event of that value comes to, rounded half-even to 12 places like every quantity."""
        return self._exact(value).quantize(_PLACES, ROUND_HALF_EVEN, _EXACT)

    def __str__(self) -> str:
        """Return the terms in words, for messages."""
        limits = [f", at least {self.minimum}"] if self.minimum is not None else []
        limits += [f", at most {self.maximum}"] if self.maximum is not None else []
        return f"{self.rate_percent} % + {self.fixed_amount}{''.join(limits)}"

    def _exact(self, value: Decimal) -> Decimal:
        share = _EXACT.multiply(value, self.rate_percent).scaleb(-2, _EXACT)
        amount = _EXACT.add(share, self.fixed_amount)
        if self.maximum is not None:
            amount = min(amount, self.maximum)
        return amount if self.minimum is None else max(amount, self.minimum)


class Meter(Model):
    """One meter. `group_by` maps dimension names to paths; `filter` keeps only the listed dimension values."""

    id: Identifier
    event_type: str = Field(min_length=1, max_length=256)
    aggregation: Aggregation
    value: Path | None = None
    group_by: dict[Identifier, Path] = Field(default_factory=dict, max_length=16)
    filter: dict[Identifier, tuple[str, ...]] = Field(default_factory=dict, max_length=16)
    allow_negative: bool = False
    per_event: PerEvent | None = None
    """`sum`: add up what each event comes to instead of its value, for prices with limits per event."""
    level_expiry: timedelta | None = None
    """`weighted_sum`: a level that is not renewed for so long ends; without it a level holds for ever."""

    @model_validator(mode="after")
    def _check(self) -> "Meter":
        if self.aggregation == "count" and self.value is not None:
            message = "count takes no value: remove `value`, or use sum"
            raise ValueError(message)
        if self.aggregation != "count" and self.value is None:
            message = f"{self.aggregation} needs `value`, a path such as $.tokens"
            raise ValueError(message)
        if self.per_event is not None and self.aggregation != "sum":
            message = f"per_event is for sum: {self.aggregation} does not add up events"
            raise ValueError(message)
        if self.level_expiry is not None:
            if self.aggregation != "weighted_sum":
                message = f"level_expiry is for weighted_sum: {self.aggregation} holds no level"
                raise ValueError(message)
            if not timedelta(0) < self.level_expiry <= LEVEL_EXPIRY_MAX:
                message = f"level_expiry must be more than nothing and at most P{LEVEL_EXPIRY_MAX.days}D"
                raise ValueError(message)
        return self

    def brings(self, value: Decimal) -> Decimal:
        """Return what an event with that value brings to the meter."""
        return value if self.per_event is None else self.per_event.amount(value)

    def filter_path(self, dimension: str) -> str:
        """Return the path a filter looks at: the dimension's if it is in `group_by`, else `$.<dimension>`."""
        return self.group_by.get(dimension, f"$.{dimension}")
