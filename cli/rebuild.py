"""`meterbridge rebuild`: make lost or damaged recovery partitions and id logs again from the events."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from cli.context import context
from cli.output import emit, note

if TYPE_CHECKING:
    from flows.rebuild import Plan


def rebuild(
    yes: Annotated[bool, typer.Option("--yes", help="Do it. Without this it only says what it would do.")] = False,
    from_stored: Annotated[
        bool, typer.Option("--from-stored", help="Take all events from ClickHouse, as if the streams were gone.")
    ] = False,
) -> None:
    """Make the flow's working state (recovery, dedupe, unique) again by a replay from the beginning.

    For a state directory that was lost or damaged. Stop the flow first. The replay goes into scratch stores and is
    compared with all that is stored; only if everything is the same, its state takes the place of the old one, which is
    moved aside and never deleted. Tables are not written; in the ledger, documents that were staged and never called
    durable are taken back.
    """
    from flows import rebuild as rebuilding  # noqa: PLC0415

    settings = context().settings
    if not yes:
        planned = rebuilding.plan(settings, from_stored=from_stored)
        moved = ", ".join(planned.directories) or "nothing, since none is there"
        emit(
            {"done": False, "plan": asdict(planned), "state_dir": str(settings.state_dir)},
            f"Would replay everything that arrived before {_time(planned.watermark_ms)}, {_source(planned)},",
            f"compare it with what is stored, and if it is the same, move aside {moved} in {settings.state_dir}.",
            "Run it again with --yes to do that.",
        )
        return
    rebuilt = rebuilding.rebuild(settings, from_stored=from_stored, progress_callback=note)
    rows = sum(comparison.rows_live for comparison in rebuilt.report.comparisons)
    emit(
        {"done": True, "plan": asdict(rebuilt.plan), "rows_equal": rows, "aside": rebuilt.aside},
        f"Rebuilt up to {_time(rebuilt.plan.watermark_ms)}, {_source(rebuilt.plan)}; {rows:,} stored rows are equal.",
        f"The old directories are in {rebuilt.aside}; delete them when you need them no more."
        if rebuilt.aside
        else "There were no old directories.",
        "Start `meterbridge run`: it goes on from there.",
    )


def _source(planned: "Plan") -> str:
    if not planned.stored_until_ms:
        return "from the streams"
    if planned.stored_until_ms >= planned.watermark_ms:
        return "from the events that ClickHouse keeps"
    return f"before {_time(planned.stored_until_ms)} from the events that ClickHouse keeps, then from the streams"


def _time(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
