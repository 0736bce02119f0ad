"""`meterbridge doctor`: is everything there that Meterbridge needs, and if not, what to do."""

from dataclasses import asdict
from typing import Final

import typer
from rich.table import Table
from rich.text import Text

from cli.context import context
from cli.output import emit

_STYLES: Final = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def doctor() -> None:
    """Check versions, servers, rights and disk, and say what to fix; exit 1 if anything fails."""
    from cli.doctor_checks import all_checks  # noqa: PLC0415

    findings = list(all_checks(context().settings))
    counts = {state: sum(finding.state == state for finding in findings) for state in ("ok", "warn", "fail")}
    grid = Table.grid(padding=(0, 2))
    for finding in findings:
        told = Text(finding.detail)
        if finding.fix:
            told.append(f"\n-> {finding.fix}", style="bold")
        grid.add_row(Text(finding.state, style=_STYLES[finding.state]), finding.area, finding.check, told)
    summary = f"{counts['ok']} ok, {counts['warn']} to look at, {counts['fail']} failed"
    emit(
        {"ok": not counts["fail"], "counts": counts, "findings": [asdict(finding) for finding in findings]},
        grid,
        summary,
    )
    if counts["fail"]:
        raise typer.Exit(1)
