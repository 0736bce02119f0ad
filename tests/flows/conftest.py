from collections.abc import Callable
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from tests.flows.harness import Deployment, deploy
from tests.flows.poster_fixtures import any_world, world

__all__ = ["any_world", "deployment", "world"]

Deploy = Callable[..., Deployment]


@pytest.fixture
def deployment(redis_url: str, clickhouse_url: str, tmp_path: Path) -> Deploy:
    """Return a function that makes an empty deployment; all of one test share the streams."""
    made = iter(range(100))

    def make(**flow: Any) -> Deployment:
        number = next(made)
        # crc32, not hash(): the name must be the same for whoever looks for it, in whatever process.
        name = f"flow_{crc32(str(tmp_path).encode()):08x}_{number}"
        return deploy(redis_url, clickhouse_url, tmp_path / f"state{number}", name, **flow)

    return make
