"""Which charges rate a series, and when: the same look-ups that rating makes, for one series at a time."""

from dataclasses import dataclass
from typing import Final

from config.revision import History, Revision
from operators.rate_terms import Terms, index_of
from operators.rating.schema import Simple

_MINUTES_PER_HOUR: Final = 60
_MS_PER_HOUR: Final = 3_600_000


@dataclass(frozen=True, slots=True)
class Priced:
    """One charge that rates a series, the terms it does so under, and the booked hour of its rows."""

    terms: Terms
    charge: Simple
    price_row: str
    booked_hour: int
    revision: Revision


def owner_at(revision: Revision, subject: str, minute: int) -> str:
    """Return the customer a subject belongs to at that minute, "" if none."""
    for segment in index_of(revision).segments(subject, minute // _MINUTES_PER_HOUR):
        if segment.begins <= minute < segment.ends:
            return segment.customer
    return ""


def charges_of(
    history: History, subject: str, meter: str, dimensions: dict[str, str], usage_minute: int, booked_minute: int
) -> list[Priced]:
    """Return the charges that rate usage of that minute, booked at that one; empty while it is unrated.

    Usage that nothing priced when it was booked is rated in the first hour in which a revision does.
    """
    booked_hour = booked_minute // _MINUTES_PER_HOUR
    first = history.at(booked_hour * _MS_PER_HOUR)
    for revision in history.revisions:
        if revision.known_from_ms < first.known_from_ms:
            continue
        hour = max(booked_hour, revision.known_from_ms // _MS_PER_HOUR)
        found = [
            Priced(terms, *terms.pricing.prices[place], hour, revision)
            for segment in index_of(revision).segments(subject, usage_minute // _MINUTES_PER_HOUR)
            if segment.begins <= usage_minute < segment.ends
            for terms in segment.terms
            for place in terms.pricing.matching(meter, dimensions) or ()
        ]
        if found:
            return found
    return []
