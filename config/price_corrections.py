"""Prices corrected after the fact: another price list for a plan version, from a billing period on.

A plan version in force is never edited. A correction lies over it: billing periods that begin at or after `from` are
charged by the corrected prices, from the hour on in which a revision with the correction is known. What was booked
before is brought to them in that hour, as rows of their own. Corrections are journaled with the configuration, are only
ever added, and a later one for the same version and period takes the place of an earlier one.
"""

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

import orjson
from pydantic import Field

from config.base import Identifier, Instant, Model

ReasonCode = Literal["price_error", "contract_modification", "concession", "dispute"]


class CorrectedVersion(Model):
    """What the charges of a plan version (from 1) are to be; the same charges, at other prices."""

    version: int = Field(ge=1)
    charges: tuple[dict[str, Any], ...] = Field(max_length=1000)


class PriceCorrection(Model):
    """One approved correction. `id` is a digest of what it changes, so that the same one is made once."""

    id: str
    plan: Identifier
    from_: Instant = Field(alias="from")
    """Billing periods that begin at or after it are corrected."""
    versions: tuple[CorrectedVersion, ...]
    reason_code: ReasonCode = "price_error"
    approved_by: str = ""
    reason: str = ""


def make(
    plan: str,
    begins: datetime,
    versions: Sequence[CorrectedVersion],
    *,
    over: str = "",
    reason_code: ReasonCode = "price_error",
    approved_by: str = "",
    reason: str = "",
) -> PriceCorrection:
    """Return a correction with its id. `over` is the id of the plan's newest one: so prices may go back and forth."""
    ordered = tuple(sorted(versions, key=lambda one: one.version))
    content = [over, plan, begins.isoformat(), [one.model_dump(mode="json") for one in ordered]]
    digest = hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()
    return PriceCorrection(
        id=digest[:16],
        plan=plan,
        **{"from": begins},
        versions=ordered,
        reason_code=reason_code,
        approved_by=approved_by,
        reason=reason,
    )


def in_force(
    corrections: Sequence[PriceCorrection], plan: str, version: int, period_start: datetime
) -> tuple[PriceCorrection, CorrectedVersion] | None:
    """Return the newest correction of the plan version for a billing period, None if it is charged as it was."""
    for one in reversed(corrections):
        if one.plan == plan and one.from_ <= period_start:
            found = next((each for each in one.versions if each.version == version), None)
            if found is not None:
                return one, found
    return None
