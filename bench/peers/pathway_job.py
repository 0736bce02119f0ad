"""The engine job in Pathway: two workers, all state in memory. Why these settings: README.md."""

import os
import time
from pathlib import Path
from typing import Any

import pathway as pw

from bench.peers.answer import CORES, Answer, Sums, directories, session_cpu_s

MINUTE_CHARS = len("2026-10-31T10:00")


class Event(pw.Schema):
    """The fields of an event which the job needs; `id` is a word of Pathway's own."""

    specversion: str
    event_id: str
    source: str
    type: str
    subject: str
    time: str
    tokens: int
    model: str


def totals(directory: Path) -> Any:
    """Define the job; return the table of one row with its sums."""
    events = pw.io.jsonlines.read(
        str(directory),
        schema=Event,
        mode="static",
        json_field_paths={"event_id": "/id", "tokens": "/data/input_tokens", "model": "/data/model"},
    )
    valid = events.filter(
        (pw.this.specversion == "1.0")
        & (pw.this.type == "llm.completion")
        & (pw.this.event_id != "")
        & (pw.this.source != "")
        & (pw.this.subject != "")
        & (pw.this.tokens >= 0)
    )
    first_of_each = valid.groupby(valid.subject, valid.source, valid.event_id).reduce(
        valid.subject,
        time=pw.reducers.any(valid.time),
        model=pw.reducers.any(valid.model),
        tokens=pw.reducers.any(valid.tokens),
    )
    by_minute = first_of_each.select(
        pw.this.subject, pw.this.model, pw.this.tokens, minute=pw.this.time.str.slice(0, MINUTE_CHARS)
    )
    facts = by_minute.groupby(by_minute.subject, by_minute.model, by_minute.minute).reduce(
        events=pw.reducers.count(), tokens=pw.reducers.sum(by_minute.tokens)
    )
    return facts.reduce(
        facts=pw.reducers.count(), events=pw.reducers.sum(facts.events), tokens=pw.reducers.sum(facts.tokens)
    )


def run(directory: Path) -> Answer:
    """Run the job over the events of a directory."""
    rows: list[dict[str, int]] = []

    def take(key: Any, row: dict[str, int], time: int, is_addition: bool) -> None:
        if is_addition:
            rows.append(row)

    pw.internals.parse_graph.G.clear()  # what is defined is kept until then, and would run again
    began_s, began_cpu_s = time.perf_counter(), session_cpu_s()
    pw.io.subscribe(totals(directory), on_change=take)
    pw.run(monitoring_level=pw.MonitoringLevel.NONE)
    seconds = time.perf_counter() - began_s
    return Answer(Sums(**rows[-1]), seconds, session_cpu_s() - began_cpu_s, pw.__version__)


def main() -> None:
    """Run over the warm-up, then over the input."""
    if os.environ.get("PATHWAY_THREADS") != str(CORES):
        message = f"set PATHWAY_THREADS={CORES}: Pathway reads it while it is imported"
        raise SystemExit(message)
    for directory in directories():
        answer = run(directory)
    print(answer.line())


if __name__ == "__main__":
    main()
