"""ClickHouse in memory: rows replace by identity as the tables define it; what may never change is watched."""

from collections.abc import Callable
from typing import Any, Final

import polars as pl

from core.reasons import VOID_TYPE
from sinks.clickhouse.tables import TABLES
from tests.simulation.fate import Fate, require

Row = dict[str, Any]
Key = tuple[Any, ...]

_POSITION: Final = ("stream", "entry_ms", "entry_seq", "entry_index")
KEYS: Final[dict[str, tuple[str, ...]]] = {
    "usage_events": _POSITION,
    "usage_rejects": (*_POSITION, "reason", "detail"),
    "intake_counts": ("stream", "ingest_minute", "outcome", "reason", "shard"),
    "usage_facts": ("tenant", "meter", "booked_minute", "usage_minute", "dimensions"),
    "rated_usage": (
        "customer", "booked_hour", "contract", "plan", "plan_version", "charge", "price_row", "period_start_us",
        "usage_hour", "accounting_period", "line_kind", "tenant", "meter", "currency",
    ),
    "exceptions": ("kind", "identity"),
}  # fmt: skip
"""What a row is known by in each table; the version, where there is one, is below."""


def _fact_revision(row: Row) -> int:
    return (int(row["sealed"]) << 63) + int(row["version"])


def _rated_revision(row: Row) -> int:
    return (int(row["status"] != "provisional") << 63) + int(row["version"])


_REVISIONS: Final[dict[str, Callable[[Row], int]]] = {
    "usage_facts": _fact_revision,
    "rated_usage": _rated_revision,
    "intake_counts": lambda row: int(row["events"]),
    "exceptions": lambda row: int(row["events"]),
}
_FINAL: Final[dict[str, Callable[[Row], bool]]] = {
    "usage_events": lambda _row: True,
    "usage_rejects": lambda _row: True,
    "usage_facts": lambda row: bool(row["sealed"]),
    "rated_usage": lambda row: row["status"] != "provisional",
}
"""Rows that no other row of the same identity may ever differ from."""
_CLOSED: Final = {"usage_facts": ("tenant", "booked_minute"), "rated_usage": ("customer", "tenant", "booked_hour")}
"""Once final rows of such a group are durable, the group has no new ones."""


class Warehouse:
    """All tables, and the documents by key.

    `unique_identities`: no event counts twice; to be left out where the dedupe horizon ends within the run.
    """

    def __init__(self, *, unique_identities: bool = True) -> None:
        self._unique_identities = unique_identities
        self.tables: dict[str, dict[Key, Row]] = {name: {} for name in KEYS}
        self.documents: dict[str, str] = {}
        self._finals: dict[str, dict[Key, Row]] = {name: {} for name in _FINAL}
        self._closed: dict[str, set[Key]] = {name: set() for name in _CLOSED}
        self._identities: dict[Key, Key] = {}

    def insert(self, table: str, item: Any) -> None:
        """Insert an item's rows; a repeated insert replaces what it inserted before."""
        if table == "financial_documents":
            known = self.documents.setdefault(item.key, item.digest)
            require(known == item.digest, f"document {item.key} came with another digest")
            return
        rows: pl.DataFrame = TABLES[table].trim(item)
        for row in rows.iter_rows(named=True):
            self._insert_row(table, row)

    def _insert_row(self, table: str, row: Row) -> None:
        key = tuple(row[name] for name in KEYS[table])
        if table in _FINAL and _FINAL[table](row):
            known = self._finals[table].get(key)
            require(known is None or known == row, f"{table} {key} changed: {known} became {row}")
            group = tuple(row[name] for name in _CLOSED.get(table, ()))
            require(known is not None or group not in self._closed.get(table, ()), f"{table} {key} came after its seal")
            self._finals[table][key] = row
        if table == "usage_events" and row["type"] != VOID_TYPE and self._unique_identities:
            first = self._identities.setdefault((row["source"], row["id"]), key)
            require(first == key, f"event {row['source']}/{row['id']} counts twice: at {first} and {key}")
        revision = _REVISIONS.get(table)
        known = self.tables[table].get(key)
        if known is None or revision is None or revision(row) >= revision(known):
            self.tables[table][key] = row

    def commit(self) -> None:
        """Take everything final as durable: from now on its groups are closed."""
        for table, names in _CLOSED.items():
            rows = self._finals[table].values()
            self._closed[table] = {tuple(row[name] for name in names) for row in rows}

    def final_rows(self, table: str) -> list[str]:
        """Return the final rows of a table in a form that sorts."""
        return sorted(repr(row) for row in self._finals[table].values())


class TableSink:
    """The sink of one table: inserts in the background, repeats what it has no answer for, waits in `snapshot`."""

    def __init__(self, table: str, warehouse: Warehouse, fate: Fate) -> None:
        self._table, self._warehouse, self._fate = table, warehouse, fate
        self._queue: list[Any] = []
        self._counts: dict[Key, int] = {}

    def write_batch(self, items: list[Any]) -> None:
        """Take items, and insert some of what waits."""
        if self._table == "intake_counts":
            self._watch_counts(items)
        self._queue += items
        while self._queue and self._fate.random.random() < 0.3:
            self._insert()

    def _insert(self) -> None:
        """Insert the oldest items; without an answer they stay in the queue and are inserted again."""
        count = self._fate.random.randrange(1, len(self._queue) + 1)
        self._fate.step(f"{self._table}.insert")
        for item in self._queue[:count]:
            self._warehouse.insert(self._table, item)
        self._fate.step(f"{self._table}.inserted")
        if not self._fate.fails():
            del self._queue[:count]

    def _watch_counts(self, items: list[Any]) -> None:
        for frame in items:
            for row in frame.iter_rows(named=True):
                key = tuple(row[name] for name in KEYS["intake_counts"])
                require(row["events"] >= self._counts.get(key, 0), f"the intake count of {key} went back")
                self._counts[key] = row["events"]

    def snapshot(self) -> dict[str, int]:
        """Insert all that waits."""
        while self._queue:
            self._insert()
        return {"version": 1}

    def in_flight(self) -> list[Any]:
        """Return what may still be applied by the server although this process is dead."""
        return self._queue[: self._fate.random.randrange(len(self._queue) + 1)]
