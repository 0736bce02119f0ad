"""What a soak run watches: memory, processor time, files, streams and freshness, one row per sample."""

import contextlib
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import psutil
import redis
from sqlalchemy import Engine

from config.settings import Settings
from sinks.ledger import progress

_KIB: Final = 1024


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at everything. `at_s` counts from the start of the load; processor time since the start of a process.

    `flow_private_bytes` is memory of the flow's own (heap); `flow_mapped_bytes` are pages of files that are mapped,
    which the kernel takes back when it needs them: the id log's.
    """

    at_s: float
    flow_private_bytes: int
    flow_mapped_bytes: int
    valkey_bytes: int
    clickhouse_bytes: int
    flow_cpu_s: float
    valkey_cpu_s: float
    clickhouse_cpu_s: float
    recovery_bytes: int
    id_log_bytes: int
    clickhouse_disk_bytes: int
    append_only_bytes: int
    ledger_bytes: int
    events: float
    """Decided by the flow since its start."""
    lag_entries: float
    stream_entries: int
    freshness_s: float
    """Age of the watermark up to which everything is durable in all stores."""
    load_1min: float

    def to_plain(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


class Sampler:
    """Looks at the processes of one deployment."""

    def __init__(self, settings: Settings, ledger: Engine, pids: Mapping[str, int]) -> None:
        self._settings, self._ledger = settings, ledger
        self._processes = {name: psutil.Process(pid) for name, pid in pids.items()}
        self._redis: Any = redis.Redis.from_url(settings.redis.url)
        self._began_s = time.monotonic()
        self._http = httpx.Client(timeout=5)

    def follow(self, name: str, pid: int) -> None:
        """Watch another process under that name from now on."""
        self._processes[name] = psutil.Process(pid)

    def close(self) -> None:
        """Close what was opened."""
        self._redis.close()
        self._http.close()

    def metric(self, prefix: str) -> float:
        """Return the sum of the flow's metrics that begin like that; 0 while it does not answer."""
        with contextlib.suppress(httpx.HTTPError):
            text = self._http.get(f"http://127.0.0.1:{self._settings.metrics.flow_port}/metrics").text
            return _sum(text, prefix)
        return 0.0

    def freshness_s(self) -> float:
        """Return the age of what is durable everywhere, by this machine's clock, which is Redis's as well."""
        return time.time() - progress.watermark_ms(self._ledger) / 1000

    def look(self) -> Sample:
        """Return a sample of now."""
        directory = self._settings.state_dir
        text = ""
        with contextlib.suppress(httpx.HTTPError):
            text = self._http.get(f"http://127.0.0.1:{self._settings.metrics.flow_port}/metrics").text
        private, mapped = _memory(self._processes["flow"].pid)
        return Sample(
            at_s=round(time.monotonic() - self._began_s, 1),
            flow_private_bytes=private,
            flow_mapped_bytes=mapped,
            valkey_bytes=self._rss("valkey"),
            clickhouse_bytes=self._rss("clickhouse"),
            flow_cpu_s=self._cpu_s("flow"),
            valkey_cpu_s=self._cpu_s("valkey"),
            clickhouse_cpu_s=self._cpu_s("clickhouse"),
            recovery_bytes=directory_bytes(directory / "recovery"),
            id_log_bytes=directory_bytes(directory / "dedupe") + directory_bytes(directory / "unique"),
            clickhouse_disk_bytes=directory_bytes(directory / "stack" / "clickhouse"),
            append_only_bytes=directory_bytes(directory / "stack" / "valkey"),
            ledger_bytes=sum(path.stat().st_size for path in directory.glob("ledger.sqlite*")),
            events=_sum(text, "meterbridge_events_total{"),
            lag_entries=_sum(text, "meterbridge_lag_entries{"),
            stream_entries=sum(int(self._redis.xlen(name)) for name in self._settings.redis.streams),
            freshness_s=round(self.freshness_s(), 2),
            load_1min=psutil.getloadavg()[0],
        )

    def _rss(self, name: str) -> int:
        try:
            return int(self._processes[name].memory_info().rss)
        except psutil.NoSuchProcess:
            return 0

    def _cpu_s(self, name: str) -> float:
        try:
            times = self._processes[name].cpu_times()
        except psutil.NoSuchProcess:
            return 0.0
        return round(times.user + times.system, 2)


def _memory(pid: int) -> tuple[int, int]:
    """Return private memory, and that of mapped files and shared memory, in bytes."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0, 0
    sizes = {line.split(":")[0]: int(line.split()[1]) * _KIB for line in lines if line.startswith("Rss")}
    return sizes.get("RssAnon", 0), sizes.get("RssFile", 0) + sizes.get("RssShmem", 0)


def directory_bytes(directory: Path) -> int:
    """Return the bytes that the files below a directory take on disk; what vanishes meanwhile counts 0."""
    total = 0
    for folder, _, names in os.walk(directory):  # unlike a glob it takes folders that vanish for empty ones
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(folder, name)).st_blocks * 512
    return total


def _sum(text: str, prefix: str) -> float:
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(prefix))
