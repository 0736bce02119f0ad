"""`--supervise`: the same command line again, without the option, as a supervised process."""

import sys
from typing import NoReturn

import typer


def again_without(option: str) -> NoReturn:
    """Run this command line without the option under supervision, and end as it does."""
    from cli.context import context  # noqa: PLC0415
    from core.clock import SystemClock  # noqa: PLC0415
    from flows.supervise import supervise  # noqa: PLC0415

    _ = context().settings  # sets up the log, so that the supervisor speaks like its command
    arguments = [argument for argument in sys.argv[1:] if argument != option]
    raise typer.Exit(supervise([sys.executable, "-P", "-m", "cli", *arguments], SystemClock()))
