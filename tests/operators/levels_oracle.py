"""What `weighted_sum` has to book, computed the slow way from the design: minute by minute, from sets of changes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

import orjson
import polars as pl

from config.revision import Configuration, History, Revision
from core.frames import EVENT_SCHEMA, QUANTITY
from tests.operators.book_oracle import exact

BORDER_MINUTE: Final = 29_498_400 - 330
"""2026-01-31T18:30Z: in Kolkata a month begins, in the middle of an hour of UTC."""
CHANGE_MS: Final = (BORDER_MINUTE + 47) * 60_000
"""From here on the second revision counts."""
METERS: Final[list[dict[str, Any]]] = [
    {"id": "held", "aggregation": "weighted_sum", "value": "$.n", "group_by": {"model": "$.model"}},
    {"id": "leased", "aggregation": "weighted_sum", "value": "$.n"},
]
TENANTS: Final = ("kolkata", "nobody")

_CONTRACT: Final = {
    "id": "k",
    "plan": "p",
    "entity": "E",
    "from": "2020-01-01T00:00:00Z",
    "billing_period": {"unit": "month", "timezone": "Asia/Kolkata"},
}
_ERP: Final = {"adapter": "journal", "company": "E"}
_PLAIN: Final[dict[str, Any]] = {
    "plans": [
        {
            "id": "p",
            "versions": [
                {
                    "effective_from": "2020-01-01T00:00:00Z",
                    "currency": "USD",
                    "charges": [{"id": "c", "meter": "held", "model": "per_unit", "unit_amount": "1"}],
                }
            ],
        }
    ],
    "entities": [{"id": "E", "functional_currency": "USD", "timezone": "UTC", "accounts": {}, "erp": _ERP}],
    "customers": [{"id": "kolkata", "subjects": ["kolkata"], "contracts": [_CONTRACT]}],
}


def history(
    graces_s: tuple[int, int] = (60, 60), expiries: tuple[str | None, str | None] = ("PT90M", "PT90M"), **rules: int
) -> History:
    revisions = []
    for number, known_from_ms in enumerate((0, CHANGE_MS)):
        expiring = {"held": None, "leased": expiries[number]}
        meters = [{**meter, "event_type": "level", "level_expiry": expiring[meter["id"]]} for meter in METERS]
        plain = _PLAIN | {"meters": meters, "rules": {"grace_s": graces_s[number], **rules}}
        revisions.append(Revision(Configuration.model_validate(plain), known_from_ms))
    return History(revisions)


@dataclass(frozen=True)
class LevelEvent:
    """One accepted level change, or (`sign` -1) the void of it."""

    position: tuple[int, int, int, int]
    tenant: str
    time_us: int
    level: int
    """Scaled by 10^12."""
    model: str
    number: int
    """Which event it is; a void has its original's number."""
    sign: int = 1

    def series(self, meter: str) -> tuple[str, str, str]:
        dimensions = orjson.dumps({"model": self.model}).decode() if meter == "held" else "{}"
        return (meter, self.tenant, dimensions)


def to_frame(events: Sequence[LevelEvent]) -> pl.DataFrame:
    """Return the events as decode and dedupe would hand them on."""
    rows: list[dict[str, Any]] = []
    for event in events:
        row: dict[str, Any] = dict(zip(("entry_ms", "stream", "entry_seq", "entry_index"), event.position, strict=True))
        own_time_us = event.time_us if event.sign > 0 else event.position[0] * 1000
        row |= {"source": "s", "id": str(event.number), "type": "level", "tenant": event.tenant, "raw": "{}"}
        row |= {"event_time_us": own_time_us, "usage_time_us": event.time_us, "sign": event.sign}
        row |= {"identity_hi": event.number, "identity_lo": 7, "content": 0, "void_content": 0}
        for meter in ("held", "leased"):
            row |= {f"v:{meter}": exact(event.level), f"d:{meter}": event.series(meter)[2]}
        rows.append(row)
    schema: dict[str, Any] = dict(EVENT_SCHEMA)
    for meter in ("held", "leased"):
        schema |= {f"v:{meter}": QUANTITY, f"d:{meter}": pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row")


Key = tuple[str, str, str, int, int]
Fact = tuple[Decimal, int, int]
"""value, events, version"""


def booked_minute(event: LevelEvent, revisions: History) -> int:
    usage = event.time_us // 60_000_000
    grace_s = revisions.at(event.position[0]).rules.grace_s
    in_time = event.position[0] < (usage + 1) * 60_000 + grace_s * 1000
    return usage if in_time else event.position[0] // 60_000


def expiry_us(meter: str, minute: int, revisions: History) -> int | None:
    expiry = revisions.at(minute * 60_000).meters[meter].level_expiry
    return None if expiry is None else int(expiry.total_seconds() * 1_000_000)


def surviving(events: Iterable[LevelEvent]) -> list[LevelEvent]:
    events = list(events)
    voided = {event.number for event in events if event.sign < 0}
    kept = [event for event in events if event.sign > 0 and event.number not in voided]
    return sorted(kept, key=lambda event: (event.time_us, event.position))


Span = tuple[int, int, int]
"""From one time to another in microseconds, the level."""


def spans(events: Iterable[LevelEvent], end_us: int, expiry: int | None) -> list[Span]:
    """Return when which level holds, until `end_us`."""
    changes = surviving(events)
    starts = [change.time_us for change in changes] + [end_us]
    ends = [end_us if expiry is None else change.time_us + expiry for change in changes]
    return [
        (change.time_us, min(until, ends[place], end_us), change.level)
        for place, (change, until) in enumerate(zip(changes, starts[1:], strict=True))
    ]


def integral(held: Iterable[Span], begin_us: int, end_us: int) -> Fraction:
    """Return the exact integral in level-seconds, scaled by 10^12."""
    return Fraction(
        sum(level * max(0, min(until, end_us) - max(since, begin_us)) for since, until, level in held), 1_000_000
    )


def pieces(tenant: str, hour: int) -> list[tuple[int, int]]:
    begin, end = hour * 60, hour * 60 + 60
    if tenant == "kolkata" and begin < BORDER_MINUTE < end:
        return [(begin, BORDER_MINUTE), (BORDER_MINUTE, end)]
    return [(begin, end)]


def _value(events: Iterable[LevelEvent], piece: tuple[int, int], expiry: int | None) -> int:
    """Return the integral of a piece; each minute is rounded half-even to 12 places, as `round` does."""
    held = spans(events, piece[1] * 60_000_000, expiry)
    return sum(round(integral(held, at * 60_000_000, (at + 1) * 60_000_000)) for at in range(*piece))


def sealed(events: Sequence[LevelEvent], revisions: History, border: int) -> dict[Key, Fact]:
    """Return all facts of booked minutes below the border."""
    facts: dict[Key, Fact] = {}
    for series in {event.series(meter) for event in events for meter in ("held", "leased")}:
        mine = [(booked_minute(event, revisions), event) for event in events if event.series(series[0]) == series]
        first = min(event.time_us for _, event in mine) // 3_600_000_000
        arrivals = {minute for minute, _ in mine}
        hour_ends = {hour * 60 + 59 for hour in range(first, border // 60)}
        for minute in sorted(arrivals | hour_ends):
            if minute >= border:
                continue
            before = [event for at, event in mine if at < minute]
            after = [event for at, event in mine if at <= minute]
            expiry = expiry_us(series[0], minute, revisions)
            hours = range(first, minute // 60) if minute in arrivals else ()
            for hour in hours:
                coming = [event for at, event in mine if at == minute]
                for piece in pieces(series[1], hour):
                    value = _value(after, piece, expiry) - _value(before, piece, expiry)
                    _put(facts, series, piece, minute, value, coming)
            if minute % 60 == 59:
                for piece in pieces(series[1], minute // 60):
                    _put(facts, series, piece, minute, _value(after, piece, expiry), after)
    return facts


def _put(
    facts: dict[Key, Fact],
    series: tuple[str, str, str],
    piece: tuple[int, int],
    minute: int,
    value: int,
    counted: Iterable[LevelEvent],
) -> None:
    signs = [event.sign for event in counted if piece[0] <= event.time_us // 60_000_000 < piece[1]]
    if value or signs:
        facts[*series, piece[0], minute] = (exact(value), sum(signs), len(signs))
