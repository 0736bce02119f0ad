"""A ledger database for one run: a SQLite file in memory, with every commit a step at which a process may die."""

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, event, select

from sinks import ledger
from sinks.ledger import tables
from sinks.ledger.database import read
from tests.operators.dedupe_cases import SCRATCH
from tests.simulation.fate import Fate

WRITER = "meterbridge_writer"


@cache
def _template() -> bytes:
    """Return an empty migrated database; migrating anew for every run would take longer than the run."""
    with tempfile.TemporaryDirectory(dir=SCRATCH) as directory:
        path = Path(directory) / "ledger.sqlite"
        ledger.migrate(f"sqlite:///{path}")
        return path.read_bytes()


def open_ledger(directory: Path, fate: Fate) -> Engine:
    """Return an empty ledger. A transaction in which its process dies is rolled back, as SQLite does."""
    path = directory / "ledger.sqlite"
    path.write_bytes(_template())
    engine = ledger.connect(f"sqlite:///{path}")

    def without_sync(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA synchronous = OFF")  # no machine is lost here, only processes

    def before_commit(connection: Connection) -> None:
        if connection.get_execution_options().get(WRITER):
            fate.step("ledger.commit")

    event.listen(engine, "connect", without_sync)
    event.listen(engine, "commit", before_commit)
    return engine


def document_states(engine: Engine) -> dict[str, tuple[str, str]]:
    """Return state and digest of every document."""
    table = tables.documents
    with read(engine) as connection:
        rows = connection.execute(select(table.c.key, table.c.state, table.c.digest)).all()
    return {row.key: (row.state, row.digest) for row in rows}


def posting_states(engine: Engine) -> dict[str, tuple[str, str, str]]:
    """Return state, reason and digest of every posting."""
    table = tables.postings
    with read(engine) as connection:
        rows = connection.execute(select(table.c.key, table.c.state, table.c.reason, table.c.digest)).all()
    return {row.key: (row.state, row.reason, row.digest) for row in rows}


def final_states(engine: Engine) -> dict[str, str]:
    """Return the state of every document as dashboards must show it: its posting's, or its own if it has none."""
    documents, postings = tables.documents, tables.postings
    query = select(documents.c.key, documents.c.state, postings.c.state.label("posting")).join(
        postings, postings.c.key == documents.c.posting_key, isouter=True
    )
    with read(engine) as connection:
        return {row.key: row.posting or row.state for row in connection.execute(query)}
