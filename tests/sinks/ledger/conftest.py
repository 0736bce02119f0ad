"""Every ledger test runs on SQLite and on PostgreSQL."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from sinks import ledger
from tests.flows.poster_fixtures import any_world, world
from tests.sinks.ledger import samples

__all__ = ["any_world", "engine", "world"]


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """An empty, migrated ledger."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    else:
        url = request.getfixturevalue("postgres_url")
    ledger.migrate(url)
    made = ledger.connect(url)
    if request.param == "postgresql":
        samples.empty(made)
    yield made
    made.dispose()
