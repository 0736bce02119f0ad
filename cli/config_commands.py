"""`meterbridge config check` and `meterbridge config schema`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from cli.context import context
from cli.output import emit, key_values, to_json

app = typer.Typer(help="Check the configuration, print its JSON schema.", no_args_is_help=True)


@app.command()
def check(
    path: Annotated[Path | None, typer.Argument(help="File or directory; default: the one in use.")] = None,
) -> None:
    """Report everything that is wrong with the configuration, with file and line; exit 1 if anything is."""
    from config.loader import examine  # noqa: PLC0415

    where = path or context().config_path
    examination = examine(where)
    is_good = not examination.problems
    data = {
        "path": str(where),
        "ok": is_good,
        "problems": examination.problems,
        "warnings": examination.warnings,
        "counts": examination.counts,
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
    if not is_good:
        raise typer.Exit(1)


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
