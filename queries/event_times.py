"""How long each step of an event's life took: from its own time to the ERP."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from queries.event_trace import EventTrace


@dataclass(frozen=True, slots=True)
class TimedStep:
    """A step, when it was, and how long after what it waited for (`took`); None for the first.

    Booking in the ERP is told from the posting's making on, so that all attempts are in it.
    """

    step: str
    at: datetime
    took: timedelta | None = None


def timed_steps(trace: EventTrace) -> list[TimedStep]:
    """Return the steps that left a time: used, arrived, and each posting's making, attempts, booking and read-back.

    Sealing leaves none: an hour is complete once the watermark has passed its end and the grace.
    """
    row = trace.accepted
    if row is None:
        return [TimedStep(f"refused: {one['reason']}", one["ingest_time"]) for one in trace.refused]
    used, arrived = row["event_time"], row["ingest_time"]
    steps = [TimedStep("used", used), TimedStep("arrived", arrived, arrived - used)]
    postings = {
        document["posting"]["key"]: document["posting"]
        for meter in trace.meters
        for document in meter.documents
        if document["posting"]
    }
    for posting in postings.values():
        steps += _posting_steps(posting, arrived)
    steps += [
        TimedStep(f"taken back by {one['id']}", one["ingest_time"], one["ingest_time"] - used) for one in trace.voids
    ]
    return steps


def _posting_steps(posting: dict[str, Any], arrived: datetime) -> list[TimedStep]:
    key, made = posting["key"], posting["created_at"]
    steps = [TimedStep(f"posting {key} made", made, made - arrived)]
    for attempt in posting["attempts"]:
        number, begun, ended = attempt["attempt"], attempt["started_at"], attempt["finished_at"]
        steps.append(TimedStep(f"attempt {number} begun", begun, begun - steps[-1].at))
        if ended is not None:
            outcome = attempt["outcome"] or "ended"
            steps.append(TimedStep(f"attempt {number} {outcome}", ended, ended - begun))
    for entry in posting["erp_entries"]:
        booked = entry["posted_at"]
        steps.append(TimedStep(f"in the ERP as {entry['number']}", booked, booked - made))
    if posting["state"] == "RECONCILED":
        read_back = posting["changed_at"]
        steps.append(TimedStep("read back and reconciled", read_back, read_back - steps[-1].at))
    return steps
