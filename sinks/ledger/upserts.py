"""Insert a row or update the one that has its key: one statement on both databases."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite


def upsert(connection: Connection, table: Table, identity: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Write `values` to the row of that primary key, making it if it is not there."""
    insert: Any = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    statement = insert(table).values({**identity, **values})
    connection.execute(statement.on_conflict_do_update(index_elements=list(identity), set_=dict(values)))
