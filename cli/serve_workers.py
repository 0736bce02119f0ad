"""`meterbridge serve --workers N`: the supervisor of the worker processes, and what a worker gets from it.

Every worker listens on the port with a socket of its own (SO_REUSEPORT), so that the kernel spreads connections evenly,
and a worker that is gone gets no more of them. The supervisor holds the port without listening, serves the metrics of
all workers, and has the table of rate limits that they share.
"""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from typing import Final

from prometheus_client import REGISTRY, CollectorRegistry, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from config.settings import Settings
from console.shared_buckets import new_file
from console.worker import Place
from core.clock import SystemClock
from core.metrics import CONSOLE_RESTARTS, CONSOLE_WORKERS
from flows import health
from flows.supervise import die_with_parent
from flows.supervise_many import Workers
from sinks import ledger

METRICS_DIRECTORY: Final = "PROMETHEUS_MULTIPROC_DIR"
_OF_WORKERS: Final = "meterbridge_api_"
_OF_SUPERVISOR: Final = "meterbridge_console_"


class _Metrics(Collector):
    """The metrics of all workers together, and those of the supervisor."""

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def collect(self) -> Iterable[Metric]:
        """Yield them."""
        collector = MultiProcessCollector(None, path=self._directory)  # type: ignore[no-untyped-call]
        of_workers: Iterable[Metric] = collector.collect()  # type: ignore[no-untyped-call]
        yield from (one for one in of_workers if one.name.startswith(_OF_WORKERS))
        yield from (one for one in REGISTRY.collect() if one.name.startswith(_OF_SUPERVISOR))


def registry_of(directory: str) -> CollectorRegistry:
    """Return what `/metrics` of the supervisor shows."""
    registry = CollectorRegistry()
    registry.register(_Metrics(directory))
    return registry


def serve_all(settings: Settings, reserved: socket.socket, workers: int, say: Callable[[], None]) -> int:
    """Run the workers until they are stopped and return the exit code; `say` is called when all of them listen.

    :raises Unreachable: the ledger does not answer.
    :raises InvalidRequest: it is not migrated.
    :raises FatalError: the port of the metrics is taken.
    """
    engine = ledger.connect(settings.ledger_url)
    try:
        ledger.check_ready(engine)  # said once, and not by every worker
    finally:
        engine.dispose()
    host, port = reserved.getsockname()[:2]
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    silent = workers
    with tempfile.TemporaryDirectory(prefix="meterbridge-metrics-") as directory, new_file() as buckets:
        environment = os.environ | {METRICS_DIRECTORY: directory}

        def start(number: int) -> "subprocess.Popen[bytes]":
            place = Place(number, buckets.fileno(), writing)
            own = ["--host", str(host), "--port", str(port), "--worker", str(place)]
            return subprocess.Popen(  # noqa: S603
                [sys.executable, "-P", "-m", "cli", *sys.argv[1:], *own],  # the last of an option counts
                env=environment,
                pass_fds=(buckets.fileno(), writing),
                stdout=subprocess.DEVNULL,  # the supervisor says the address
                preexec_fn=die_with_parent,  # noqa: PLW1509
            )

        def listen() -> None:
            nonlocal silent
            with contextlib.suppress(BlockingIOError):
                told = len(os.read(reading, 4096))
                silent, before = silent - told, silent
                if before > 0 >= silent:
                    say()

        metrics = health.serve(settings.metrics, settings.metrics.console_port, registry_of(directory))
        try:
            return Workers(workers, start, SystemClock(), _count).run(listen)
        finally:
            metrics.shutdown()
            os.close(reading)
            os.close(writing)


def _count(running: int, again: bool) -> None:
    CONSOLE_WORKERS.set(running)
    if again:
        CONSOLE_RESTARTS.inc()
