"""Worlds for tests of poster and ledger; a `conftest.py` that imports them gives them to its folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flows.poster_world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Return an empty ledger in SQLite."""
    made = World(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    yield made
    made.engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def any_world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """Return an empty ledger, once in SQLite and once in PostgreSQL."""
    is_lite = request.param == "sqlite"
    made = World(f"sqlite:///{tmp_path / 'ledger.sqlite'}" if is_lite else request.getfixturevalue("postgres_url"))
    yield made
    made.engine.dispose()
