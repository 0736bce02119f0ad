"""The peer: what one writes first with Bytewax. One item per event, stock operators, state in dictionaries.

Parse, drop repeated ids per tenant, sum tokens and count per tenant, model and minute: in event-time windows, which
is the same job, or as one sum that leaves at the end, which is the least it can do. It keeps state in memory only: no
recovery, no horizon, no conflicts, no voids, no stored rows. So it does less than the flow.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import bytewax.operators as op
import bytewax.operators.windowing as win
import orjson
from bytewax.dataflow import Dataflow
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.testing import TestingSource, run_main

BATCH_EVENTS = 1000
MINUTE_CHARS = len("2026-10-31T10:00")
LATENESS = timedelta(minutes=15)
ALIGN_TO = datetime(2026, 1, 1, tzinfo=UTC)

Sums = tuple[int, int]
"""Events and tokens."""


@dataclass
class Result:
    """What came out of all sums."""

    accepted: int = 0
    tokens: int = 0


def _first_time(seen: set[str] | None, event: dict[str, Any]) -> tuple[set[str], list[dict[str, Any]]]:
    seen = set() if seen is None else seen
    identity = f"{event['source']} {event['id']}"
    if identity in seen:
        return seen, []
    seen.add(identity)
    return seen, [event]


def _series_and_minute(pair: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    tenant, event = pair
    return f"{tenant} {event['data']['model']} {event['time'][:MINUTE_CHARS]}", event


def _add(sums: Sums, event: dict[str, Any]) -> Sums:
    return sums[0] + 1, sums[1] + event["data"]["input_tokens"]


def _merge(left: Sums, right: Sums) -> Sums:
    return left[0] + right[0], left[1] + right[1]


class _Adding(StatelessSinkPartition[Any]):
    def __init__(self, result: Result) -> None:
        self._result = result

    def write_batch(self, items: list[Any]) -> None:
        for _, sums in items:
            events, tokens = sums
            self._result.accepted += events
            self._result.tokens += tokens


class _Sink(DynamicSink[Any]):
    def __init__(self, result: Result) -> None:
        self._result = result

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _Adding:
        return _Adding(self._result)


def run(lines: list[bytes], *, windows: bool) -> Result:
    """Run the pipeline over the events to its end and return its sums."""
    result = Result()
    flow = Dataflow("peer")
    raw = op.input("read", flow, TestingSource(lines, BATCH_EVENTS))
    by_tenant = op.key_on("tenant", op.map("parse", raw, orjson.loads), lambda event: str(event["subject"]))
    new = op.stateful_flat_map("dedupe", by_tenant, _first_time)
    if windows:
        series = op.map("series", new, lambda pair: (f"{pair[0]} {pair[1]['data']['model']}", pair[1]))
        clock: Any = win.EventClock(lambda event: datetime.fromisoformat(event["time"]), LATENESS)
        minutes = win.TumblingWindower(length=timedelta(minutes=1), align_to=ALIGN_TO)
        folded = win.fold_window("sums", series, clock, minutes, lambda: (0, 0), _add, _merge)
        sums = op.map("without_window", folded.down, lambda item: (item[0], item[1][1]))
    else:
        sums = op.fold_final("sums", op.map("series", new, _series_and_minute), lambda: (0, 0), _add)
    op.output("write", sums, _Sink(result))
    run_main(flow)
    return result
