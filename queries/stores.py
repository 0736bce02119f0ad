"""The stores a question is put to: ClickHouse, the ledger database and the journaled configuration."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import Engine

from config.revision import History
from config.settings import Settings
from sinks import ledger
from sinks.clickhouse.client import Client, connect, quoted
from sinks.ledger import revisions

Row = dict[str, Any]

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Stores:
    """Open connections and the configuration history. Not for two threads at once."""

    settings: Settings
    client: Client
    engine: Engine
    history: History

    def rows(self, text: str, parameters: Mapping[str, Any] | None = None) -> list[Row]:
        """Return the rows of a query as dictionaries; `@table` names a table or view of our database.

        Values go into `{name:Type}` places, never into the text.
        """
        result = self.client.query(self.resolved(text), parameters=parameters)
        return [dict(zip(result.column_names, row, strict=True)) for row in result.result_rows]

    def resolved(self, text: str) -> str:
        """Return the query with our database's name in place of each `@`."""
        return text.replace("@", f"{quoted(self.settings.clickhouse.database)}.")


@contextmanager
def open_stores(settings: Settings) -> Iterator[Stores]:
    """Connect to ClickHouse and the ledger and load the configuration history.

    :raises Unreachable: one of them does not answer.
    :raises FatalError: the ledger is not migrated.
    :raises InvariantViolation: no configuration is recorded yet.
    """
    engine = ledger.connect(settings.ledger_url)
    try:
        ledger.check_ready(engine)
        history = History(revisions.load_history(engine))
        with connect(settings.clickhouse) as client:
            yield Stores(settings, client, engine, history)
    finally:
        engine.dispose()


def minute_of(when: datetime) -> int:
    """Return the whole minute since 1970-01-01T00:00Z that this moment lies in."""
    return (when - EPOCH) // timedelta(minutes=1)


def of_minute(minute: int) -> datetime:
    """Return when that minute begins."""
    return EPOCH + timedelta(minutes=minute)


def of_hour(hour: int) -> datetime:
    """Return when that hour since 1970-01-01T00:00Z begins."""
    return EPOCH + timedelta(hours=hour)
