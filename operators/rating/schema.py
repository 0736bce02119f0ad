"""What a charge may say (contract, design 3.1): one strict model per charge model, amounts as decimal text."""

from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from config.account_roles import RevenueRole
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


def _listed(value: Any) -> Any:
    """Accept one value in place of a list of one, per dimension."""
    if isinstance(value, dict):
        return {key: [item] if isinstance(item, str) else item for key, item in value.items()}
    return value


Money = Annotated[Number, AfterValidator(_sane)]
NotNegative = Annotated[Money, AfterValidator(_not_negative)]
Positive = Annotated[Money, AfterValidator(_positive)]
Percent = Annotated[Money, AfterValidator(_not_negative), Field(le=100)]
Filter = Annotated[dict[Identifier, tuple[str, ...]], BeforeValidator(_listed)]


class _Fields(Model):
    """Absent and null mean the same."""

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {name: item for name, item in value.items() if item is not None or name not in cls.model_fields}


class Tier(_Fields):
    """One price step: up to and including `up_to` units; the last one has none."""

    up_to: Positive | None = None
    unit_amount: Money = ZERO
    flat_amount: Money = ZERO


class PercentTier(_Fields):
    """One step of a graduated percentage."""

    up_to: Positive | None = None
    rate_percent: Money = ZERO
    flat_amount: Money = ZERO


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


class QuantityRounding(_Fields):
    """How the period's quantity is rounded before it is priced. `up` is towards plus infinity."""

    mode: Literal["up", "down", "half_up", "half_even"]
    digits: int = Field(default=0, ge=-18, le=12)


class Accounting(_Fields):
    """What the books make of a charge."""

    revenue_role: RevenueRole | None = None
    recognition: Literal["as_billable", "ratable"] | None = None
    tax_category: str = ""


class ChargeBase(_Fields):
    """What every charge has, whatever its model."""

    id: Identifier
    meter: Identifier = ""
    filter: Filter = Field(default_factory=dict)
    unit: str = ""
    unit_divisor: Positive = ONE
    accounting: Accounting = Accounting()
    included: NotNegative = ZERO
    minimum: NotNegative = ZERO
    maximum: NotNegative | None = None
    discount_percent: Percent = ZERO
    discount_amount: NotNegative = ZERO
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

    @property
    def is_ratable(self) -> bool:
        """Return whether revenue follows elapsed time instead of what is billable; a flat fee's does by default."""
        stated = self.accounting.recognition
        return stated == "ratable" if stated is not None else getattr(self, "model", "") == "flat"


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
    free_units: NotNegative = ZERO
    package_rounding: Literal["up", "down"] = "up"


class Percentage(ChargeBase):
    """A share of the quantity plus a fixed part per event, with free events and limits per event."""

    model: Literal["percentage"]
    rate_percent: Money
    fixed_amount: Money = ZERO
    free_events: Annotated[int, Field(ge=0)] = 0
    free_amount: NotNegative = ZERO
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


Simple = PerUnit | Graduated | Volume | Package | Percentage | GraduatedPercentage | Flat
"""A charge with one price list."""


class _Row(_Fields):
    """What a matrix row has beside the fields of its model. `id`, `meter` and `filter` come from the matrix."""

    when: Filter = Field(default_factory=dict)
    """The dimension values it prices; without any it is the default row, and prices what no row before it does."""
    row: Annotated[str, Field(max_length=256)] = ""
    """Its name in the books (`price_row`); by default made of `when`."""


class PerUnitRow(_Row, PerUnit):
    """A matrix row with one unit price; it need not name its model."""

    id: Identifier = "row"
    model: Literal["per_unit"] = "per_unit"


class GraduatedRow(_Row, Graduated):
    """A matrix row with graduated tiers."""

    id: Identifier = "row"


class VolumeRow(_Row, Volume):
    """A matrix row with volume tiers."""

    id: Identifier = "row"


class PackageRow(_Row, Package):
    """A matrix row that sells packages."""

    id: Identifier = "row"


class PercentageRow(_Row, Percentage):
    """A matrix row with a percentage."""

    id: Identifier = "row"


class GraduatedPercentageRow(_Row, GraduatedPercentage):
    """A matrix row with graduated percentages."""

    id: Identifier = "row"


_AnyRow = Annotated[
    PerUnitRow | GraduatedRow | VolumeRow | PackageRow | PercentageRow | GraduatedPercentageRow,
    Field(discriminator="model"),
]
_INHERITED = ("unit", "unit_divisor", "accounting", "discount_percent", "quantity_rounding")
_OF_ROWS = ("included", "minimum", "maximum", "discount_amount", "zero_usage")
DEFAULT_ROW = "default"


def _row_name(when: Mapping[str, Sequence[str]]) -> str:
    parts = (f"{name}={'|'.join(values)}" for name, values in sorted(when.items()))
    return ",".join(parts) or DEFAULT_ROW


class Matrix(ChargeBase):
    """A price per combination of dimension values. The first row that matches prices; each row adds up by itself.

    `unit`, `unit_divisor`, `accounting`, `discount_percent` and `quantity_rounding` hold for rows that do not state
    their own. Allowances, limits, fixed discounts and fees of zero usage belong to rows: over a whole matrix they
    would have to be split. A combination that no row prices is unrated.
    """

    model: Literal["matrix"]
    rows: tuple[_AnyRow, ...] = Field(max_length=10_000)

    @model_validator(mode="before")
    @classmethod
    def _complete_rows(cls, value: Any) -> Any:
        if not isinstance(value, dict) or not isinstance(value.get("rows"), list | tuple):
            return value
        misplaced = [name for name in _OF_ROWS if value.get(name) is not None]
        if misplaced:
            message = f"{', '.join(misplaced)} cannot hold for a whole matrix: write it into its rows"
            raise ValueError(message)
        shared = {"model": "per_unit"} | {name: value[name] for name in _INHERITED if value.get(name) is not None}
        return value | {"rows": [cls._complete_row(value, shared, row) for row in value["rows"]]}

    @staticmethod
    def _complete_row(matrix: dict[str, Any], shared: dict[str, Any], row: Any) -> Any:
        if not isinstance(row, dict):
            return row
        for name in ("id", "meter", "filter"):
            if row.get(name) is not None:
                message = f"a row has no {name} of its own: the matrix has it, and `when` picks the usage"
                raise ValueError(message)
        conditions = matrix.get("filter") or {}
        when = row.get("when") or {}
        if isinstance(conditions, dict) and isinstance(when, dict):  # else pydantic says what is wrong with them
            conditions = conditions | when
        own = {"id": matrix.get("id"), "meter": matrix.get("meter"), "filter": conditions}
        given = {name: item for name, item in row.items() if item is not None or name not in shared}
        return shared | given | own

    @model_validator(mode="after")
    def _rows_fit(self) -> "Matrix":
        if not self.rows:
            message = "a matrix has at least 1 row"
            raise ValueError(message)
        names = Counter(map(self.name_of, self.rows))
        twice = sorted(name for name, count in names.items() if count > 1)
        if twice:
            message = f"more than one row is called {', '.join(twice)}: give them other `when` or a `row` name"
            raise ValueError(message)
        for number, row in enumerate(self.rows[:-1], start=1):
            if not row.when:
                message = f"row {number} has no `when`, so no row below it is ever used: put the default row last"
                raise ValueError(message)
        return self

    @staticmethod
    def name_of(row: "Row") -> str:
        """Return the row's name in the books."""
        return row.row or _row_name(row.when)

    def row_for(self, dimensions: Mapping[str, str]) -> "Row | None":
        """Return the row that prices usage of these dimensions, None if none does."""
        return next((row for row in self.rows if passes(row.filter, dimensions)), None)


Row = PerUnitRow | GraduatedRow | VolumeRow | PackageRow | PercentageRow | GraduatedPercentageRow
Charge = PerUnit | Graduated | Volume | Package | Percentage | GraduatedPercentage | Flat | Matrix
AnyCharge = Annotated[Charge, Field(discriminator="model")]


def passes(conditions: Mapping[str, Sequence[str]], dimensions: Mapping[str, str]) -> bool:
    """Return whether the dimensions have one of the listed values each."""
    return all(dimensions.get(name) in values for name, values in conditions.items())
