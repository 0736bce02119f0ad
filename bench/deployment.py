"""A deployment of its own for one bench: embedded servers on free ports, migrated."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.machine import COMPILED_DIR
from cli.demo_steps import free_port
from config.settings import Settings
from core.redis_client import connect as connect_redis
from stack.supervisor import Stack

CONFIG: Final = Path(__file__).parents[1] / "config" / "meterbridge.yaml"


@dataclass(frozen=True, slots=True)
class Deployment:
    """Settings of this process, and the environment that gives a command the same."""

    settings: Settings
    environment: dict[str, str]
    stack: Stack

    def entries(self) -> int:
        """Return how many entries the streams hold."""
        with connect_redis(self.settings.redis) as client:
            return sum(int(client.xlen(name)) for name in self.settings.redis.streams)


@contextmanager
def deployed(directory: Path, **variables: str) -> Iterator[Deployment]:
    """Start the servers, migrate, and stop them again.

    :param variables: more of the environment.
    """
    base = Settings()
    settings = base.model_copy(
        update={
            "state_dir": directory,
            "redis": base.redis.model_copy(update={"url": f"redis://127.0.0.1:{free_port(0)}/0"}),
            "clickhouse": base.clickhouse.model_copy(update={"url": f"http://127.0.0.1:{free_port(0)}"}),
        }
    )
    environment = os.environ | {
        "METERBRIDGE_CONFIG_FILE": str(CONFIG),
        "METERBRIDGE_STATE_DIR": str(directory),
        "METERBRIDGE_REDIS__URL": settings.redis.url,
        "METERBRIDGE_CLICKHOUSE__URL": settings.clickhouse.url,
        "METERBRIDGE_METRICS__FLOW_PORT": str(free_port(0)),
        "METERBRIDGE_FLOW__COMPILED_DIR": str(COMPILED_DIR),
        **variables,
    }
    stack = Stack(settings)
    stack.start()
    try:
        subprocess.run([sys.executable, "-m", "cli", "migrate"], env=environment, check=True, capture_output=True)
        yield Deployment(settings, environment, stack)
    finally:
        stack.stop()
