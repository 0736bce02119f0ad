"""The base of all configuration models: strict, immutable, unknown fields refused."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, StringConstraints


class Model(BaseModel):
    """A frozen model in which a misspelt field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=False)


def _decimal_text(value: Any) -> Any:
    """Refuse floats: they are not the number that was written."""
    if isinstance(value, bool | float):
        message = f'write the number as text, "{value}": a bare decimal is read as a float'
        raise ValueError(message)
    return value


def _finite(value: Decimal) -> Decimal:
    if not value.is_finite():
        message = "must be a finite number"
        raise ValueError(message)
    return value


def _utc(value: datetime) -> datetime:
    if value.tzinfo is None:
        message = "needs a time zone, for example a Z at its end"
        raise ValueError(message)
    try:
        return value.astimezone(UTC)
    except OverflowError as error:
        message = "is outside the years 1 to 9999 in UTC"
        raise ValueError(message) from error


Number = Annotated[Decimal, BeforeValidator(_decimal_text), AfterValidator(_finite)]
"""An exact decimal, written as text (or as a bare integer)."""

Instant = Annotated[datetime, AfterValidator(_utc)]
"""An aware time, kept in UTC."""

Identifier = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]*$")]
Subject = Annotated[str, StringConstraints(min_length=1, max_length=256)]
