"""Customers, their subjects and contracts (contract, design 3.1)."""

from datetime import date
from typing import Any, Literal
from zoneinfo import ZoneInfo

from pydantic import Field, field_validator

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
    count: int = Field(default=1, ge=1, le=120)
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
    """A promised amount: postpaid (true-up at the end) or prepaid (drawn down first)."""

    id: Identifier
    type: Literal["postpaid", "prepaid"]
    amount: Number
    period: str
    applies_to: tuple[Identifier, ...] = ()
    recognition: Literal["as_billable", "ratable"] = "as_billable"
    priority: int = 0
    expires: Instant | None = None


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
