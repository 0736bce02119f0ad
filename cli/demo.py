"""`meterbridge demo`: the whole way once, from nothing to the books, on the embedded stack.

Runs in a state directory of its own (`.meterbridge/demo`) that every run begins empty, so that it can never touch
other data. The flow and the poster run as processes of their own, as in production.
"""

import shutil
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from cli import demo_console, demo_report
from cli import demo_steps as steps
from cli.context import context
from cli.output import emit, note
from config.revision import Configuration
from config.settings import Settings
from core.errors import Disagreement, InvalidRequest

DEMO_DIRECTORY = "demo"
HISTORY_HOURS = 30


def demo(
    trace: Annotated[
        list[Path] | None,
        typer.Option("--trace", help="CSV trace (TIMESTAMP, ContextTokens, GeneratedTokens); may be repeated."),
    ] = None,
    files: Annotated[list[Path] | None, typer.Argument(help="More trace files.")] = None,
    events: Annotated[int, typer.Option(min=1_000, max=5_000_000, help="Events to generate.")] = 200_000,
    seed: Annotated[int, typer.Option(help="Seed of the generated workload.")] = 7,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the embedded servers running, and the console with them.")
    ] = False,
) -> None:
    """Show the whole way from events to the books: send, meter, rate, post, and check that it all agrees."""
    from stack.supervisor import Stack  # noqa: PLC0415

    cli = context()
    started_s = time.monotonic()
    traces = [*(trace or []), *(files or [])]
    for path in traces:
        if not path.is_file():
            message = f"no trace file {path}: give a CSV file with the columns TIMESTAMP,ContextTokens,GeneratedTokens"
            raise InvalidRequest(message)
    configuration = cli.configuration()
    _refuse_real_erps(configuration)
    settings = steps.settings_of(cli.settings, DEMO_DIRECTORY)
    stack = Stack(settings)
    steps.start_empty(stack, settings)
    try:
        note(f"Started Valkey at {settings.redis.url} and ClickHouse at {settings.clickhouse.url}.")
        environment = steps.environment_of(settings, cli.config_path)
        steps.call(environment, "migrate")
        workload = _workload(traces, events, seed)
        sent = steps.send(settings, workload, None if traces else events)
        steps.meter(environment, settings, sent["entries"])
        steps.call(environment, "post", "--once")
        reader = demo_report.Reader(settings, configuration, demo_report.journal_books(settings.books_dir))
        try:
            report = reader.report(sent)
        finally:
            reader.close()
        console = demo_console.start(settings, environment) if keep else None
        _show(report, settings, time.monotonic() - started_s, console)
    finally:
        if not keep:
            stack.stop()
    if not report.agrees:
        broken = [f"{check.name}: {check.left} is not {check.right}" for check in report.checks if not check.holds]
        raise Disagreement("\n".join(["the demo's numbers do not agree:", *broken]))


def _refuse_real_erps(configuration: Configuration) -> None:
    """Make sure that invented documents go to the journal file only, whose configuration this ever is."""
    for entity in configuration.entities:
        if entity.erp.adapter != "journal":
            message = (
                f"entity {entity.id} posts to {entity.erp.adapter}: the demo's documents are invented and go to the "
                "journal only; call it without this configuration (--config, METERBRIDGE_CONFIG_FILE)"
            )
            raise InvalidRequest(message)


def _workload(traces: list[Path], events: int, seed: int) -> Any:
    from sources.workload import Workload, trace_workload  # noqa: PLC0415

    if traces:
        return trace_workload(traces)
    # History ends where the last hour ended: an hour seals only when Redis' clock has passed its end and the grace.
    end = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(minutes=5)
    return Workload(seed=seed, events=events, start=end - timedelta(hours=HISTORY_HOURS), end=end)


def _show(report: demo_report.Report, settings: Settings, seconds: float, console: tuple[str, str] | None) -> None:
    cli = context()
    if cli.json:
        plain = orjson.loads(orjson.dumps(asdict(report), default=str))
        plain |= {"agrees": report.agrees, "seconds": round(seconds, 1), "state_dir": str(settings.state_dir)}
        emit(plain | ({"console": console[0], "token": console[1]} if console else {}))
        return
    demo_report.show(cli.console, report)
    agreed = "All numbers agree." if report.agrees else "SOME NUMBERS DO NOT AGREE."
    cli.console.print(f"\n[bold]{agreed}[/] Took {seconds:.0f} s.")
    state = settings.state_dir
    start = "" if console else "  meterbridge up                      # start the servers again, on the demo's data\n"
    path = "" if shutil.which("meterbridge") else f'  export PATH="{_bin_directory()}:$PATH"\n'
    cli.console.print(
        f"Data: {state}   Books: {settings.books_dir}\n\n"
        "Try next:\n"
        f"{path}"
        f"  export METERBRIDGE_STATE_DIR={state} METERBRIDGE_REDIS__URL={settings.redis.url}"
        f" METERBRIDGE_CLICKHOUSE__URL={settings.clickhouse.url}\n"
        f"{start}"
        "  meterbridge status                  # what runs, and how far it is\n"
        "  meterbridge verify                  # replay the streams and compare every row\n"
        f"  less {settings.books_dir}/main.beancount\n"
        f"{_console(console)}"
        "  meterbridge down",
        highlight=False,
        soft_wrap=True,
    )


def _console(console: tuple[str, str] | None) -> str:
    """Return the lines about the console: where it runs, or how to start it."""
    if console is None:
        return (
            "  meterbridge token create me --role admin   # then log in with what it prints\n"
            f"  meterbridge serve                   # console at http://127.0.0.1:{demo_console.PORT}"
            " (make demo KEEP=1 starts it itself)\n"
        )
    address, token = console
    return f"  open {address}      # the console; log in with the token {token}\n"


def _bin_directory() -> str:
    """Return where the `meterbridge` command lies, as short as it can be said."""
    directory = Path(sys.executable).parent
    return f"$PWD/{directory.relative_to(Path.cwd())}" if directory.is_relative_to(Path.cwd()) else str(directory)
