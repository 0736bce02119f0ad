"""How values are written on pages: exact, grouped, with their unit. Filters of the templates.

Nothing here rounds a number away in silence: amounts show every digit they have, at least the currency's minor unit,
and what is shortened is shortened by words ("3 h ago") beside the exact value.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo

from core.currencies import exponent, is_known

NOTHING: Final = "\N{EN DASH}"
_MINUS: Final = "\N{MINUS SIGN}"
_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))

STATES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("accepted", "POSTED", "RECONCILED", "sealed", "ready", "holds", "answers", "open"), "good"),
    **dict.fromkeys(("PENDING", "SUBMITTED", "ACCEPTED", "IN_POSTING", "STAGED", "provisional"), "info"),
    **dict.fromkeys(("NOT_POSTED_ZERO", "SUPERSEDED", "REVERSED", "duplicate", "filtered", "closed"), "plain"),
    **dict.fromkeys(("HELD", "voided", "late_usage", "void", "unrated", "waiting"), "warn"),
    **dict.fromkeys(("UNKNOWN", "CONFLICT", "DUPLICATED", "MISMATCHED", "NOT IN THE LEDGER"), "bad"),
    **dict.fromkeys(("rejected", "conflicting_duplicate", "breaks", "missing", "unknown"), "bad"),
}
"""The badge of each state, of whatever it is the state."""


def count(value: int | None) -> str:
    """Return a whole number, grouped: `1,234,567`."""
    return NOTHING if value is None else _grouped(Decimal(value))


def quantity(value: Decimal | int | str | None) -> str:
    """Return a quantity with all digits that matter: `1,234.5`."""
    if value is None or value == "":
        return NOTHING
    return _grouped(_trimmed(Decimal(value)))


def money(value: Decimal | int | str | None, currency: str = "") -> str:
    """Return an amount with its currency: all its digits, and the minor unit's at least (`-1,234.50 USD`)."""
    if value is None or value == "":
        return NOTHING
    number = _trimmed(Decimal(value))
    places = exponent(currency) if is_known(currency) else 2
    digits = max(places, -_exponent_of(number))
    text = _grouped(number, digits)
    return f"{text} {currency}".rstrip()


def about(value: Decimal | None, currency: str = "") -> str:
    """Return an estimate, rounded to the currency's minor unit, or to whole units without a currency."""
    if value is None:
        return NOTHING
    places = (exponent(currency) if is_known(currency) else 2) if currency else 0
    return f"{_grouped(value.quantize(Decimal(1).scaleb(-places)), places)} {currency}".rstrip()


def when(value: datetime | None) -> str:
    """Return a moment with its zone: `2026-10-05 14:03:09 UTC`; parts that are zero in every row stay, to align."""
    if value is None:
        return NOTHING
    return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def minute(value: datetime | None) -> str:
    """Return a moment to the minute: `2026-10-05 14:03 UTC`."""
    return NOTHING if value is None else f"{value.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def local(value: datetime, zone: str) -> str:
    """Return a moment in a time zone, with its offset: `2026-10-25 02:00 +0200`; UTC says so."""
    shown = value.astimezone(ZoneInfo(zone))
    return f"{shown:%Y-%m-%d %H:%M} " + ("UTC" if zone == "UTC" else f"{shown:%z}")


def iso(value: datetime | None) -> str:
    """Return a moment for a `datetime` attribute or a link."""
    return "" if value is None else value.astimezone(UTC).isoformat().replace("+00:00", "Z")


def duration(value: timedelta | Decimal | float | int | None) -> str:
    """Return a length of time by its two largest units: `3 d 4 h`, `12 min`, `850 ms`."""
    if value is None:
        return NOTHING
    milliseconds = int(value / timedelta(milliseconds=1)) if isinstance(value, timedelta) else int(value * 1000)
    sign, milliseconds = (_MINUS, -milliseconds) if milliseconds < 0 else ("", milliseconds)
    if milliseconds < 1000:
        return f"{sign}{milliseconds} ms"
    rest = milliseconds // 1000
    parts: list[str] = []
    for seconds, name in _UNITS:
        if rest >= seconds and len(parts) < 2:
            parts.append(f"{rest // seconds} {name}")
            rest %= seconds
        elif parts:
            break
    return sign + " ".join(parts)


def ago(value: datetime | None, now: datetime) -> str:
    """Return how long ago a moment was: `3 h 2 min ago`."""
    if value is None:
        return NOTHING
    gone = now - value
    if abs(gone) < timedelta(seconds=1):
        return "just now"
    first, *rest = duration(abs(gone)).split(" ")
    near = " ".join([first, *(rest if first == "1" else rest[:1])])  # the second unit matters behind a 1 only
    return f"in {near}" if gone < timedelta(0) else f"{near} ago"


def share(part: Decimal | int | None, whole: Decimal | int | None) -> str:
    """Return part of whole in per cent: `12.3 %`. A part that is not nothing never shows as zero."""
    if part is None or not whole:
        return NOTHING
    per_cent = Decimal(part) * 100 / Decimal(whole)
    if 0 < per_cent < Decimal("0.1"):
        return "< 0.1 %"
    if Decimal("-0.1") < per_cent < 0:
        return f"> {_MINUS}0.1 %"
    return f"{per_cent.quantize(Decimal('0.1'))} %".replace("-", _MINUS)


def signed(value: Decimal | int | None, currency: str = "") -> str:
    """Return a change with its sign: `+12.40 USD`."""
    if value is None:
        return NOTHING
    text = money(value, currency) if currency else quantity(value)
    return text if Decimal(value) <= 0 else f"+{text}"


def state_class(state: str | None) -> str:
    """Return the badge's class for a state: good, warn, bad, info or plain."""
    return STATES.get(str(state or ""), "plain")


def words(value: str | None) -> str:
    """Return a code as words: `missing_property` becomes `missing property`, `NOT_POSTED_ZERO` `not posted zero`."""
    return NOTHING if not value else str(value).replace("_", " ").lower()


def plural(number: int, one: str, many: str = "") -> str:
    """Return a count with its noun: `1 document`, `2 documents`."""
    return f"{count(number)} {one if number == 1 else many or one + 's'}"


FILTERS: Final[dict[str, Callable[..., Any]]] = {
    "count": count,
    "quantity": quantity,
    "money": money,
    "about": about,
    "when": when,
    "minute": minute,
    "iso": iso,
    "local": local,
    "duration": duration,
    "ago": ago,
    "share": share,
    "signed": signed,
    "state_class": state_class,
    "words": words,
    "plural": plural,
}


def _trimmed(number: Decimal) -> Decimal:
    """Return the number without zeros behind its last digit that matters."""
    sign, digits, places = number.as_tuple()
    if not isinstance(places, int):
        return number
    while places < 0 and digits and digits[-1] == 0:
        digits, places = digits[:-1], places + 1
    return Decimal((sign, digits or (0,), places if digits else 0))


def _exponent_of(number: Decimal) -> int:
    places = number.as_tuple().exponent
    return places if isinstance(places, int) else 0


def _grouped(number: Decimal, places: int | None = None) -> str:
    """Return the number with thousands apart and a true minus; never rounds."""
    text = f"{number:,f}" if places is None else f"{number:,.{places}f}"
    return text.replace("-", _MINUS)
