"""What the processes watch: disks, the configuration files, open exceptions. Each sets its metrics."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

from config.loader import load
from config.revision import Configuration, Revision
from config.settings import Settings
from core import metrics
from core.clock import Clock
from core.errors import ConfigError
from flows.watch import Measurement
from queries import exception_counts
from sinks.clickhouse.client import connect

DISK_EVERY_S: Final = 30.0
CONFIG_EVERY_S: Final = 30.0
EXCEPTIONS_EVERY_S: Final = 300.0


def of_flow(settings: Settings, configuration: Configuration, config_path: Path | None) -> list[Measurement]:
    """Return what the metering flow watches: its disk, and whether the files still say what it runs."""
    found = [Measurement("disk", DISK_EVERY_S, _disks({"state": settings.state_dir}))]
    if config_path is not None:
        drift = ConfigurationDrift(config_path, configuration)
        found.append(Measurement("config", CONFIG_EVERY_S, drift.measure, after_s=CONFIG_EVERY_S))
    return found


def of_poster(settings: Settings, clock: Clock) -> list[Measurement]:
    """Return what the poster watches: the disks of books and ClickHouse, and open exceptions."""
    return [
        Measurement("disk", DISK_EVERY_S, _disks({"state": settings.state_dir, "books": settings.books_dir})),
        Measurement("clickhouse_disk", DISK_EVERY_S, lambda: measure_clickhouse_disk(settings)),
        Measurement("exceptions", EXCEPTIONS_EVERY_S, OpenExceptions(settings, clock).measure),
    ]


def _disks(directories: dict[str, Path]) -> Callable[[], None]:
    def measure() -> None:
        for name, directory in directories.items():
            there = next(path for path in (directory.absolute(), *directory.absolute().parents) if path.exists())
            usage = shutil.disk_usage(there)
            metrics.DISK_FREE.labels(name).set(usage.free)
            metrics.DISK_SIZE.labels(name).set(usage.total)

    return measure


def measure_clickhouse_disk(settings: Settings) -> None:
    """Set the metrics of the fullest of ClickHouse's disks. Raises Unreachable if the server does not answer."""
    with connect(settings.clickhouse) as client:
        rows = client.query(
            "SELECT unreserved_space, total_space FROM system.disks WHERE total_space > 0"
            " ORDER BY unreserved_space / total_space LIMIT 1"
        ).result_rows
    for free, size in rows:
        metrics.DISK_FREE.labels("clickhouse").set(int(free))
        metrics.DISK_SIZE.labels("clickhouse").set(int(size))


class ConfigurationDrift:
    """Compares the configuration files with the revision that runs. They are read again only once they changed."""

    def __init__(self, path: Path, runs: Configuration) -> None:
        self._path = path
        self._runs = Revision(runs, 0).text
        self._seen: tuple[tuple[str, int, int], ...] | None = None

    def measure(self) -> None:
        """Set the metric: 1 if the files are broken or give another revision."""
        seen = self._signature()
        if seen == self._seen:
            return
        metrics.CONFIG_DRIFT.set(0 if self._is_the_same() else 1)
        self._seen = seen

    def _signature(self) -> tuple[tuple[str, int, int], ...]:
        files = sorted(self._path.glob("*.yaml")) if self._path.is_dir() else [self._path]
        stats = [(file, file.stat()) for file in files if file.exists()]
        return tuple((str(file), stat.st_mtime_ns, stat.st_size) for file, stat in stats)

    def _is_the_same(self) -> bool:
        try:
            return Revision(load(self._path), 0).text == self._runs
        except ConfigError:
            return False


class OpenExceptions:
    """Counts open exceptions by kind."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings, self._clock = settings, clock
        self._kinds: set[str] = set()

    def measure(self) -> None:
        """Set the metrics; a kind without open exceptions any more becomes 0."""
        found = exception_counts.open_by_kind(self._settings, self._clock.now())
        self._kinds |= found.keys()
        for kind in self._kinds:
            counted = found.get(kind)
            metrics.EXCEPTIONS_OPEN.labels(kind).set(counted.count if counted else 0)
            metrics.EXCEPTIONS_OLDEST.labels(kind).set(counted.first.timestamp() if counted else 0)
