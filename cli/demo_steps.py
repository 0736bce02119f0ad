"""The steps a demo is made of: an empty stack of its own, commands as processes, sending, metering.

A demo has its own state directory, ledger, books and ports whatever the settings say, so that invented documents reach
nothing else.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import httpx

from cli.output import note, progress
from config.settings import LedgerSettings, Settings
from core.errors import FatalError

SECONDS_MAX: Final = 900
_MADE: Final = {
    "accepted": "accepted",
    "duplicates": "duplicate",
    "conflicts": "conflicting_duplicate",
    "rejected": "rejected",
}
"""Counts the workload keeps of what it made, and the outcome each must have."""
_SUMS: Final = ("input_tokens", "output_tokens")
"""Sums of what was sent, voids taken off: what the meters of these names must show."""
_LOGINS: Final = frozenset(
    {"METERBRIDGE_REDIS__USERNAME", "METERBRIDGE_REDIS__PASSWORD", "METERBRIDGE_CLICKHOUSE__PASSWORD"}
)
"""Settings for other servers than the demo's own."""


def settings_of(base: Settings, directory: str) -> Settings:
    """Return the settings of a demo: a directory, ledger and books of its own, free ports, no login."""
    redis_port, clickhouse_port = free_port(6390), free_port(8190)
    return base.model_copy(
        update={
            "state_dir": base.state_dir / directory,
            "redis": base.redis.model_copy(
                update={"url": f"redis://127.0.0.1:{redis_port}/0", "username": None, "password": None, "tls": False}
            ),
            "clickhouse": base.clickhouse.model_copy(
                update={"url": f"http://127.0.0.1:{clickhouse_port}", "username": "default", "password": None}
            ),
            "ledger": LedgerSettings(),
            "poster": base.poster.model_copy(update={"journal_directory": None}),
            "metrics": base.metrics.model_copy(update={"flow_port": free_port(0), "poster_port": 0}),
        }
    )


def free_port(wished: int) -> int:
    """Return that port of the loopback address if nobody listens there, else another one."""
    for port in (wished, 0):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    message = "no free port on 127.0.0.1: stop something that listens there"
    raise FatalError(message)


def start_empty(stack: Any, settings: Settings) -> None:
    """Start the embedded servers on an empty state directory; what an earlier demo left is removed."""
    stack.stop()
    shutil.rmtree(settings.state_dir, ignore_errors=True)
    stack.start()


def environment_of(settings: Settings, config_path: Path) -> dict[str, str]:
    """Return the environment of the demo's processes."""
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
        "METERBRIDGE_METRICS__CONSOLE_PORT": "0",
    }


def command(*arguments: str) -> list[str]:
    """Return the command line of another command of ours."""
    return [sys.executable, "-P", "-m", "cli", *arguments]  # -P: never a package `cli` of the current directory


def call(environment: dict[str, str], *arguments: str, good: Collection[int] = (0,)) -> str:
    """Run another command of ours to its end and return what it printed.

    :raises FatalError: its exit code is none of `good`, or it failed without a result.
    """
    done = subprocess.run(  # noqa: S603
        command(*arguments), env=environment, capture_output=True, text=True, timeout=SECONDS_MAX, check=False
    )
    if done.returncode not in good or (done.returncode and not done.stdout.strip()):
        message = f"`meterbridge {' '.join(arguments)}` failed:\n{done.stderr.strip() or done.stdout.strip()}"
        raise FatalError(message)
    return done.stdout


def send(settings: Settings, workload: Any, events: int | None) -> dict[str, int]:
    """Send a workload and return the counts it must give; `events` is how many come, if that is known."""
    from sources.producer import Producer  # noqa: PLC0415

    with progress("Sending events", events) as advance:
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


def meter(environment: dict[str, str], settings: Settings, entries: int) -> None:
    """Run the flow until the streams are drained, with a live display."""
    log_path = settings.state_dir / "flow.log"
    started_s = time.monotonic()
    with log_path.open("wb") as log_file:
        process = subprocess.Popen(  # noqa: S603
            command("run", "--drain", "--json"), env=environment, stdout=subprocess.DEVNULL, stderr=log_file
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
