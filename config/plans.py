"""Plans and their versions (contract, design 3.1). A charge stays raw here: the price engine parses it."""

from typing import Any

from pydantic import Field

from config.base import Identifier, Instant, Model
from config.entities import Currency


class PlanVersion(Model):
    """Prices in force from `effective_from` on, by usage time. Versions are only ever added."""

    effective_from: Instant
    currency: Currency
    charges: tuple[dict[str, Any], ...] = Field(max_length=1000)


class Plan(Model):
    """A named price list with its versions, oldest first."""

    id: Identifier
    versions: tuple[PlanVersion, ...] = Field(min_length=1)
