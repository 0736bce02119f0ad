"""A deployment of real processes that a campaign kills: Valkey, ClickHouse, flow and poster, and what must be true."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
from sqlalchemy import Engine

from config.loader import load
from config.settings import Settings
from core.errors import Unreachable
from flows.verify import verify
from queries.reconcile import reconcile, span_of
from queries.stores import open_stores
from sinks import clickhouse as clickhouse_sinks
from sinks import ledger
from sinks.erp.journal_balances import balances
from sinks.ledger import documents, postings
from sources.producer import Producer
from sources.workload import Workload
from stack.processes import load as running
from stack.supervisor import Stack
from tests.flows.harness import CONFIG, Deployment, differences, read_streams
from tests.flows.oracle import Oracle

HISTORY = datetime(2026, 11, 20, 6, 0, tzinfo=UTC)
PROCESSES = ("flow", "poster")
SERVERS = ("valkey", "clickhouse")
_COMMANDS = {"flow": ("run",), "poster": ("post",)}
_PARTS_PER_SECOND = 5.0
PART_EVENTS = 100
LEASE_S_MAX = 90.0


class World:
    """One deployment on ports of its own. Everything it starts ends with `close`."""

    def __init__(self, directory: Path, seed: int, ports: tuple[int, int]) -> None:
        base = Settings()
        self.settings = base.model_copy(
            update={
                "state_dir": directory,
                "redis": base.redis.model_copy(update={"url": f"redis://127.0.0.1:{ports[0]}/0"}),
                "clickhouse": base.clickhouse.model_copy(update={"url": f"http://127.0.0.1:{ports[1]}"}),
                "flow": base.flow.model_copy(update={"epoch_s": 0.2, "workers": 1 + seed % 2}),
                "metrics": base.metrics.model_copy(update={"flow_port": 0, "poster_port": 0}),
            }
        )
        directory.mkdir(parents=True, exist_ok=True)
        self.deployment = Deployment(self.settings, load(CONFIG))
        self.deaths: Counter[str] = Counter()
        self.extra: dict[str, str] = {}
        """Further environment variables of the flow and the poster."""
        self._stack = Stack(self.settings)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._seed = seed
        self._ended = threading.Event()

    def start(self, events: int) -> None:
        """Start the servers and fill the streams with history."""
        self._stack.start()
        clickhouse_sinks.migrate(self.settings.clickhouse)
        ledger.migrate(self.settings.ledger_url)
        workload = Workload(seed=self._seed, events=events, start=HISTORY, end=HISTORY + timedelta(hours=7))
        Producer(self.settings.redis).send(workload)

    def reach_redis_at(self, port: int) -> None:
        """Let everything that comes from now on reach Redis at another port: that of a link, say."""
        redis = self.settings.redis.model_copy(update={"url": f"redis://127.0.0.1:{port}/0"})
        self.settings = self.settings.model_copy(update={"redis": redis})
        self.deployment.settings = self.settings

    def close(self) -> None:
        """End everything that was started."""
        self._ended.set()
        for process in self._processes.values():
            process.kill()
            process.wait()
        self._stack.stop()

    # --- load and kills ----------------------------------------------------------------------------------

    def send_live(self, events: int, parts_per_s: float = _PARTS_PER_SECOND) -> threading.Thread:
        """Send events as they happen, in parts, in the background; what was not acknowledged is sent again."""
        thread = threading.Thread(target=self._send_live, args=(events, parts_per_s), daemon=True)
        thread.start()
        return thread

    def _send_live(self, events: int, parts_per_s: float) -> None:
        now = datetime.now(UTC)
        workload = Workload(seed=self._seed + 1, events=events, start=now - timedelta(seconds=30), end=now)
        records = [(None, subject, event) for _, subject, event in workload]
        size = PART_EVENTS
        with Producer(self.settings.redis) as producer:
            for start in range(0, len(records), size):
                while not self._ended.is_set():
                    with contextlib.suppress(Unreachable):
                        producer.send(records[start : start + size])
                        break
                    time.sleep(0.1)
                self._ended.wait(1 / parts_per_s)

    def ensure(self, name: str, fault_point: str = "", options: tuple[str, ...] = ()) -> None:
        """Start the flow or the poster if it does not run; what it says goes to a file."""
        process = self._processes.get(name)
        if process is not None and process.poll() is None:
            return
        if process is not None:
            self.deaths[f"{name} {'by signal' if process.returncode < 0 else f'exit {process.returncode}'}"] += 1
        changes = {
            "METERBRIDGE_REDIS__READ_ENTRIES": "50",
            "METERBRIDGE_FLOW__ITEM_EVENTS_MAX": "400",
            "METERBRIDGE_FAULT_POINT": fault_point,
        }
        environment = self.deployment.environment(**(changes | self.extra))
        with self._log(name).open("ab") as output:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-m", "cli", *_COMMANDS[name], *options],
                env=environment,
                cwd=Path(__file__).parents[2],
                stdout=output,
                stderr=output,
            )

    def running(self, name: str) -> bool:
        """Tell whether the flow or the poster runs."""
        process = self._processes.get(name)
        return process is not None and process.poll() is None

    def wait_until_started(self, name: str, seconds: float = 60.0) -> None:
        """Wait until the flow or the poster has met all servers and works."""
        until_s = time.monotonic() + seconds
        while " runs." not in self.said(name):
            assert self.running(name), self.said(name)[-2_000:]
            assert time.monotonic() < until_s, self.said(name)[-2_000:]
            time.sleep(0.1)

    def pid(self, name: str) -> int:
        """Return the process id of the flow or the poster."""
        return self._processes[name].pid

    def wait(self, name: str, seconds: float) -> int:
        """Wait until the flow or the poster has ended by itself, and return its exit code."""
        return self._processes[name].wait(timeout=seconds)

    def stop(self, name: str, seconds: float) -> int:
        """Ask the flow or the poster to end, and return its exit code."""
        self._processes[name].terminate()
        return self.wait(name, seconds)

    def said(self, name: str) -> str:
        """Return all that the flow or the poster has said."""
        return self._log(name).read_text(errors="replace")

    def _log(self, name: str) -> Path:
        return self.settings.state_dir / f"{name}.log"

    def kill(self, name: str) -> None:
        """Kill one process with SIGKILL, if it runs."""
        if name in SERVERS:
            process = running(self.settings.state_dir / "stack" / f"{name}.pid")
            if process is not None:
                os.kill(process.pid, signal.SIGKILL)
                with contextlib.suppress(psutil.NoSuchProcess):
                    psutil.wait_procs([psutil.Process(process.pid)], timeout=30)
                self.deaths[f"{name} by signal"] += 1
            return
        own = self._processes.get(name)
        if own is not None and own.poll() is None:
            own.kill()
            own.wait()

    def start_servers(self) -> None:
        """Start the servers that do not run."""
        self._stack.start()

    # --- the end -----------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Let flow and poster finish undisturbed."""
        for name in PROCESSES:
            self.kill(name)
        self.start_servers()
        self._command("run", "--drain")
        # The lease of a poster that was killed has to run out first; until then `post --once` says so and fails.
        deadline_s = time.monotonic() + LEASE_S_MAX
        while (failed := self._failure("post", "--once")) and time.monotonic() < deadline_s:
            time.sleep(1.0)
        assert not failed, failed
        self._command("post", "--once")

    def _command(self, *arguments: str) -> None:
        failed = self._failure(*arguments)
        assert not failed, failed

    def _failure(self, *arguments: str) -> str:
        """Run a command to its end; return what it said if it failed, else nothing."""
        done = self.deployment.start(*arguments)
        output, errors = done.communicate(timeout=180)
        return f"{arguments}: {errors[-2000:]}{output[-500:]}" if done.returncode else ""

    def check(self) -> list[str]:
        """Return what is not as it must be; every list of the issue's identities is empty if all is well."""
        wrong: list[str] = []
        redis = self.settings.redis
        expected = Oracle(self.deployment.configuration).run(read_streams(redis.url, redis.streams))
        if self.deployment.outcomes() != dict(expected.outcomes):
            wrong.append(f"outcomes {self.deployment.outcomes()} are not {dict(expected.outcomes)}")
        wrong += differences(self.deployment.facts(), expected)
        replay = verify(self.settings)
        wrong += [f"replay differs: {row.table} {row.samples}" for row in replay.comparisons if not row.equal]
        with open_stores(self.settings) as stores:
            report = reconcile(stores, span_of(stores, None, None))
            wrong += [f"{check.name}: {check.breaks[:2]}" for check in report.checks if not check.holds]
            wrong += self._books_differ(stores.engine)
        return wrong

    def _books_differ(self, engine: Engine) -> list[str]:
        """Compare the journal with the ledger: nothing missing, nothing twice."""
        states = postings.count_by_state(engine)
        wrong = [f"postings are left {state}: {count}" for state, count in states.items() if state != postings.POSTED]
        totals = documents.net_totals(engine)
        booked: Counter[str] = Counter()
        for (account, currency), balance in balances(self.settings.books_dir).items():
            if account.startswith("Assets"):
                booked[currency] += balance  # type: ignore[assignment]  # decimals
        if {currency: total for currency, total in totals.items() if total} != {c: b for c, b in booked.items() if b}:
            wrong.append(f"the books hold {dict(booked)}, the documents {totals}")
        keys = [
            line.split('"')[1]
            for path in self.settings.books_dir.rglob("*.beancount")
            for line in path.read_text().splitlines()
            if line.strip().startswith("key:")
        ]
        twice = [key for key, count in Counter(keys).items() if count > 1]
        if twice or len(keys) != states.get(postings.POSTED, 0):
            wrong.append(f"{len(keys)} entries in the books for {states}; twice: {twice}")
        return wrong
