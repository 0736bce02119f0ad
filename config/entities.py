"""Legal entities: currency, time zone, cut-off, accounts and where they post (contract, design 3.1)."""

from datetime import timedelta
from functools import cache
from typing import Annotated, Any, Final, Literal, NamedTuple
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, Field, StringConstraints

from config.account_roles import AccountRole
from config.base import Identifier, Model, Number
from config.erp_mappings import Mappings
from config.posting_rules import LineKind, PostingRule

Currency = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]


@cache
def _zones() -> frozenset[str]:
    """Return the names of all time zones; finding them walks a directory, milliseconds each time."""
    return frozenset(available_timezones())


def _zone(name: str) -> str:
    if name not in _zones():
        message = f"unknown time zone {name!r}: use an IANA name such as Europe/Berlin"
        raise ValueError(message)
    return name


Timezone = Annotated[str, AfterValidator(_zone)]


class Close(Model):
    """When an accounting period stops taking usage of its own: period end plus `cutoff`, or a recorded close."""

    cutoff: timedelta = timedelta(days=5)
    erp_closed: Literal["hold", "next_open"] = "hold"
    """What happens if the ERP says that a period is closed. `next_open` waits for the close to be recorded too."""
    correction_above: Annotated[Number, Field(ge=0)] | None = None
    """Corrections of one customer and closed period that come to more than this together wait for approval."""
    correction_share_percent: Annotated[Number, Field(ge=0)] | None = None
    """The same, as a share of what the entity charged in that period."""


class Approval(Model):
    """Which documents wait for a person: `meterbridge erp approve`."""

    every: bool = False
    credits: bool = False
    """Documents that take from what the customer owes; tiers that get cheaper within their period do not count."""
    above: Annotated[Number, Field(ge=0)] | None = None
    """Documents of more than this, in their currency."""


class Limits(NamedTuple):
    """What an ERP takes: lines per posting, and lines a month (0: no limit)."""

    lines: int
    lines_per_month: int


ERP_LIMITS: Final[dict[str, Limits]] = {"none": Limits(0, 0), "netsuite": Limits(1_000, 200_000), "sap": Limits(900, 0)}
"""NetSuite: 1,000 lines a journal, 200,000 a month on its standard tier. SAP: 999 items with generated ones."""


class Posting(Model):
    """What the ERP gets: how often, per what, with which lines."""

    frequency: Literal["hourly", "daily", "monthly"] = "hourly"
    grain: Literal["entity", "customer"] = "entity"
    line_grain: tuple[str, ...] = ()
    limits: Literal["none", "netsuite", "sap"] = "none"
    """Whose limits on lines hold, beside those of the adapter."""
    lines_max: Annotated[int, Field(ge=2)] | None = None
    """Lines of one posting; more make further postings. Overrides `limits`."""
    lines_per_month_max: Annotated[int, Field(ge=1)] | None = None
    """What `meterbridge doctor` compares the projected lines with. Overrides `limits`."""

    @property
    def line_limits(self) -> Limits:
        """Return the limits in force; 0 is none."""
        preset = ERP_LIMITS[self.limits]
        return Limits(self.lines_max or preset.lines, self.lines_per_month_max or preset.lines_per_month)


class Invoicing(Model):
    """Invoices per contract and billing period, besides the journals."""

    enabled: bool = False
    state: Literal["draft", "posted"] = "posted"
    """Whether the ERP leaves the invoice to a person or posts it."""
    grace: timedelta = timedelta(days=1)
    """An invoice takes what is booked until the period's end plus this; the rest goes on the next one."""


class EntityErp(Model):
    """The entity's ERP; further fields belong to the adapter."""

    adapter: Identifier = "journal"
    company: str = Field(min_length=1, max_length=64)
    options: dict[str, Any] = Field(default_factory=dict)
    mappings: Mappings = Mappings()
    """Our dimensions, tax categories and customers in the ERP's words."""

    def without_mappings(self) -> "EntityErp":
        """Return what an adapter is made of: it sees mapped codes only."""
        return self.model_copy(update={"mappings": Mappings()})


class Entity(Model):
    """One legal entity, the owner of a set of books."""

    id: Identifier
    functional_currency: Currency
    timezone: Timezone = "UTC"
    close: Close = Close()
    posting: Posting = Posting()
    approval: Approval = Approval()
    invoicing: Invoicing = Invoicing()
    accounts: dict[AccountRole, str]
    posting_rules: dict[LineKind, PostingRule] = Field(default_factory=dict)
    """What this entity books otherwise than `config.posting_rules.DEFAULTS`."""
    erp: EntityErp

    def zone(self) -> ZoneInfo:
        """Return the entity's time zone."""
        return ZoneInfo(self.timezone)
