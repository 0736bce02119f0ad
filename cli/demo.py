"""`meterbridge demo`: the whole way once, from nothing to the books, on the embedded stack.

Runs in a state directory of its own (`.meterbridge/demo`) that every run begins empty, so that it can never touch
other data. The flow and the poster run as processes of their own, as in production.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final

import httpx
import orjson
import typer

from cli import demo_report
from cli.context import context
from cli.output import emit, note, progress
from config.revision import Configuration
from config.settings import LedgerSettings, Settings
from core.errors import Disagreement, FatalError, InvalidRequest

DEMO_DIRECTORY = "demo"
SECONDS_MAX = 900
HISTORY_HOURS = 30
_MADE = {
    "accepted": "accepted",
    "duplicates": "duplicate",
    "conflicts": "conflicting_duplicate",
    "rejected": "rejected",
}
"""Counts the workload keeps of what it made, and the outcome each must have."""
_SUMS = ("input_tokens", "output_tokens")
"""Sums of what was sent, voids taken off: what the meters of these names must show."""


_LOGINS: Final = frozenset(
    {"METERBRIDGE_REDIS__USERNAME", "METERBRIDGE_REDIS__PASSWORD", "METERBRIDGE_CLICKHOUSE__PASSWORD"}
)
"""Settings for other servers than the demo's own."""


def demo(
    trace: Annotated[
        list[Path] | None,
        typer.Option("--trace", help="CSV trace (TIMESTAMP, ContextTokens, GeneratedTokens); may be repeated."),
    ] = None,
    files: Annotated[list[Path] | None, typer.Argument(help="More trace files.")] = None,
    events: Annotated[int, typer.Option(min=1_000, max=5_000_000, help="Events to generate.")] = 200_000,
    seed: Annotated[int, typer.Option(help="Seed of the generated workload.")] = 7,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the embedded servers running.")] = False,
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
    settings = _settings(cli.settings)
    stack = Stack(settings)
    _start_empty(stack, settings)
    try:
        note(f"Started Valkey at {settings.redis.url} and ClickHouse at {settings.clickhouse.url}.")
        environment = _environment(settings, cli.config_path)
        _call(environment, "migrate")
        sent = _send(settings, configuration, traces, events, seed)
        _meter(environment, settings, sent["entries"])
        _call(environment, "post", "--once")
        reader = demo_report.Reader(settings, configuration)
        try:
            report = reader.report(sent)
        finally:
            reader.close()
        _show(report, settings, time.monotonic() - started_s, keep)
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


def _settings(base: Settings) -> Settings:
    """Return the settings of the demo: a directory, ledger and books of its own, free ports, no login."""
    redis_port, clickhouse_port = _free_port(6390), _free_port(8190)
    return base.model_copy(
        update={
            "state_dir": base.state_dir / DEMO_DIRECTORY,
            "redis": base.redis.model_copy(
                update={"url": f"redis://127.0.0.1:{redis_port}/0", "username": None, "password": None, "tls": False}
            ),
            "clickhouse": base.clickhouse.model_copy(
                update={"url": f"http://127.0.0.1:{clickhouse_port}", "username": "default", "password": None}
            ),
            "ledger": LedgerSettings(),
            "poster": base.poster.model_copy(update={"journal_directory": None}),
            "metrics": base.metrics.model_copy(update={"flow_port": _free_port(0), "poster_port": 0}),
        }
    )


def _free_port(wished: int) -> int:
    for port in (wished, 0):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    message = "no free port on 127.0.0.1: stop something that listens there"
    raise FatalError(message)


def _start_empty(stack: Any, settings: Settings) -> None:
    stack.stop()
    shutil.rmtree(settings.state_dir, ignore_errors=True)
    stack.start()


def _environment(settings: Settings, config_path: Path) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name.upper() not in _LOGINS}
    return inherited | {
        "METERBRIDGE_LEDGER__URL": settings.ledger_url,
        "METERBRIDGE_POSTER__JOURNAL_DIRECTORY": str(settings.books_dir),
        "METERBRIDGE_REDIS__TLS": "false",
        "METERBRIDGE_CLICKHOUSE__USERNAME": settings.clickhouse.username,
        "METERBRIDGE_CONFIG_FILE": str(config_path),
        "METERBRIDGE_STATE_DIR": str(settings.state_dir),
        "METERBRIDGE_REDIS__URL": settings.redis.url,
        "METERBRIDGE_CLICKHOUSE__URL": settings.clickhouse.url,
        "METERBRIDGE_METRICS__FLOW_PORT": str(settings.metrics.flow_port),
        "METERBRIDGE_METRICS__POSTER_PORT": "0",
    }


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-P", "-m", "cli", *arguments]  # -P: never a package `cli` of the current directory


def _call(environment: dict[str, str], *arguments: str) -> None:
    """Run another command of ours to its end; its errors become ours."""
    done = subprocess.run(  # noqa: S603
        _command(*arguments), env=environment, capture_output=True, text=True, timeout=SECONDS_MAX, check=False
    )
    if done.returncode:
        message = f"`meterbridge {' '.join(arguments)}` failed:\n{done.stderr.strip() or done.stdout.strip()}"
        raise FatalError(message)


def _workload(configuration: Configuration, traces: list[Path], events: int, seed: int) -> Any:
    from sources.workload import Workload, trace_workload  # noqa: PLC0415

    if traces:
        return trace_workload(traces)
    # History ends where the last hour ended: an hour seals only when Redis' clock has passed its end and the grace.
    end = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(minutes=5)
    return Workload(seed=seed, events=events, start=end - timedelta(hours=HISTORY_HOURS), end=end)


def _send(
    settings: Settings, configuration: Configuration, traces: list[Path], events: int, seed: int
) -> dict[str, int]:
    from sources.producer import Producer  # noqa: PLC0415

    workload = _workload(configuration, traces, events, seed)
    with progress("Sending events", None if traces else events) as advance:
        report = Producer(settings.redis).send(_counted(workload, advance))
    note(f"Sent {report.events:,} events in {report.entries:,} stream entries, {report.seconds:.1f} s.")
    made = {name: int(workload.expected[key]) for key, name in _MADE.items() if key in workload.expected}
    made |= {key: int(workload.expected[key]) for key in _SUMS if key in workload.expected}
    return {"entries": report.entries, "events": report.events} | made


def _counted(records: Iterable[Any], advance: Any, step: int = 5_000) -> Iterator[Any]:
    for number, record in enumerate(records, 1):
        yield record
        if number % step == 0:
            advance(step)


def _meter(environment: dict[str, str], settings: Settings, entries: int) -> None:
    """Run the flow until the streams are drained, with a live display."""
    log_path = settings.state_dir / "flow.log"
    started_s = time.monotonic()
    with log_path.open("wb") as log_file:
        process = subprocess.Popen(  # noqa: S603
            _command("run", "--drain", "--json"), env=environment, stdout=subprocess.DEVNULL, stderr=log_file
        )
        try:
            with progress("Metering entries", entries) as advance:
                _watch(process, settings, advance)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(timeout=30)
    if process.returncode:
        message = f"the flow failed; the end of {log_path}:\n{log_path.read_text()[-3000:]}"
        raise FatalError(message)
    seconds = time.monotonic() - started_s
    note(f"Metered in {seconds:.1f} s, start and stop included ({entries / seconds:,.0f} entries/s).")


def _watch(process: "subprocess.Popen[bytes]", settings: Settings, advance: Any) -> None:
    shown, deadline_s = 0, time.monotonic() + SECONDS_MAX
    url = f"http://{settings.metrics.host}:{settings.metrics.flow_port}/metrics"
    while process.poll() is None:
        if time.monotonic() > deadline_s:
            message = f"the flow did not end within {SECONDS_MAX} s: see {settings.state_dir / 'flow.log'}"
            raise FatalError(message)
        time.sleep(0.25)
        try:
            text = httpx.get(url, timeout=2).text
        except httpx.HTTPError:
            continue  # not listening yet, or gone already
        read = sum(
            int(float(line.rsplit(" ", 1)[1]))
            for line in text.splitlines()
            if line.startswith("meterbridge_entries_total{")
        )
        advance(max(0, read - shown))
        shown = max(shown, read)


def _show(report: demo_report.Report, settings: Settings, seconds: float, keep: bool) -> None:
    cli = context()
    if cli.json:
        plain = orjson.loads(orjson.dumps(asdict(report), default=str))
        emit(plain | {"agrees": report.agrees, "seconds": round(seconds, 1), "state_dir": str(settings.state_dir)})
        return
    demo_report.show(cli.console, report)
    agreed = "All numbers agree." if report.agrees else "SOME NUMBERS DO NOT AGREE."
    cli.console.print(f"\n[bold]{agreed}[/] Took {seconds:.0f} s.")
    state = settings.state_dir
    start = "" if keep else "  meterbridge up                      # start the servers again, on the demo's data\n"
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
        "  meterbridge down",
        highlight=False,
        soft_wrap=True,
    )


def _bin_directory() -> str:
    """Return where the `meterbridge` command lies, as short as it can be said."""
    directory = Path(sys.executable).parent
    return f"$PWD/{directory.relative_to(Path.cwd())}" if directory.is_relative_to(Path.cwd()) else str(directory)
