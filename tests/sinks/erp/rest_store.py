"""The books of the test ERPs over HTTP: entries and lines in SQLite, and the business rules all of them check."""

import sqlite3
from decimal import Decimal
from typing import Any

ACCOUNTS = {"1150", "1200", "2400", "4001", "4003"}
CUSTOMERS = {"CUST-0001", "CUST-0002"}
CLOSED = "2025-01"
SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (id INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT, digest TEXT, currency TEXT,
    date TEXT, day TEXT, reverses TEXT, state TEXT NOT NULL DEFAULT 'posted', changed_by TEXT, changed_at TEXT);
CREATE TABLE IF NOT EXISTS lines (entry INTEGER, place INTEGER, account TEXT, amount TEXT, customer TEXT,
    dimension TEXT);
CREATE TABLE IF NOT EXISTS requests (id TEXT PRIMARY KEY, body TEXT, entry INTEGER);
CREATE TABLE IF NOT EXISTS jobs (id INTEGER PRIMARY KEY AUTOINCREMENT, body TEXT, entry INTEGER, asked INTEGER);
"""


class Refused(Exception):
    """The ERP's business rules say no."""


class Store:
    """Entries in SQLite; one request at a time."""

    def __init__(self, path: str) -> None:
        self.connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self.connection.row_factory = sqlite3.Row
        self.connection.execute("PRAGMA journal_mode = WAL")
        self.connection.execute("PRAGMA synchronous = OFF")  # processes are killed here, not machines
        self.connection.executescript(SCHEMA)

    def rows(self, query: str, *values: Any) -> list[dict[str, Any]]:
        return [dict(row) for row in self.connection.execute(query, values)]

    def check(self, entry: dict[str, Any]) -> None:
        if entry["date"].startswith(CLOSED):
            message = f"the accounting period {CLOSED} is closed"
            raise Refused(message)
        for line in entry["lines"]:
            if line["account"] not in ACCOUNTS:
                message = f"Invalid account {line['account']}"
                raise Refused(message)
            if line["customer"] and line["customer"] not in CUSTOMERS:
                message = f"Invalid customer {line['customer']}"
                raise Refused(message)
            if not line["dimension"] and entry.get("kind", "journal") == "journal":
                message = "a dimension is missing: charge"
                raise Refused(message)
        if sum(line["amount"] for line in entry["lines"]) != 0:
            message = "the journal does not balance"
            raise Refused(message)

    def book(self, entry: dict[str, Any], number: int | None = None) -> int:
        """Write an entry, or rewrite one, inside the caller's transaction."""
        self.check(entry)
        head = [entry[name] for name in ("key", "digest", "currency", "date", "day")]
        if number is None:
            cursor = self.connection.execute(
                "INSERT INTO entries (key, digest, currency, date, day) VALUES (?, ?, ?, ?, ?)", head
            )
            number = int(cursor.lastrowid or 0)
        else:
            change = "UPDATE entries SET key = ?, digest = ?, currency = ?, date = ?, day = ? WHERE id = ?"
            self.connection.execute(change, [*head, number])
            self.connection.execute("DELETE FROM lines WHERE entry = ?", [number])
        self.connection.executemany(
            "INSERT INTO lines VALUES (?, ?, ?, ?, ?, ?)",
            [
                (number, place, line["account"], str(line["amount"]), line["customer"], line["dimension"])
                for place, line in enumerate(entry["lines"])
            ],
        )
        return number

    def lines(self, number: int) -> list[dict[str, Any]]:
        return self.rows("SELECT * FROM lines WHERE entry = ? ORDER BY place", number)


def exact(value: Any) -> Decimal:
    """Return a JSON number or text as it was written."""
    return value if isinstance(value, Decimal) else Decimal(str(value))
