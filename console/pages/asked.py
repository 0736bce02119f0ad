"""What a page's address asks for: times, choices and texts, checked; a wrong one says which and why."""

from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from starlette.requests import Request

from console.problems import Problem
from queries.windows import Window

TEXT_MAX: Final = 600
WINDOWS: Final[tuple[Window, ...]] = ("minute", "hour", "day", "month")


def text(request: Request, name: str, longest: int = TEXT_MAX) -> str:
    """Return the parameter's text without spaces around it, or "".

    :raises Problem: it is too long, or holds what no name holds.
    """
    found = request.query_params.get(name, "").strip()
    if len(found) > longest or not found.isprintable():
        raise Problem("invalid_request", f"{name}: at most {longest} printable characters")
    return found


def choice(request: Request, name: str, allowed: tuple[str, ...], default: str = "") -> str:
    """Return the parameter, one of those allowed; the default if it is absent or empty.

    :raises Problem: it is another one.
    """
    found = text(request, name)
    if not found:
        return default
    if found not in allowed:
        raise Problem("invalid_request", f"{name}: one of {', '.join(allowed)}")
    return found


def moment(request: Request, name: str) -> datetime | None:
    """Return the parameter as a time; without an offset it is in UTC; None if it is absent or empty.

    :raises Problem: it is no RFC 3339 time or date, or outside the years 1970 to 2100.
    """
    found = text(request, name, 40)
    if not found:
        return None
    try:
        when = datetime.fromisoformat(found)
    except ValueError:
        raise Problem("invalid_request", f"{name}: {found!r} is no time such as 2026-10-05T14:00Z") from None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    # Compared before it is converted: the first and last hours of datetime's own range cannot be.
    if not datetime(1970, 1, 1, tzinfo=UTC) <= when < datetime(2100, 1, 1, tzinfo=UTC):
        raise Problem("invalid_request", f"{name}: between 1970 and 2100")
    return when.astimezone(UTC)


def span(request: Request, latest: datetime, default: timedelta, longest: timedelta) -> tuple[datetime, datetime]:
    """Return `from` and `to` (exclusive); without them the default length up to `latest`.

    :raises Problem: they are the wrong way round, or further apart than `longest`.
    """
    ends = moment(request, "to") or latest
    begins = moment(request, "from") or ends - default
    if begins >= ends:
        raise Problem("invalid_request", "from: must be before to")
    if ends - begins > longest:
        raise Problem("invalid_request", f"from: at most {longest.days} days before to")
    return begins, ends


def window(request: Request) -> Window | None:
    """Return the window of time asked for, None if there is none.

    :raises Problem: it is another one.
    """
    found = choice(request, "window", WINDOWS)
    return next((one for one in WINDOWS if one == found), None)


def zone(request: Request) -> ZoneInfo:
    """Return the time zone asked for, UTC by default.

    :raises Problem: there is none of that name.
    """
    name = text(request, "zone", 64) or "UTC"
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise Problem("invalid_request", f"zone: {name!r} is no IANA time zone such as Europe/Berlin") from None
