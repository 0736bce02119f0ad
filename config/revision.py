"""Revisions of the configuration: recorded inputs with the time from which each is known (design 2.5).

Decode, dedupe and book use the revision known at the entry-id time, rating the one known at the booked hour.
Everything that can change a result is inside the revision, the rules of intake included.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import orjson
from pydantic import Field

from config.base import Instant, Model
from config.customers import Customer
from config.entities import Entity
from config.meters import Meter
from config.plans import Plan
from config.price_corrections import PriceCorrection
from core.errors import InvariantViolation


class Rules(Model):
    """Rules of intake and booking that decide results; part of the revision, not of the process."""

    grace_s: int = Field(default=60, ge=0, le=3600)
    """An event is in time if its entry-id time is before the end of its usage minute plus this."""
    future_s: int = Field(default=300, ge=0, le=86400)
    """An event whose time is more than this after its arrival is `future_time`."""
    too_old_days: int = Field(default=35, ge=1, le=3660)
    """An event whose time is more than this before its arrival is `too_old`."""
    dedupe_horizon_days: int = Field(default=35, ge=1, le=3660)
    """How many arrival days back a duplicate is still found."""
    events_per_entry_max: int = Field(default=1000, ge=1, le=100_000)
    entry_bytes_max: int = Field(default=1 << 20, ge=1024, le=1 << 26)
    event_bytes_max: int = Field(default=1 << 20, ge=1024, le=1 << 26)
    series_per_tenant_minute_max: int = Field(default=100_000, ge=1)
    """Per tenant, meter and booked minute; what comes after folds into an overflow series."""
    level_changes_per_meter_max: int = Field(default=100_000, ge=1)
    """`weighted_sum`: changes kept per tenant and meter; beyond it the oldest are settled before their time."""
    books_open_at: Instant | None = None
    """Billing starts with the period that holds this time: no period-end items of earlier ones are made.

    Advised where a charge has any (see `config.checks_rating`); without it the first sealed hour decides.
    """


class Configuration(Model):
    """Everything that decides what is booked and at which price."""

    meters: tuple[Meter, ...] = ()
    plans: tuple[Plan, ...] = ()
    entities: tuple[Entity, ...] = ()
    customers: tuple[Customer, ...] = ()
    rules: Rules = Rules()
    price_corrections: tuple[PriceCorrection, ...] = ()
    """From the ledger, not from files: see `config.price_corrections`."""


@dataclass(frozen=True)
class Revision:
    """One configuration with its digest and the time it is known from (0 for the first revision)."""

    configuration: Configuration
    known_from_ms: int = 0
    recorded_text: str | None = None
    """The journal's text, of a revision that was read from it: a release with more fields must not change it."""

    @cached_property
    def text(self) -> str:
        """Return the canonical JSON of the configuration, which is what the journal stores."""
        if self.recorded_text is not None:
            return self.recorded_text
        plain = self.configuration.model_dump(mode="json", by_alias=True)
        if not plain["price_corrections"]:
            del plain["price_corrections"]  # as before there were any: the same content keeps its digest
        return orjson.dumps(plain, option=orjson.OPT_SORT_KEYS).decode()

    @cached_property
    def digest(self) -> str:
        """Return the SHA-256 of the canonical text, in hex."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def version(self) -> str:
        """Return the short name of the revision, stored as `config_version`."""
        return self.digest[:16]

    @property
    def rules(self) -> Rules:
        """Return the rules of intake and booking."""
        return self.configuration.rules

    @cached_property
    def meters(self) -> dict[str, Meter]:
        """Return the meters by id."""
        return {meter.id: meter for meter in self.configuration.meters}

    @cached_property
    def plans(self) -> dict[str, Plan]:
        """Return the plans by id."""
        return {plan.id: plan for plan in self.configuration.plans}

    @cached_property
    def entities(self) -> dict[str, Entity]:
        """Return the entities by id."""
        return {entity.id: entity for entity in self.configuration.entities}

    @cached_property
    def customers(self) -> dict[str, Customer]:
        """Return the customers by id."""
        return {customer.id: customer for customer in self.configuration.customers}

    @classmethod
    def parse(cls, text: str, known_from_ms: int) -> "Revision":
        """Read a revision back from the journal's text."""
        return cls(Configuration.model_validate(orjson.loads(text)), known_from_ms, text)


class History:
    """The revisions in force over time, oldest first; the first counts from the beginning."""

    def __init__(self, revisions: Sequence[Revision]) -> None:
        if not revisions:
            message = "no configuration revision is recorded: run `meterbridge migrate` with a configuration"
            raise InvariantViolation(message)
        self.revisions = tuple(sorted(revisions, key=lambda revision: revision.known_from_ms))
        self._starts_ms = [revision.known_from_ms for revision in self.revisions]

    def at(self, time_ms: int) -> Revision:
        """Return the revision known at that Unix time in milliseconds."""
        return self.revisions[max(0, bisect_right(self._starts_ms, time_ms) - 1)]

    @property
    def latest(self) -> Revision:
        """Return the newest revision."""
        return self.revisions[-1]

    @cached_property
    def meters(self) -> dict[str, Meter]:
        """Return all meters there ever were, by id, each as the newest revision that has it; books may hold any."""
        return {name: meter for revision in self.revisions for name, meter in revision.meters.items()}
