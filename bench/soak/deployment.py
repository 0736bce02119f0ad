"""The deployment a soak run watches: its configuration, its servers, the flow and the load as processes."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from bench.soak.load import tenant_names
from cli.demo_steps import free_port
from config.settings import Settings
from stack.processes import load as running
from stack.supervisor import Stack

ROOT = Path(__file__).parents[2]
STARTED_AS = "2026-01-01T00:00:00Z"


def configuration(series: int) -> dict[str, Any]:
    """Return two meters with a charge each, and a customer with a contract for every tenant of the load."""
    group_by = {"model": "$.model"}
    charges = [
        {"id": "tokens", "meter": "tokens", "model": "per_unit", "unit_amount": "0.000002"},
        {"id": "requests", "meter": "requests", "model": "per_unit", "unit_amount": "0.00001"},
    ]
    accounts = {"unbilled_receivable": "1150", "usage_revenue": "4001"}
    contract = {"plan": "soak", "entity": "E1", "from": STARTED_AS}
    meters = [
        {"id": "requests", "event_type": "llm.completion", "aggregation": "count", "group_by": group_by},
        {
            "id": "tokens",
            "event_type": "llm.completion",
            "aggregation": "sum",
            "value": "$.tokens",
            "group_by": group_by,
        },
    ]
    version = {"effective_from": STARTED_AS, "currency": "USD", "charges": charges}
    return {
        "rules": {"books_open_at": STARTED_AS},
        "meters": meters,
        "plans": [{"id": "soak", "versions": [version]}],
        "entities": [
            {
                "id": "E1",
                "functional_currency": "USD",
                "timezone": "UTC",
                "accounts": accounts,
                "erp": {"adapter": "journal", "company": "E1"},
            }
        ],
        "customers": [
            {"id": name, "subjects": [name], "contracts": [contract | {"id": f"{name}-1"}]}
            for name in tenant_names(series)
        ],
    }


def settings_of(directory: Path) -> Settings:
    """Return settings with that state directory and free ports of the loopback address."""
    base = Settings()
    return base.model_copy(
        update={
            "state_dir": directory,
            "redis": base.redis.model_copy(update={"url": f"redis://127.0.0.1:{free_port(0)}/0"}),
            "clickhouse": base.clickhouse.model_copy(update={"url": f"http://127.0.0.1:{free_port(0)}"}),
            "metrics": base.metrics.model_copy(update={"flow_port": free_port(0), "poster_port": 0}),
        }
    )


class Soaked:
    """Servers, flow and load of one run. Everything it starts ends with `close`."""

    def __init__(self, settings: Settings, series: int, log: Path) -> None:
        self.settings = settings
        self.totals = settings.state_dir / "totals.npz"
        self._series, self._log = series, log
        config = settings.state_dir / "soak.yaml"
        config.write_text(yaml.safe_dump(configuration(series)))
        self._environment = os.environ | {
            "METERBRIDGE_CONFIG_FILE": str(config),
            "METERBRIDGE_STATE_DIR": str(settings.state_dir),
            "METERBRIDGE_REDIS__URL": settings.redis.url,
            "METERBRIDGE_CLICKHOUSE__URL": settings.clickhouse.url,
            "METERBRIDGE_METRICS__FLOW_PORT": str(settings.metrics.flow_port),
            "PYTHONPATH": str(ROOT),
        }
        self._stack = Stack(settings)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start_servers(self) -> dict[str, int]:
        """Start the servers and make the tables; return the servers' process ids."""
        self._stack.start()
        self.command("migrate")
        found = {name: running(self.settings.state_dir / "stack" / f"{name}.pid") for name in ("valkey", "clickhouse")}
        return {name: process.pid for name, process in found.items() if process is not None}

    def start_flow(self) -> int:
        """Start the flow and return its process id."""
        return self._start("flow", "-m", "cli", "run")

    def start_load(self, rate: float, seconds: float) -> None:
        """Start sending."""
        what = ["--rate", str(rate), "--seconds", str(seconds), "--series", str(self._series)]
        where = ["--url", self.settings.redis.url, "--totals", str(self.totals)]
        self._start("load", "-m", "bench.soak.load", *what, *where)

    def _start(self, name: str, *arguments: str) -> int:
        with self._log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, *arguments], env=self._environment, cwd=ROOT, stdout=output, stderr=output
            )
        self._processes[name] = process
        return process.pid

    def is_running(self, name: str) -> bool:
        """Tell whether the flow or the load runs."""
        return self._processes[name].poll() is None

    def kill_flow(self) -> None:
        """End the flow by SIGKILL."""
        self._processes["flow"].kill()
        self._processes["flow"].wait()

    def stop(self, name: str, seconds: float) -> int:
        """Ask the flow or the load to end, and return its exit code."""
        self._processes[name].terminate()
        return self._processes[name].wait(timeout=seconds)

    def command(self, *arguments: str) -> str:
        """Run a command of the product to its end and return what it printed.

        :raises SystemExit: it failed; the message holds the end of what it said.
        """
        command = [sys.executable, "-m", "cli", *arguments]
        done = subprocess.run(command, env=self._environment, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            message = f"{' '.join(arguments)} ended with {done.returncode}: {done.stderr[-2000:]}"
            raise SystemExit(message)
        return done.stdout

    def close(self) -> None:
        """End everything."""
        for process in self._processes.values():
            if process.poll() is None:
                process.kill()
                process.wait()
        self._stack.stop()
