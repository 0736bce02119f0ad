"""Cursors: where the next page begins, as text a caller hands back unread."""

import base64
import binascii
from typing import Any, Final

import orjson

from console.problems import Problem

CURSOR_CHARACTERS_MAX: Final = 4096


def cursor_of(position: tuple[Any, ...] | None) -> str | None:
    """Return the cursor of a position, None at the end."""
    if position is None:
        return None
    return base64.urlsafe_b64encode(orjson.dumps(list(position))).decode().rstrip("=")


def position_of(cursor: str, kinds: tuple[type, ...]) -> tuple[Any, ...] | None:
    """Return the position of a cursor, None for an empty one.

    :raises Problem: 400 if it is not one of ours for this list.
    """
    if not cursor:
        return None
    try:
        if len(cursor) > CURSOR_CHARACTERS_MAX:
            raise ValueError
        values = orjson.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
        if not isinstance(values, list) or [type(value) for value in values] != list(kinds):
            raise ValueError
        if any(isinstance(value, int) and not 0 <= value < 1 << 53 for value in values):
            raise ValueError
    except (ValueError, binascii.Error):
        detail = "the cursor is not one of this list: hand back `next` as it came, with the same parameters"
        raise Problem("invalid_request", detail) from None
    return tuple(values)
