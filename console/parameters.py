"""Query parameters that several lists share: times, cursors, limits, pairs."""

from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated, Final

import msgspec

from console.problems import Problem

LIMIT_MAX: Final = 10_000

Time = Annotated[str, msgspec.Meta(max_length=64, description="RFC 3339 time, such as 2026-11-24T10:00:00Z.")]
Limit = Annotated[int, msgspec.Meta(ge=1, le=LIMIT_MAX, description="Rows on a page.")]
Cursor = Annotated[str, msgspec.Meta(max_length=4096, description="`next` of the page before.")]
Name = Annotated[str, msgspec.Meta(max_length=256)]

_EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(2100, 1, 1, tzinfo=UTC)


def time_of(name: str, text: str) -> datetime | None:
    """Return an aware UTC time, None for an empty text. A plus sign that a URL made a space is read as one.

    :raises Problem: 400 if it is none, has no offset, or lies outside 1970 to 2100.
    """
    if not text:
        return None
    found: datetime | None
    try:
        found = datetime.fromisoformat(text.strip().replace(" ", "+") if "T" in text else text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise Problem("invalid_request", f"`{name}` must be a time with an offset, such as 2026-11-24T10:00:00Z")
    if not _EARLIEST <= found <= _LATEST:
        raise Problem("invalid_request", f"`{name}` must lie between 1970 and 2100")
    return found.astimezone(UTC)


def pairs(name: str, texts: list[str]) -> dict[str, list[str]]:
    """Return the values by name of texts such as `model:gpt-4`.

    :raises Problem: 400 if one has no colon.
    """
    found: dict[str, list[str]] = {}
    for text in texts:
        key, colon, value = text.partition(":")
        if not colon or not key:
            raise Problem("invalid_request", f"`{name}` must read name:value, such as model:gpt-4")
        found.setdefault(key, []).append(value)
    return found


def decimal_of(name: str, text: str) -> Decimal | None:
    """Return a decimal, None for an empty text.

    :raises Problem: 400 if it is none, or not finite.
    """
    if not text:
        return None
    try:
        found = Decimal(text)
    except InvalidOperation:
        found = Decimal("nan")
    if not found.is_finite():
        raise Problem("invalid_request", f"`{name}` must be a decimal number such as 100.50")
    return found
