"""`weighted_sum` the naive way: whole sets of changes, booked minute by booked minute, hour by hour."""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal, localcontext

MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US
PLACES = Decimal(1).scaleb(-12)

Fact = tuple[Decimal, int, int]


@dataclass(frozen=True)
class LevelChange:
    """An accepted level change of one series, or (`sign` -1) the void of it."""

    booked_minute: int
    time_us: int
    position: tuple[int, ...]
    identity: tuple[str, str]
    level: Decimal
    sign: int


def level_facts(rows: list[LevelChange], expiry_us: int, until_hour: int) -> dict[tuple[int, int], Fact]:
    """Return (value, events, inputs) by (usage minute, booked minute) of one series, for booked hours up to that one.

    Knows of no terms that change inside an hour.
    """
    facts: dict[tuple[int, int], Fact] = {}
    first = min(row.time_us for row in rows) // HOUR_US
    for minute in sorted({row.booked_minute for row in rows}):
        before = _held([row for row in rows if row.booked_minute < minute], expiry_us)
        after = _held([row for row in rows if row.booked_minute <= minute], expiry_us)
        coming = [row for row in rows if row.booked_minute == minute]
        for hour in range(first, minute // 60):
            _put(facts, hour, minute, _integral(after, hour) - _integral(before, hour), coming)
    for hour in range(first, until_hour):
        minute = hour * 60 + 59
        known = [row for row in rows if row.booked_minute <= minute]
        _put(facts, hour, minute, _integral(_held(known, expiry_us), hour), known)
    return facts


def _put(facts: dict[tuple[int, int], Fact], hour: int, minute: int, value: Decimal, rows: list[LevelChange]) -> None:
    signs = [row.sign for row in rows if row.time_us // HOUR_US == hour]
    if value or signs:
        facts[hour * 60, minute] = (value, sum(signs), len(signs))


def _held(rows: list[LevelChange], expiry_us: int) -> list[tuple[int, int, Decimal]]:
    """Return from when to when which level holds."""
    voided = {row.identity for row in rows if row.sign < 0}
    changes = [row for row in rows if row.identity not in voided]
    changes.sort(key=lambda row: (row.time_us, row.position))
    ends = [
        min(change.time_us + expiry_us, *(later.time_us for later in changes[at + 1 : at + 2]), 1 << 62)
        for at, change in enumerate(changes)
    ]
    return [(change.time_us, end, change.level) for change, end in zip(changes, ends, strict=True)]


def _integral(held: list[tuple[int, int, Decimal]], hour: int) -> Decimal:
    begin = hour * HOUR_US
    touching = [span for span in held if span[0] < begin + HOUR_US and span[1] > begin]
    if all(since <= begin and until >= begin + HOUR_US for since, until, _ in touching):
        return sum((level * 3600 for _, _, level in touching), Decimal(0))
    return sum((_minute(touching, begin + at * MINUTE_US) for at in range(60)), Decimal(0))


def _minute(held: Iterable[tuple[int, int, Decimal]], begin: int) -> Decimal:
    with localcontext() as context:
        context.prec = 60
        product = sum(
            (level * max(0, min(until, begin + MINUTE_US) - max(since, begin)) for since, until, level in held),
            Decimal(0),
        )
        return (product / 1_000_000).quantize(PLACES, ROUND_HALF_EVEN)
