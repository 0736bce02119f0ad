"""`serve` and `token` as processes of their own: the address is said, a token works, SIGTERM ends it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx

from tests.cli.serving import address_of

ROOT = Path(__file__).parents[2]


def _environment(state: Path) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("METERBRIDGE_")}
    return clean | {
        "METERBRIDGE_STATE_DIR": str(state),
        "METERBRIDGE_CONSOLE__PORT": "0",
        "METERBRIDGE_METRICS__CONSOLE_PORT": "0",
    }


def _run(state: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "cli", *arguments],
        cwd=ROOT,
        env=_environment(state),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_serve_needs_a_ledger(tmp_path: Path) -> None:
    done = _run(tmp_path, "serve")
    assert done.returncode == 1
    assert "run `meterbridge migrate`" in done.stderr


def test_a_token_made_by_the_command_opens_the_api(tmp_path: Path) -> None:
    from sinks import ledger  # noqa: PLC0415

    ledger.migrate(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    made = _run(tmp_path, "token", "create", "dashboards", "--role", "viewer", "--tenant", "acme", "--json")
    assert made.returncode == 0, made.stderr
    plain = json.loads(made.stdout)
    listed = json.loads(_run(tmp_path, "token", "list", "--json").stdout)
    assert [(one["id"], one["valid"]) for one in listed] == [(plain["id"], True)]
    assert plain["token"] not in json.dumps(listed)
    process = subprocess.Popen(
        [sys.executable, "-m", "cli", "serve", "--json"],
        cwd=ROOT,
        env=_environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        address = address_of(process)
        answer = httpx.get(f"{address}/api/v1/me", headers={"Authorization": f"Bearer {plain['token']}"}, timeout=10)
        assert answer.json()["tenants"] == ["acme"]
        assert httpx.get(f"{address}/health/ready", timeout=10).json() == {"ready": True}
    finally:
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=20)
    assert process.returncode == 0, errors
    assert plain["token"] not in output + errors
    revoked = _run(tmp_path, "token", "revoke", plain["id"], "--reason", "lost", "--json")
    assert json.loads(revoked.stdout) == {"id": plain["id"], "revoked_now": True}
    assert not json.loads(_run(tmp_path, "token", "list", "--json").stdout)[0]["valid"]


def test_a_signal_right_after_the_start_is_not_lost(tmp_path: Path) -> None:
    from sinks import ledger  # noqa: PLC0415

    ledger.migrate(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    process = subprocess.Popen(
        [sys.executable, "-m", "cli", "serve", "--json"], cwd=ROOT, env=_environment(tmp_path), stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    while not process.stdout.readline().startswith(b"}"):
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 0
