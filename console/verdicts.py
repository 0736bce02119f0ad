"""What the flow will say of events that are only just posted: accepted, or refused with a reason.

Nearly all events plainly are good, which a quick look tells. What it leaves is decoded as the flow does: many in
columns, a few one by one, since columns cost little per event and much per batch. All three agree.
"""

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from config.revision import History, Revision
from operators.decode import FAST_BYTES_MIN, FAST_LINES_MIN, Decoder
from operators.decode_lines import reject_row
from operators.decode_plan import WHITESPACE, RevisionPlan
from operators.decode_quick import QuickLook
from operators.decode_slow import Rejected, decode_event
from operators.items import EVENT, RawBatch

_NO_POSITION: Final = (0, 0, 0, 0)


@dataclass(slots=True)
class Verdicts:
    """On a batch of events, by their places: the subject of an accepted one, reason and detail of another."""

    subjects: list[str | None]
    reasons: dict[int, tuple[str, str]] = field(default_factory=dict)


class Judge:
    """Decides by the revisions of one history. Not thread-safe; every event gets exactly one verdict."""

    def __init__(self, history: History, streams: tuple[str, ...]) -> None:
        self.history = history
        self._decoder = Decoder(history, streams, 1)
        self._prepared: tuple[Revision, RevisionPlan, QuickLook] | None = None

    def decide(self, events: list[bytes], now_ms: int) -> Verdicts:
        """Return the verdicts on events that arrive at `now_ms`."""
        plan, look = self._of(self.history.at(now_ms))
        found = Verdicts(look.subjects(events, now_ms))
        places = [place for place, subject in enumerate(found.subjects) if subject is None]
        if not places:
            return found
        left = [events[place] for place in places]
        if len(left) < FAST_LINES_MIN and sum(map(len, left)) < FAST_BYTES_MIN:
            _one_by_one(left, places, now_ms, plan, found)
        else:
            self._in_columns(left, places, now_ms, found)
        return found

    def _of(self, revision: Revision) -> tuple[RevisionPlan, QuickLook]:
        if self._prepared is None or self._prepared[0] is not revision:
            plan = RevisionPlan(revision)
            self._prepared = revision, plan, QuickLook(plan)
        return self._prepared[1], self._prepared[2]

    def _in_columns(self, events: list[bytes], places: list[int], now_ms: int, found: Verdicts) -> None:
        count = len(events)
        batch = RawBatch(
            stream=np.zeros(count, np.uint16),
            entry_ms=np.full(count, now_ms, np.int64),
            entry_seq=np.arange(count, dtype=np.int64),
            kinds=np.full(count, EVENT, np.uint8),
            payloads=events,
            details={},
        )
        for _, decoded in self._decoder.decode(batch):
            for number, subject in decoded.events.select("entry_seq", "tenant").iter_rows():
                found.subjects[places[number]] = subject
            counted = decoded.rejects.filter(decoded.rejects["counted"])
            for number, reason, detail in counted.select("entry_seq", "reason", "detail").iter_rows():
                found.reasons[places[number]] = reason, detail


def _one_by_one(events: list[bytes], places: list[int], now_ms: int, plan: RevisionPlan, found: Verdicts) -> None:
    for place, event in zip(places, events, strict=True):
        line = event.strip(WHITESPACE)
        verdict = decode_event(line, now_ms, plan)
        if isinstance(verdict, Rejected):
            row = reject_row(_NO_POSITION, verdict.reason, verdict.detail, line, counted=True)
            found.reasons[place] = row[4], row[5]
        else:
            found.subjects[place] = verdict.columns["tenant"]
