"""Legal entities: currency, time zone, cut-off, accounts and where they post (contract, design 3.1)."""

from datetime import timedelta
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, Field, StringConstraints

from config.base import Identifier, Model

Currency = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]

AccountRole = Literal[
    "unbilled_receivable",
    "usage_revenue",
    "subscription_revenue",
    "shortfall_revenue",
    "contract_liability",
    "contract_asset",
    "accounts_receivable",
    "tax_payable",
]


def _zone(name: str) -> str:
    if name not in available_timezones():
        message = f"unknown time zone {name!r}: use an IANA name such as Europe/Berlin"
        raise ValueError(message)
    return name


Timezone = Annotated[str, AfterValidator(_zone)]


class Close(Model):
    """When an accounting period stops taking usage of its own: period end plus `cutoff`."""

    cutoff: timedelta = timedelta(days=5)


class Posting(Model):
    """What the ERP gets: how often, per what, with which lines."""

    frequency: Literal["hourly", "daily", "monthly"] = "hourly"
    grain: Literal["entity", "customer"] = "entity"
    line_grain: tuple[str, ...] = ()


class EntityErp(Model):
    """The entity's ERP; further fields belong to the adapter."""

    adapter: Identifier = "journal"
    company: str = Field(min_length=1, max_length=64)
    options: dict[str, Any] = Field(default_factory=dict)


class Entity(Model):
    """One legal entity, the owner of a set of books."""

    id: Identifier
    functional_currency: Currency
    timezone: Timezone = "UTC"
    close: Close = Close()
    posting: Posting = Posting()
    accounts: dict[AccountRole, str]
    erp: EntityErp

    def zone(self) -> ZoneInfo:
        """Return the entity's time zone."""
        return ZoneInfo(self.timezone)
