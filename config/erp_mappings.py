"""How an entity's ERP calls our dimensions, their values, tax categories and customers.

Account roles have their codes in the entity's `accounts`, customers theirs in `customers[].erp`. What a section maps,
it maps completely: something it does not name is held, never sent in our words by mistake. Without the section our
own names are the ERP's.
"""

from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import Field, StringConstraints, model_validator

from config.base import Identifier, Model

TAX_CATEGORY: Final = "tax_category"
CUSTOMER: Final = "customer"
ORIGINAL_PERIOD: Final = "original_period"
"""The dimension of what was moved out of a closed period: not of the configuration, and sent as it is."""
OURS: Final = (CUSTOMER, ORIGINAL_PERIOD)
"""Dimensions that are mapped elsewhere, or never."""

Code = Annotated[
    str, StringConstraints(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]*\S[^\x00-\x1f\x7f]*$")
]


class DimensionMapping(Model):
    """One dimension of `posting.line_grain`: what the ERP calls it, and its values."""

    code: Code | None = None
    """The ERP's name of the dimension; default: ours."""
    values: dict[str, Code | None] = Field(default_factory=dict)
    """Our value to the ERP's; null leaves the dimension out. The value "" stands for lines that have none."""
    default: Code | None = None
    """The ERP's value for all that `values` does not name."""
    pass_through: bool = False
    """What `values` does not name is sent as it is."""

    @model_validator(mode="after")
    def _one_way(self) -> "DimensionMapping":
        if self.pass_through and self.default is not None:
            message = "what `values` does not name has either a `default` or `pass_through`, not both"
            raise ValueError(message)
        return self

    def value(self, ours: str) -> str | None:
        """Return the ERP's value, empty if the dimension is left out, or None if it is not mapped."""
        if ours in self.values:
            return self.values[ours] or ""
        if not ours:
            return ""
        return ours if self.pass_through else self.default


class Mappings(Model):
    """Our names to those of the entity's ERP. A section that is absent maps nothing: our names are sent."""

    dimensions: dict[str, DimensionMapping] | None = None
    """By our name of the dimension, as in `posting.line_grain`."""
    taxes: dict[str, Code | None] | None = None
    """Tax category of a charge to the ERP's tax code; null is no tax."""
    customers: dict[Identifier, Code] = Field(default_factory=dict)
    """Customers whose code in this ERP is not their `erp.customer`."""

    def maps_dimension(self, name: str) -> bool:
        """Tell whether every value of that dimension has to be found here."""
        if name == TAX_CATEGORY and self.taxes is not None and name not in (self.dimensions or {}):
            return True
        return self.dimensions is not None and name not in OURS

    def dimension(self, name: str, value: str) -> tuple[str, str | None]:
        """Return the ERP's name and value of a dimension: an empty value is not sent, None is not mapped.

        The tax category is sent as the tax code, not as a dimension, unless it is mapped as one.
        """
        if not self.maps_dimension(name):
            return name, value
        found = (self.dimensions or {}).get(name)
        if found is not None:
            return found.code or name, found.value(value)
        if name == TAX_CATEGORY and self.taxes is not None:
            return "", None if tax_code(self.taxes, value) is None else ""
        return "", None


def tax_code(taxes: Mapping[str, str | None], category: str) -> str | None:
    """Return the ERP's tax code, empty for no tax, or None if the category is not mapped. No category is no tax."""
    if category in taxes:
        return taxes[category] or ""
    return None if category else ""
