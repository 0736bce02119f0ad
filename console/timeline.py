"""An event's life as steps in order: for the page, and as rows for files."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import urlencode

from console.formats import money
from queries.event_trace import EventTrace
from queries.stores import Row

STEP_COLUMNS: Final = ("step", "at", "state", "text", "parts", "took_s")
_MINUTE: Final = timedelta(minutes=1)


@dataclass(slots=True)
class Step:
    """One step of an event's life. `state`: good, bad, none or empty; `parts` are short facts, `link` leads on."""

    title: str
    at: datetime | None
    state: str
    text: str = ""
    parts: dict[str, Any] = field(default_factory=dict)
    link: str = ""
    took: timedelta | None = None


def steps_of(trace: EventTrace) -> list[Step]:
    """Return the event's life in order, with how long each step took where both ends are known."""
    steps: list[Step] = []
    row = trace.accepted
    if row is not None:
        steps.append(Step("Used", row["event_time"], "good", "the time the event itself tells"))
        position = {"stream": row["stream"], "entry": row["entry_id"], "index": row["entry_index"]}
        arrived = Step("Arrived", row["ingest_time"], "good", "the id of its stream entry is its arrival", position)
        arrived.took = row["ingest_time"] - row["event_time"]
        late = row["booked_minute"] - row["event_time"].replace(second=0, microsecond=0)
        text = f"late: its own minute was sealed {late} before" if late >= _MINUTE else "in its own minute"
        steps += [arrived, Step("Accepted and booked", row["booked_minute"], "good", text)]
    steps.extend(
        Step(
            "Refused" if one["counted"] else "Not usable by a meter",
            one["ingest_time"],
            "bad",
            one["detail"],
            {"reason": one["reason"], "stream": one["stream"], "entry": one["entry_id"]},
        )
        for one in trace.refused
    )
    documents: dict[str, Row] = {}
    for meter in trace.meters:
        steps += _meter_steps(meter)
        documents |= {row["key"]: row for row in meter.documents}
    for row in documents.values():  # one document carries several meters
        steps += _document_steps(row)
    steps.extend(
        Step("Taken back", one["ingest_time"], "bad", "by a void", {"source": one["source"], "id": one["id"]})
        for one in trace.voids
    )
    return steps


def _meter_steps(meter: Any) -> list[Step]:
    steps = []
    for fact in meter.facts:
        parts = {
            "value": f"{fact['value'].normalize():f}",
            "events": fact["events"],
            "version": fact["version"],
            **meter.dimensions,
        }
        text = "sealed: it never changes again" if fact["sealed"] else "open: more may come"
        state = "good" if fact["sealed"] else "none"
        steps.append(Step(f"In usage of {meter.meter}", fact["usage_minute"], state, text, parts))
    for row in meter.rated:
        parts = {"plan": f"{row['plan']} v{row['plan_version']}", "kind": row["line_kind"], "status": row["status"]}
        text = f"{row['quantity'].normalize():,f} in the hour are {row['amount'].normalize():,f} {row['currency']}"
        asks = {"customer": row["customer"], "charge": row["charge"], "booked": f"{row['booked_hour']:%Y-%m-%dT%H:%M}"}
        link = f"/explain?{urlencode(asks)}"
        state = "good" if row["status"] == "sealed" else "none"
        steps.append(Step(f"Rated by {row['charge'] or 'no charge'}", row["booked_hour"], state, text, parts, link))
    return steps


def _document_steps(row: Row) -> list[Step]:
    amount = money(row["total"], row["currency"])
    steps = [Step(f"In document {row['key']}", row["booked_hour"], "good", amount, {}, f"/documents/{row['key']}")]
    posting = row["posting"]
    if posting is None:
        return steps
    for attempt in posting["attempts"]:
        took = None if attempt["finished_at"] is None else attempt["finished_at"] - attempt["started_at"]
        good = attempt["outcome"] in ("posted", "accepted", "Posted", "Accepted")
        steps.append(
            Step(
                f"Sent to {posting['adapter']}",
                attempt["started_at"],
                "good" if good else "none",
                f"{attempt['outcome'] or 'no answer yet'} {attempt['detail']}".strip(),
                {"posting": posting["key"], "attempt": attempt["attempt"]},
                took=took,
            )
        )
    steps.extend(
        Step("Booked in the ERP", entry["posted_at"], "good", f"number {entry['number']}", {"posting": posting["key"]})
        for entry in posting["erp_entries"]
    )
    if posting["state"] == "RECONCILED":
        steps.append(Step("Reconciled", posting["changed_at"], "good", "read back from the ERP and found equal"))
    elif posting["reason"]:
        steps.append(
            Step(posting["state"].lower(), posting["changed_at"], "bad", f"{posting['reason']}: {posting['detail']}")
        )
    return steps


def step_rows(steps: Sequence[Step]) -> Iterator[Row]:
    """Yield each step as a row: what, when, how it stands, and how long it took, in seconds."""
    for step in steps:
        yield {
            "step": step.title,
            "at": step.at,
            "state": step.state,
            "text": step.text,
            "parts": {name: str(value) for name, value in step.parts.items()},
            "took_s": None if step.took is None else step.took.total_seconds(),
        }
