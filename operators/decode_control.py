"""Control totals: what a source says that it sent in an hour, per meter. Pure; serves decode and reconciliation."""

from dataclasses import dataclass
from typing import Annotated, Final

import msgspec

from core.quantities import scaled_of_text
from operators.decode_times import time_us

TOTALS_MAX: Final = 1_000
EVENTS_MAX: Final = 10**18
_US_PER_HOUR: Final = 3_600_000_000


class _Total(msgspec.Struct, forbid_unknown_fields=True):
    meter: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    events: Annotated[int, msgspec.Meta(ge=0, le=EVENTS_MAX)]
    sum: str | int | None = None


class _Data(msgspec.Struct, forbid_unknown_fields=True):
    hour: str
    totals: Annotated[list[_Total], msgspec.Meta(min_length=1, max_length=TOTALS_MAX)]


@dataclass(frozen=True, slots=True)
class ControlTotal:
    """What a source sent for one meter in one hour of event time: events, and the sum of values if it was given.

    `scaled_sum` counts units of the twelfth decimal place.
    """

    hour: int
    """Since 1970-01-01T00:00Z."""
    meter: str
    events: int
    scaled_sum: int | None


def control_totals(data: str | bytes) -> list[ControlTotal]:
    """Read the `data` of a control event.

    :raises ValueError: it has not the form that docs/events.md gives; the message says where.
    """
    try:
        found = msgspec.json.decode(data, type=_Data)
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from None
    hour_us = time_us(found.hour)
    if hour_us is None or hour_us % _US_PER_HOUR:
        message = "$.hour is not an RFC 3339 time on the full hour, such as 2026-11-24T10:00:00Z"
        raise ValueError(message)
    if len({total.meter for total in found.totals}) < len(found.totals):
        message = "$.totals names a meter twice"
        raise ValueError(message)
    return [ControlTotal(hour_us // _US_PER_HOUR, one.meter, one.events, _scaled(one)) for one in found.totals]


def _scaled(total: _Total) -> int | None:
    if total.sum is None:
        return None
    scaled = scaled_of_text(str(total.sum))
    if scaled is None:
        message = f'$.totals: the sum of {total.meter} is not a quantity, such as "12.5"'
        raise ValueError(message)
    return scaled
