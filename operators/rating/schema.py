"""What a charge may say (contract, design 3.1): one strict model per charge model, amounts as decimal text."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from config.base import Identifier, Model, Number

ZERO = Decimal(0)
ONE = Decimal(1)
_MAGNITUDE_MAX = 30
"""Numbers beyond 10^30, or with more than 30 places, are typing errors and would only cost memory."""


def _sane(value: Decimal) -> Decimal:
    exponent = value.as_tuple().exponent
    if (value and abs(value.adjusted()) > _MAGNITUDE_MAX) or abs(int(exponent)) > _MAGNITUDE_MAX:
        message = f"at most {_MAGNITUDE_MAX} digits before and after the point"
        raise ValueError(message)
    return value


def _not_negative(value: Decimal) -> Decimal:
    if value < 0:
        message = "must not be negative"
        raise ValueError(message)
    return value


def _positive(value: Decimal) -> Decimal:
    if value <= 0:
        message = "must be greater than zero"
        raise ValueError(message)
    return value


def _absent_is_zero(value: Any) -> Any:
    return ZERO if value is None else value


def _listed(value: Any) -> Any:
    """Accept one value in place of a list of one, per dimension."""
    if isinstance(value, dict):
        return {key: [item] if isinstance(item, str) else item for key, item in value.items()}
    return value


Money = Annotated[Number, AfterValidator(_sane)]
NotNegative = Annotated[Money, AfterValidator(_not_negative)]
Positive = Annotated[Money, AfterValidator(_positive)]
OrZero = Annotated[Money, BeforeValidator(_absent_is_zero)]
Limit = Annotated[NotNegative, BeforeValidator(_absent_is_zero)]
"""A limit or a free part; absent, null and 0 all mean that there is none."""
Percent = Annotated[Money, AfterValidator(_not_negative), Field(le=100)]
Filter = Annotated[dict[Identifier, tuple[str, ...]], BeforeValidator(_listed)]


class Tier(Model):
    """One price step: up to and including `up_to` units; the last one has none."""

    up_to: Positive | None = None
    unit_amount: OrZero = ZERO
    flat_amount: OrZero = ZERO


class PercentTier(Model):
    """One step of a graduated percentage."""

    up_to: Positive | None = None
    rate_percent: OrZero = ZERO
    flat_amount: OrZero = ZERO


def _steps_fit(tiers: Sequence[Tier | PercentTier]) -> None:
    """Raise ValueError unless the steps ascend and only the last one is open."""
    previous = ZERO
    for number, tier in enumerate(tiers, start=1):
        if tier.up_to is None:
            if number != len(tiers):
                message = f"tier {number} has no up_to, but only the last tier may be open: give it a limit"
                raise ValueError(message)
            return
        if tier.up_to <= previous:
            message = f"tier {number} ends at {tier.up_to}, not above {previous}: list the tiers in ascending order"
            raise ValueError(message)
        previous = tier.up_to
    message = f"usage above {previous} has no price: end the tiers with `up_to: null`"
    raise ValueError(message)


class QuantityRounding(Model):
    """How the period's quantity is rounded before it is priced. `up` is towards plus infinity."""

    mode: Literal["up", "down", "half_up", "half_even"]
    digits: int = Field(default=0, ge=-18, le=12)


class Accounting(Model):
    """What the books make of a charge."""

    revenue_role: Literal["usage_revenue", "subscription_revenue", "shortfall_revenue"] | None = None
    recognition: Literal["as_billable", "ratable"] | None = None
    tax_category: str = ""


class ChargeBase(Model):
    """What every charge has, whatever its model."""

    id: Identifier
    meter: Identifier = ""
    filter: Filter = Field(default_factory=dict)
    unit: str = ""
    unit_divisor: Positive = ONE
    accounting: Accounting = Accounting()
    included: Limit = ZERO
    minimum: Limit = ZERO
    maximum: NotNegative | None = None
    discount_percent: Percent = ZERO
    discount_amount: Limit = ZERO
    quantity_rounding: QuantityRounding | None = None
    zero_usage: Literal["skip", "first_tier_flat"] = "skip"

    @model_validator(mode="after")
    def _meter_is_named(self) -> "ChargeBase":
        if not self.meter and getattr(self, "model", "") != "flat":
            message = "name the meter whose usage it prices in `meter`"
            raise ValueError(message)
        return self

    @property
    def looks_at_each_event(self) -> bool:
        """Return whether the totals of a period do not decide the amount."""
        return False


class PerUnit(ChargeBase):
    """Quantity times `unit_amount`."""

    model: Literal["per_unit"]
    unit_amount: Money


class _Tiered(ChargeBase):
    tiers: tuple[Tier, ...] = Field(min_length=1, max_length=1000)

    @model_validator(mode="after")
    def _tiers_fit(self) -> "_Tiered":
        _steps_fit(self.tiers)
        return self


class Graduated(_Tiered):
    """Each tier's part at its own price; a tier's flat amount is due once the tier is entered."""

    model: Literal["graduated"]


class Volume(_Tiered):
    """The whole quantity at the price of the tier it falls in."""

    model: Literal["volume"]


class Package(ChargeBase):
    """Packages of what exceeds `free_units`; a started one counts with `up`, only full ones with `down`."""

    model: Literal["package"]
    package_size: Positive
    package_amount: Money
    free_units: Limit = ZERO
    package_rounding: Literal["up", "down"] = "up"


class Percentage(ChargeBase):
    """A share of the quantity plus a fixed part per event, with free events and limits per event."""

    model: Literal["percentage"]
    rate_percent: Money
    fixed_amount: OrZero = ZERO
    free_events: Annotated[int, BeforeValidator(lambda value: 0 if value is None else value), Field(ge=0)] = 0
    free_amount: Limit = ZERO
    per_event_minimum: NotNegative | None = None
    per_event_maximum: NotNegative | None = None

    @property
    def looks_at_each_event(self) -> bool:
        """Return whether the values of the events, or their order, decide the amount, and not the totals.

        Totals are enough if the share is zero (then only the number of events counts), or if all that is free is an
        amount and nothing is due per event (then it does not matter which events use it up).
        """
        limits = (self.per_event_minimum, self.per_event_maximum)
        has_limits = any(limit is not None for limit in limits)
        if not (self.free_events or self.free_amount or has_limits):
            return False
        counts_only = not self.rate_percent and not self.free_amount
        shares_only = not (self.free_events or self.fixed_amount or has_limits or self.quantity_rounding)
        return not (counts_only or shares_only)


class GraduatedPercentage(ChargeBase):
    """Each tier's part of the quantity at its own percentage."""

    model: Literal["graduated_percentage"]
    tiers: tuple[PercentTier, ...] = Field(min_length=1, max_length=1000)

    @model_validator(mode="after")
    def _tiers_fit(self) -> "GraduatedPercentage":
        _steps_fit(self.tiers)
        return self


class Flat(ChargeBase):
    """An amount per period, whatever the usage."""

    model: Literal["flat"]
    amount: Money


Charge = PerUnit | Graduated | Volume | Package | Percentage | GraduatedPercentage | Flat
AnyCharge = Annotated[Charge, Field(discriminator="model")]
