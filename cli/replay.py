"""`meterbridge replay`: rebuild facts, rated rows and documents from archived events into files, and compare."""

from pathlib import Path
from typing import Annotated

import typer

from cli.context import context
from cli.output import emit, note, table
from core.errors import Disagreement, InvalidRequest


def replay(
    to_dir: Annotated[Path, typer.Option("--to-dir", help="Directory for the files; empty, or of an earlier replay.")],
    from_clickhouse: Annotated[
        bool, typer.Option("--from-clickhouse", help="Take all events from ClickHouse; the streams are not asked.")
    ] = False,
    file_format: Annotated[str, typer.Option("--format", help="parquet or ndjson.")] = "parquet",
    workers: Annotated[int, typer.Option(min=1, max=8, help="Workers of the replay.")] = 2,
) -> None:
    """Rebuild facts, rated rows and documents from the raw events alone, write them to files, and compare.

    Compared with what is stored, row by row and to the last digit. Nothing stored is changed. Without
    --from-clickhouse events come from the streams where they still are.
    """
    from flows.replay import SUMMARY  # noqa: PLC0415
    from flows.replay import replay as run  # noqa: PLC0415
    from flows.verify import Replay  # noqa: PLC0415

    if file_format not in ("parquet", "ndjson"):
        message = f"--format {file_format!r} is neither parquet nor ndjson"
        raise InvalidRequest(message)
    result = run(
        context().settings,
        to_dir,
        from_stored=from_clickhouse,
        file_format="parquet" if file_format == "parquet" else "ndjson",
        workers=Replay(workers=workers),
        progress_callback=note,
    )
    files = [(one.file, f"{one.rows:,}", one.total_of, f"{one.total:,f}") for one in result.files]
    compared = [
        (one.table, f"{one.rows_live:,}", f"{one.rows_replayed:,}", "equal" if one.equal else "DIFFERENT")
        for one in result.report.comparisons
    ]
    emit(
        result.to_plain() | {"directory": to_dir},
        table(f"Files in {to_dir}", ("file", "rows", "column", "total"), files, right=("rows", "total")),
        table(
            "Against what is stored",
            ("table", "live rows", "replayed rows", "verdict"),
            compared,
            right=("live rows", "replayed rows"),
        ),
        f"Summary: {to_dir / SUMMARY}",
    )
    if not result.report.equal:
        differing = [row for row in result.report.comparisons if not row.equal]
        samples = "\n".join(sample for row in differing for sample in row.samples)
        message = f"the replay differs in {', '.join(row.table for row in differing)}:\n{samples}"
        raise Disagreement(message)
