"""Which customer a subject belonged to at a time."""

from bisect import bisect_right
from datetime import UTC, datetime, timedelta
from typing import Final

from config.customers import Customer
from config.revision import Revision

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_ALWAYS_US: Final = -(1 << 63)


class SubjectIndex:
    """The subjects of one revision.

    An assignment counts from its `from` (from the beginning if absent) to its `to`, else to the next assignment of the
    same subject, else for ever. Where two would begin at the same time, the customer listed later counts.
    """

    def __init__(self, revision: Revision) -> None:
        found: dict[str, list[tuple[int, int, int | None, Customer]]] = {}
        for order, customer in enumerate(revision.configuration.customers):
            for assignment in customer.subjects:
                start_us = _ALWAYS_US if assignment.from_ is None else _us(assignment.from_)
                stop_us = None if assignment.to is None else _us(assignment.to)
                found.setdefault(assignment.id, []).append((start_us, order, stop_us, customer))
        self._starts: dict[str, list[int]] = {}
        self._assignments: dict[str, list[tuple[int | None, Customer]]] = {}
        for subject, rows in found.items():
            rows.sort(key=lambda row: row[:2])
            self._starts[subject] = [start_us for start_us, _, _, _ in rows]
            self._assignments[subject] = [(stop_us, customer) for _, _, stop_us, customer in rows]

    def customer_at(self, subject: str, when_us: int) -> Customer | None:
        """Return the subject's customer at that Unix time in microseconds, or None if it had none."""
        starts = self._starts.get(subject)
        if starts is None:
            return None
        place = bisect_right(starts, when_us) - 1
        if place < 0:
            return None
        stop_us, customer = self._assignments[subject][place]
        return customer if stop_us is None or when_us < stop_us else None

    def subjects(self) -> tuple[str, ...]:
        """Return all subjects that some customer has at some time, in order."""
        return tuple(sorted(self._starts))


def _us(when: datetime) -> int:
    return (when - _EPOCH) // timedelta(microseconds=1)
