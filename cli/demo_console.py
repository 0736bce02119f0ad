"""The console on a demo's data: where it would be, or running, with a token of its own."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import httpx

from cli.demo_steps import command, free_port
from config.settings import Settings
from core.errors import FatalError
from sinks import ledger
from sinks.ledger import tokens
from stack import processes

PORT: Final = 9480
START_S_MAX: Final = 60.0
_VALID_FOR: Final = timedelta(days=7)


def start(settings: Settings, environment: dict[str, str]) -> tuple[str, str]:
    """Start the service beside the demo's servers; return its address and the text of an admin's token.

    `meterbridge down` ends it with them.

    :raises FatalError: it does not answer; the message holds the end of its log.
    """
    root: Path = settings.state_dir / "stack"
    port = free_port(PORT)
    address = f"http://127.0.0.1:{port}"
    process = processes.start(
        command("serve", "--port", str(port)),
        log=root / "console.log",
        pid_file=root / "console.pid",
        environment=environment,
    )
    if not processes.wait_until(lambda: _answers(address), process, START_S_MAX):
        message = f"the console did not come up; the end of its log:\n{processes.last_lines(root / 'console.log')}"
        raise FatalError(message)
    engine = ledger.connect(settings.ledger_url)
    try:
        now = datetime.now(UTC)
        _, text = tokens.create(engine, "demo", "admin", actor="demo", now=now, valid_for=_VALID_FOR)
    finally:
        engine.dispose()
    return address, text


def _answers(address: str) -> bool:
    try:
        return httpx.get(f"{address}/health/live", timeout=2).status_code == 200
    except httpx.HTTPError:
        time.sleep(0.1)
        return False
