"""`meterbridge doctor`: is everything there that Meterbridge needs, and if not, what to do."""

from dataclasses import asdict
from typing import Final

import typer
from rich.text import Text

from cli.context import context
from cli.output import emit, table

_STYLES: Final = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def doctor() -> None:
    """Check versions, servers, rights and disk, and say what to fix; exit 1 if anything fails."""
    from cli.doctor_checks import all_checks  # noqa: PLC0415

    findings = list(all_checks(context().settings))
    counts = {state: sum(finding.state == state for finding in findings) for state in ("ok", "warn", "fail")}
    rows = [
        (
            finding.area,
            finding.check,
            Text(finding.state, style=_STYLES[finding.state]),
            finding.detail,
            finding.fix,
        )
        for finding in findings
    ]
    summary = f"{counts['ok']} ok, {counts['warn']} to look at, {counts['fail']} failed"
    emit(
        {"ok": not counts["fail"], "counts": counts, "findings": [asdict(finding) for finding in findings]},
        table("", ("area", "check", "state", "found", "what to do"), rows),
        summary,
    )
    if counts["fail"]:
        raise typer.Exit(1)
