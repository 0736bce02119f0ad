from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.flows.harness import Deployment, deploy

Deploy = Callable[..., Deployment]


@pytest.fixture
def deployment(redis_url: str, clickhouse_url: str, tmp_path: Path) -> Deploy:
    """Return a function that makes an empty deployment; all of one test share the streams."""
    made = iter(range(100))

    def make(**flow: Any) -> Deployment:
        number = next(made)
        name = f"flow_{abs(hash(tmp_path)) % 10**12}_{number}"
        return deploy(redis_url, clickhouse_url, tmp_path / f"state{number}", name, **flow)

    return make
