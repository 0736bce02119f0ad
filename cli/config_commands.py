"""`meterbridge config check` and `meterbridge config schema`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.context import context
from cli.output import emit, key_values, to_json

if TYPE_CHECKING:
    from config.journal_rules import Past

app = typer.Typer(help="Check the configuration, print its JSON schema.", no_args_is_help=True)


@app.command()
def check(
    path: Annotated[Path | None, typer.Argument(help="File or directory; default: the one in use.")] = None,
    against_ledger: Annotated[
        bool,
        typer.Option("--against-ledger", help="Also what it changes of the recorded revisions and may not."),
    ] = False,
) -> None:
    """Report everything that is wrong with the configuration, with file and line; exit 1 if anything is."""
    from config.loader import examine  # noqa: PLC0415

    where = path or context().config_path
    past = _past(where) if against_ledger else None
    examination = examine(where, past)
    is_good = not examination.problems
    data = {
        "path": str(where),
        "ok": is_good,
        "problems": examination.problems,
        "warnings": examination.warnings,
        "counts": examination.counts,
        "compared_revisions": None if past is None else len(past.revisions),
    }
    if context().json:
        emit(data)
    else:
        for text in examination.problems:
            sys.stdout.write(f"error: {text}\n")
        for text in examination.warnings:
            sys.stdout.write(f"warning: {text}\n")
        counts = ", ".join(f"{count} {name}" for name, count in examination.counts.items())
        verdict = "good" if is_good else f"{len(examination.problems)} problem(s)"
        sys.stdout.write(f"{where}: {verdict} ({counts}; {len(examination.warnings)} warning(s))\n")
        if past is not None:
            sys.stdout.write(f"compared with {len(past.revisions)} revision(s) in the ledger\n")
    if not is_good:
        raise typer.Exit(1)


def _past(path: Path) -> "Past":
    """Return the ledger's revisions. What is in force is told by this machine's clock, or the books if further."""
    from config.journal_rules import Past  # noqa: PLC0415
    from config.loader import load_settings  # noqa: PLC0415
    from core.clock import SystemClock  # noqa: PLC0415
    from sinks import ledger  # noqa: PLC0415
    from sinks.ledger import progress, revisions  # noqa: PLC0415

    engine = ledger.connect(load_settings(path).ledger_url)
    try:
        ledger.check_ready(engine)
        now_ms = int(SystemClock().now().timestamp() * 1000)
        return Past(tuple(revisions.load_history(engine)), max(now_ms, progress.watermark_ms(engine)))
    finally:
        engine.dispose()


@app.command()
def schema() -> None:
    """Print the JSON schema of the configuration file, for editors."""
    from config.schema import json_schema  # noqa: PLC0415

    sys.stdout.write(to_json(json_schema()) + "\n")


@app.command()
def show() -> None:
    """Print the settings in force, after file and environment; secrets are not shown."""
    from core.logging import without_password  # noqa: PLC0415

    plain = context().settings.model_dump(mode="json")
    lines = {name: without_password(str(value)) for name, value in _flat(plain, "").items()}
    emit(lines, key_values(lines))


def _flat(values: dict[str, object], prefix: str) -> dict[str, object]:
    result: dict[str, object] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            result |= _flat(value, f"{prefix}{name}.")
        else:
            result[f"{prefix}{name}"] = value
    return result
