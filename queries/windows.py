"""Where windows of time begin in a time zone: minutes, hours, days, months, daylight saving included. Pure.

A window's border is a moment in UTC. A day of 23 or 25 hours is one window; the hour that occurs twice in autumn is
two; an hour that a zone shifts by half of it begins where the local hour does.
"""

from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from typing import Final, Literal
from zoneinfo import ZoneInfo

from core.errors import InvalidRequest

Window = Literal["minute", "hour", "day", "month", "total"]

WINDOWS_MAX: Final = 5_000
_QUARTER: Final = timedelta(minutes=15)
"""All time zones of our time differ from UTC by whole quarters of an hour."""


def zone_of(name: str) -> ZoneInfo:
    """Return the time zone.

    :raises InvalidRequest: there is none of that IANA name.
    """
    try:
        return ZoneInfo(name)
    except (ValueError, OSError) as error:  # ZoneInfoNotFoundError is a KeyError, but a bad name may be any of these
        raise _unknown(name) from error
    except KeyError as error:
        raise _unknown(name) from error


def _unknown(name: str) -> InvalidRequest:
    return InvalidRequest(f"{name[:64]!r} is no IANA time zone such as Europe/Berlin or UTC")


def borders(window: Window, zone: ZoneInfo, begins: datetime, ends: datetime) -> list[datetime]:
    """Return the beginnings of the windows that cover [begins, ends), and behind them the end of the last one.

    Windows at the edges are whole: the first may begin before `begins`. `total` is one window as asked for.

    :raises InvalidRequest: the span is empty, or holds more than WINDOWS_MAX windows.
    """
    if begins >= ends:
        message = f"the span is empty: it begins at {begins.isoformat()} and ends at {ends.isoformat()}"
        raise InvalidRequest(message)
    begins, ends = begins.astimezone(UTC), ends.astimezone(UTC)
    if window == "total":
        return [begins, ends]
    longest = {"minute": 60, "hour": 3_600, "day": 86_400, "month": 28 * 86_400}[window]
    if (ends - begins).total_seconds() / longest > WINDOWS_MAX:
        message = f"the span holds more than {WINDOWS_MAX:,} windows of one {window}: ask for a part, or larger windows"
        raise InvalidRequest(message)
    if window == "minute":
        return _steps(begins.replace(second=0, microsecond=0), ends, timedelta(minutes=1))
    return _hours(zone, begins, ends) if window == "hour" else _dates(window, zone, begins, ends)


def _steps(first: datetime, ends: datetime, step: timedelta) -> list[datetime]:
    found = [first]
    while found[-1] < ends:
        found.append(found[-1] + step)
    return found


def _hours(zone: ZoneInfo, begins: datetime, ends: datetime) -> list[datetime]:
    """Walk by quarters: an hour begins where the local clock shows a full hour, or another hour than before."""
    first = begins.replace(minute=begins.minute // 15 * 15, second=0, microsecond=0)
    while not _begins_hour(zone, first):
        first -= _QUARTER
    found, moment = [first], first + _QUARTER
    while found[-1] < ends:
        if _begins_hour(zone, moment):
            found.append(moment)
        moment += _QUARTER
    return found


def _begins_hour(zone: ZoneInfo, moment: datetime) -> bool:
    local, before = moment.astimezone(zone), (moment - _QUARTER).astimezone(zone)
    return local.minute == 0 or (local.date(), local.hour) != (before.date(), before.hour)


def _dates(window: Window, zone: ZoneInfo, begins: datetime, ends: datetime) -> list[datetime]:
    day = begins.astimezone(zone).date()
    day = day if window == "day" else day.replace(day=1)
    found = [_midnight(day, zone)]
    if found[0] > begins:  # midnight comes twice there, and we are between the two
        day = _before(window, day)
        found.insert(0, _midnight(day, zone))
        day = _behind(window, day)
    while found[-1] < ends:
        day = _behind(window, day)
        found.append(_midnight(day, zone))
    return found


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, time(), zone).astimezone(UTC)


def _behind(window: Window, day: date) -> date:
    return day + timedelta(days=1) if window == "day" else (day + timedelta(days=31)).replace(day=1)


def _before(window: Window, day: date) -> date:
    return day - timedelta(days=1) if window == "day" else (day - timedelta(days=1)).replace(day=1)


def windows(found: list[datetime]) -> dict[datetime, datetime]:
    """Return the end of each window by its beginning."""
    return dict(pairwise(found))
