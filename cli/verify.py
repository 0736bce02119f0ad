"""`meterbridge verify`: replay the streams into empty stores and compare."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from cli.context import context
from cli.output import emit, note, table
from core.errors import Disagreement, InvalidRequest


def verify(
    workers: Annotated[int, typer.Option(min=1, max=8, help="Workers of the replay.")] = 2,
    epoch_s: Annotated[float, typer.Option(min=0.05, help="Epoch length of the replay, in seconds.")] = 0.7,
    item_events: Annotated[int, typer.Option(min=1, help="Events per item of the replay.")] = 1_500,
    from_stored: Annotated[
        bool, typer.Option("--from-stored", help="Take all events from ClickHouse, as if the streams were gone.")
    ] = False,
    period: Annotated[str, typer.Option(help="Prove that this sealed period, YYYY-MM, did not change.")] = "",
    entity: Annotated[str, typer.Option(help="With --period: only this entity.")] = "",
) -> None:
    """Replay all events into empty scratch stores with other batch settings and compare row by row.

    Events come from the streams where they still are, else from the raw events in ClickHouse. With --period nothing is
    replayed: a sealed period is recomputed and compared with its signed summary.
    """
    if entity and not period:
        message = "--entity belongs to --period YYYY-MM: a replay is of all entities"
        raise InvalidRequest(message)
    if period:
        from cli.verify_period import verify_period  # noqa: PLC0415

        verify_period(period, entity)
        return
    from flows import verify as verification  # noqa: PLC0415

    cli = context()
    report = verification.verify(
        cli.settings,
        replay=verification.Replay(workers=workers, epoch_s=epoch_s, item_events=item_events),
        from_stored=from_stored,
    )
    rows = []
    for row in report.comparisons:
        numbers = (row.rows_live, row.rows_replayed, row.live_only, row.replayed_only)
        rows.append([row.table, *(f"{number:,}" for number in numbers), "equal" if row.equal else "DIFFERENT"])
    numeric = ("live rows", "replayed rows", "only live", "only replay")
    upto = datetime.fromtimestamp(report.watermark_ms / 1000, UTC)
    emit(
        report.to_plain(),
        table("Replay against what is stored", ("table", *numeric, "verdict"), rows, right=numeric),
        f"Proven: everything that arrived before {upto:%Y-%m-%d %H:%M:%S} UTC.",
    )
    if report.stored_until_ms:
        until = datetime.fromtimestamp(report.stored_until_ms / 1000, UTC)
        trimmed = (
            f" ({report.entries_trimmed:,} entries are trimmed from the streams)" if report.entries_trimmed else ""
        )
        note(
            f"Before {until:%Y-%m-%d %H:%M:%S} UTC events were taken as ClickHouse stored them{trimmed}; "
            "the number of duplicates is not proven there, since duplicates leave a count only."
        )
    if not report.equal:
        differing = [row for row in report.comparisons if not row.equal]
        samples = "\n".join(sample for row in differing for sample in row.samples)
        message = f"the replay differs in {', '.join(row.table for row in differing)}:\n{samples}"
        raise Disagreement(message)
