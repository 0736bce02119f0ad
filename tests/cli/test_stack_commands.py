"""`up`, `migrate`, `status` and `down` as a user runs them, each a process of its own."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cli.stack_commands import flow_running
from core.directory_lock import DirectoryLock
from sinks.clickhouse.schema import migrations

ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Cli:
    def __init__(self, state_dir: Path) -> None:
        self.environment = os.environ | {
            "METERBRIDGE_STATE_DIR": str(state_dir),
            "METERBRIDGE_REDIS__URL": f"redis://127.0.0.1:{free_port()}/0",
            "METERBRIDGE_CLICKHOUSE__URL": f"http://127.0.0.1:{free_port()}",
            "METERBRIDGE_CONFIG_FILE": str(ROOT / "config" / "meterbridge.yaml"),
        }

    def __call__(self, *arguments: str) -> dict[str, Any]:
        ended = subprocess.run(
            [sys.executable, "-m", "cli", *arguments, "--json"],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        printed: dict[str, Any] = json.loads(ended.stdout)
        return printed


def test_up_migrate_status_down(tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    before = cli("status")
    assert not any(server["running"] for server in before["servers"])
    assert "METERBRIDGE_REDIS__URL" in before["streams_error"]
    assert "meterbridge migrate" in before["ledger_error"]
    try:
        assert all(server["answers"] for server in cli("up")["servers"])
        first, second = cli("migrate"), cli("migrate")
        assert first["clickhouse_migrations"] == [one.number for one in migrations()]
        assert first["ledger_migrations"]
        assert (second["clickhouse_migrations"], second["ledger_migrations"]) == ([], [])
        assert second["config_version"] == first["config_version"]
        status = cli("status")
        assert status["streams"] == {f"usage:{number}": 0 for number in range(4)}
        assert status["ledger"] == {"watermark": None, "documents": {}, "postings": {}, "erp_waiting": []}
        assert status["flow_running"] is False
    finally:
        after = cli("down")
    assert not any(server["running"] or server["answers"] for server in after["servers"])


@pytest.mark.parametrize("name", ["flow-0.lock", "flow-3.lock"])
def test_a_running_flow_is_seen_without_touching_its_lock(tmp_path: Path, name: str) -> None:
    assert not flow_running(tmp_path)
    with DirectoryLock(tmp_path / name):
        assert flow_running(tmp_path)
        assert flow_running(tmp_path)
    assert not flow_running(tmp_path)
