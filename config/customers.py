"""Customers, their subjects and contracts (contract, design 3.1)."""

from datetime import date
from functools import lru_cache
from typing import Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo

from pydantic import Field, StringConstraints, field_validator, model_validator

from config.base import Identifier, Instant, Model, Number, Subject
from config.entities import Timezone


class SubjectAssignment(Model):
    """A subject that belongs to the customer from one time on (to the next assignment, or for ever)."""

    id: Subject
    from_: Instant | None = Field(default=None, alias="from")
    to: Instant | None = None


class BillingPeriod(Model):
    """The period charges are computed over. `anchor` day 31 clamps to the month's end."""

    unit: Literal["day", "week", "month", "year"] = "month"
    count: int = Field(default=1, ge=1, le=999)
    anchor: date = date(2020, 1, 1)
    timezone: Timezone = "UTC"

    def zone(self) -> ZoneInfo:
        """Return the time zone period borders are in."""
        return ZoneInfo(self.timezone)


class Override(Model):
    """Fields of one charge that this contract replaces, merged by top-level field."""

    charge: Identifier
    set: dict[str, Any]


class Commitment(Model):
    """A promised amount per period, in the currency of the contract's plan, whole minor units.

    `postpaid`: what the charges fall short of it is due at the period's end. `prepaid`: paid before; charges draw it
    down first, and what is left at the period's end (or at `expires`) is forfeited.
    """

    id: Identifier
    type: Literal["postpaid", "prepaid"]
    amount: Annotated[Number, Field(ge=0)]
    period: Annotated[str, StringConstraints(pattern=r"^P[1-9][0-9]?[0-9]?[YMWD]$")]
    """ISO 8601, one unit: P1Y, P6M, P4W, P30D. The first one begins with the contract's first day."""
    applies_to: tuple[Identifier, ...] = ()
    """Ids of charges; none means all."""
    recognition: Literal["as_billable", "ratable"] = "as_billable"
    """`ratable`: a postpaid shortfall is revenue as the period passes, not at its end."""
    priority: int = 0
    """Lower ones are drawn down first, then by id."""
    expires: Instant | None = None
    """Prepaid only: usage from then on does not draw on it, and no later period begins."""

    @model_validator(mode="after")
    def _prepaid_fields(self) -> "Commitment":
        if self.type == "postpaid" and self.expires is not None:
            message = "only a prepaid commitment expires: remove it, or end the contract with `to`"
            raise ValueError(message)
        if self.type == "prepaid" and self.recognition == "ratable":
            message = "a prepaid commitment is revenue as it is drawn down: remove `recognition: ratable`"
            raise ValueError(message)
        return self

    def periods(self, contract: "Contract") -> BillingPeriod:
        """Return how its periods are laid out: from the contract's first day, in the billing time zone."""
        anchor = contract.from_.astimezone(contract.billing_period.zone()).date()
        return _laid_out(self.period, anchor, contract.billing_period.timezone)


@lru_cache(maxsize=4096)
def _laid_out(period: str, anchor: date, timezone: str) -> BillingPeriod:
    return BillingPeriod(unit=_UNITS[period[-1]], count=int(period[1:-1]), anchor=anchor, timezone=timezone)


_UNITS: Final[dict[str, Literal["day", "week", "month", "year"]]] = {"Y": "year", "M": "month", "W": "week", "D": "day"}


class Contract(Model):
    """What a customer agreed to, with one entity, from one time on."""

    id: Identifier
    plan: Identifier
    plan_version: int | Literal["latest"] | None = None
    entity: Identifier
    from_: Instant = Field(alias="from")
    to: Instant | None = None
    billing_period: BillingPeriod = BillingPeriod()
    overrides: tuple[Override, ...] = ()
    commitments: tuple[Commitment, ...] = ()
    unbilled_kind: Literal["unbilled_receivable", "contract_asset"] = "unbilled_receivable"


class CustomerErp(Model):
    """How the ERP calls the customer."""

    customer: str | None = None


class Customer(Model):
    """One billed customer; usage reaches it through its subjects."""

    id: Identifier
    subjects: tuple[SubjectAssignment, ...]
    erp: CustomerErp = CustomerErp()
    contracts: tuple[Contract, ...] = ()

    @field_validator("subjects", mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        """Accept a bare subject in place of `{id: subject}`."""
        if isinstance(value, list | tuple):
            return [{"id": item} if isinstance(item, str) else item for item in value]
        return value
