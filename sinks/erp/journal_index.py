"""Where keys are booked in the journal: a private index on disk, so that memory does not grow with the books."""

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Final

CACHE_KIB: Final = 2_048


@dataclass(frozen=True, slots=True)
class Place:
    """Where a key is booked."""

    number: int
    digest: str
    day: date


class KeyIndex:
    """The index of one process. It is made of the files at each start and dies with the process: nothing to recover.

    SQLite deletes the file of a database without a name when it is closed, and holds no more of it than its cache.
    """

    def __init__(self) -> None:
        # The directory's lock lets one thread at a time come here.
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        for setting in (f"cache_size = -{CACHE_KIB}", "journal_mode = OFF", "synchronous = OFF"):
            self._database.execute(f"PRAGMA {setting}")
        columns = "key TEXT NOT NULL, number INTEGER NOT NULL, digest TEXT NOT NULL, day INTEGER NOT NULL"
        self._database.execute(f"CREATE TABLE places ({columns})")
        self._database.execute("CREATE INDEX places_key ON places (key)")

    def clear(self) -> None:
        """Forget everything."""
        self._database.execute("DELETE FROM places")

    def add(self, day: date, entries: Iterable[tuple[str, int, str]]) -> None:
        """Add (key, number, digest) of a day."""
        number = day.toordinal()
        self._database.execute("BEGIN")
        try:
            self._database.executemany(
                "INSERT INTO places VALUES (?, ?, ?, ?)", ((*entry, number) for entry in entries)
            )
        finally:
            self._database.execute("COMMIT")

    def find(self, key: str) -> tuple[Place, ...]:
        """Return where a key is booked, in the order of the files; more than one place is an alarm for the caller."""
        query = "SELECT number, digest, day FROM places WHERE key = ? ORDER BY rowid"
        rows = self._database.execute(query, (key,)).fetchall()
        return tuple(Place(number, digest, date.fromordinal(day)) for number, digest, day in rows)

    def number_last(self) -> int:
        """Return the highest number there is, or 0."""
        return int(self._database.execute("SELECT coalesce(max(number), 0) FROM places").fetchone()[0])
