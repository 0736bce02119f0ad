"""`meterbridge trace`: from an event to the ERP, and from a document back to its events."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cli.context import context
from cli.output import emit, note
from core.errors import InvalidRequest

app = typer.Typer(
    help="Follow an event to the ERP, or a document back to its events.", no_args_is_help=True, add_completion=False
)


@app.command("event")
def event(
    source: Annotated[str, typer.Argument(help="The event's CloudEvents source.")],
    event_id: Annotated[str, typer.Argument(metavar="ID", help="The event's id.")],
) -> None:
    """Show the life of one event: arrival, outcome, facts, rated rows, documents, posting, ERP number, and its times.

    Duplicates that were dropped leave a count per stream and minute (table intake_counts), and no row to be found here.
    """
    from cli.trace_parts import event_parts, times_parts  # noqa: PLC0415
    from queries.event_times import timed_steps  # noqa: PLC0415
    from queries.event_trace import trace_event  # noqa: PLC0415
    from queries.stores import open_stores  # noqa: PLC0415
    from sinks.ledger.retention import expired_before  # noqa: PLC0415

    with open_stores(context().settings) as stores:
        trace = trace_event(stores, source, event_id)
        expired = expired_before(stores.engine).get("usage_events")
    if trace.outcome == "unknown":
        gone = f" (those from before {expired:%Y-%m-%d} expired by policy; totals are kept)" if expired else ""
        message = (
            f"no event with source {source!r} and id {event_id!r} is stored, neither accepted nor refused: it never"
            f" arrived, its raw row has expired{gone}, or its source is written otherwise (see a raw event's `source`)"
        )
        raise InvalidRequest(message)
    steps = timed_steps(trace)
    times = [{"step": step.step, "at": step.at, "took_s": step.took} for step in steps]
    plain = asdict(trace) | {"outcome": trace.outcome, "steps": times}
    emit(plain, *event_parts(trace), *times_parts(steps))


@app.command("document")
def document(
    key: Annotated[str, typer.Argument(help="The document's key, as the ERP has it.")],
    events: Annotated[Path | None, typer.Option(help="Write all its events to this file: .csv or .parquet.")] = None,
) -> None:
    """Go back from a document: entries, rated rows, facts, events."""
    from cli.trace_parts import document_parts  # noqa: PLC0415
    from queries.document_events import summaries, write_events  # noqa: PLC0415
    from queries.document_trace import trace_document  # noqa: PLC0415
    from queries.stores import open_stores  # noqa: PLC0415

    with open_stores(context().settings) as stores:
        trace = trace_document(stores, key)
        if trace is None:
            message = f"the ledger has no document {key!r}: keys are 16 characters A-Z2-7, see `meterbridge status`"
            raise InvalidRequest(message)
        counts = summaries(stores, trace)
        written = None if events is None else write_events(stores, trace, events)
    plain = asdict(trace) | {"events": counts}
    emit(plain, *document_parts(trace, counts))
    if written is not None:
        note(f"{written:,} events written to {events}.")
