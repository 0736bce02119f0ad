"""How long `reconcile` and traces take for a day of events, and in how much memory: `python -m bench.reconcile`.

Everything that the day left is compared: events, counts, facts, rated rows, documents and their copies. It fails if
anything differs, since the day was made so that nothing does.
"""

import resource
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time

from bench.figures import Figure, figure
from bench.stored_day import stored_day
from queries.document_trace import trace_document
from queries.event_trace import trace_event
from queries.reconcile import Report, reconcile, span_of
from queries.stores import Stores, open_stores

EVENTS: int = 10_000_000
EVENTS_QUICK: int = 200_000


def measure(*, quick: bool) -> list[Figure]:
    """Return seconds of a whole reconciliation, and the peak of this process's memory over it."""
    events = EVENTS_QUICK if quick else EVENTS
    with tempfile.TemporaryDirectory(prefix="meterbridge-bench-") as name, stored_day(Path(name), events) as settings:
        seconds, processor_s = [], []
        before_mib = _peak_mib()
        with open_stores(settings) as stores:
            for _ in range(1 if quick else 3):
                began_s, began_processor_s = perf_counter(), process_time()
                _check(reconcile(stores, span_of(stores, None, None), _timed(began_s)))
                seconds.append(perf_counter() - began_s)
                processor_s.append(process_time() - began_processor_s)
            growth_mib = _peak_mib() - before_mib
            traces = _traces(stores, quick=quick)
    case = f"a day of {events:,} events"
    return [
        figure("reconcile", case, seconds, "s"),
        figure("reconcile", f"{case}, processor time without ClickHouse's", processor_s, "s"),
        figure("reconcile", f"{case}, growth of this process's memory", growth_mib, "MiB"),
        *(figure("reconcile", f"trace of {name} in {case}", values, "s") for name, values in traces.items()),
    ]


def _traces(stores: Stores, *, quick: bool) -> dict[str, list[float]]:
    """Return seconds of traces of events and documents spread over the day."""
    count = 3 if quick else 20
    spread = "ORDER BY cityHash64({}) LIMIT {{count:UInt32}}"
    events = stores.rows(f"SELECT source, id FROM @usage_events {spread.format('id')}", {"count": count})
    documents = stores.rows(f"SELECT key FROM @financial_documents {spread.format('key')}", {"count": count})
    taken: dict[str, list[float]] = {"an event": [], "a document": []}
    for event in events:
        began_s = perf_counter()
        if trace_event(stores, event["source"], event["id"]).accepted is None:
            message = f"{event} was not found"
            raise AssertionError(message)
        taken["an event"].append(perf_counter() - began_s)
    for document in documents:
        began_s = perf_counter()
        trace = trace_document(stores, document["key"])
        if trace is None or not all(charge.amounts_tie for charge in trace.charges):
            message = f"{document} does not tie"
            raise AssertionError(message)
        taken["a document"].append(perf_counter() - began_s)
    return taken


def _timed(began_s: float) -> Callable[[str], None]:
    def done(name: str) -> None:
        sys.stderr.write(f"{perf_counter() - began_s:7.2f} s  {name}\n")

    return done


def _check(report: Report) -> None:
    empty = [check.name for check in report.checks if not check.groups]
    never = {"refused events are stored", "what has no price is unrated", "postings hold their documents"}
    if not report.holds or set(empty) - never:
        broken = [(check.name, check.breaks[:2]) for check in report.checks if not check.holds]
        message = f"the day does not reconcile: {broken}; nothing compared: {empty}"
        raise AssertionError(message)


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    for one in measure(quick="--quick" in sys.argv):
        print(f"{one.case}: {one.value:.2f} {one.unit} ({one.lowest:.2f} to {one.highest:.2f})")
