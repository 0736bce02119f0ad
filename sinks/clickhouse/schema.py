"""Creates and updates the ClickHouse schema: numbered SQL files, each applied once and recorded.

A file is applied statement by statement, and recorded after its last one; every statement can be repeated, so
dying in between means the file runs again. The checksum of an applied file never changes.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Final

from config.settings import ClickHouseSettings
from core.errors import StateMismatch
from sinks.clickhouse.client import Client, connect, quoted

_NUMBERED: Final = re.compile(r"^(\d{4})_(\w+)\.sql$")
_PACKAGE: Final = "sinks.clickhouse.migrations"


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered file."""

    number: int
    name: str
    text: str

    @property
    def checksum(self) -> str:
        """Return the SHA-256 of the text, in hex."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def statements(self, database: str) -> list[str]:
        """Return the statements for that database. A statement ends with a semicolon at the end of a line."""
        without_comments = re.sub(r"^--.*\n", "", self.text, flags=re.MULTILINE)
        parts = re.split(r";[ \t]*(?:\n|$)", without_comments)
        return [part.strip().replace("{database}", quoted(database)) for part in parts if part.strip()]


def migrations() -> list[Migration]:
    """Return the files that come with this release, in order.

    :raises StateMismatch: two files have one number, or a number is missing.
    """
    found = []
    for entry in resources.files("sinks.clickhouse").joinpath("migrations").iterdir():
        match = _NUMBERED.match(entry.name)
        if match:
            found.append(Migration(int(match[1]), match[2], entry.read_text(encoding="utf-8")))
    found.sort(key=lambda migration: migration.number)
    if [migration.number for migration in found] != list(range(1, len(found) + 1)):
        message = f"the migrations of this release are not numbered 1 to {len(found)}: the installation is broken"
        raise StateMismatch(message)
    return found


def pending(known: Sequence[Migration], applied: dict[int, str]) -> list[Migration]:
    """Return what is still to apply.

    :raises StateMismatch: the database was made by a newer release, or an applied file was changed.
    """
    newest = max(applied, default=0)
    if newest > len(known):
        message = (
            f"the ClickHouse schema is at {newest}, this release knows {len(known)}: "
            "run the release that made it, or a newer one"
        )
        raise StateMismatch(message)
    for migration in known:
        if migration.number in applied and applied[migration.number] != migration.checksum:
            message = (
                f"ClickHouse migration {migration.number:04d}_{migration.name}.sql was changed after it was applied: "
                "put the file back as it was, and make a new one for the change"
            )
            raise StateMismatch(message)
    return [migration for migration in known if migration.number not in applied]


def migrate(settings: ClickHouseSettings) -> list[int]:
    """Bring the schema up to date and return the numbers applied. Repeating it does nothing.

    :raises StateMismatch: schema and release do not belong together.
    :raises Unreachable: ClickHouse does not answer.
    """
    with connect(settings) as client:
        client.command(f"CREATE DATABASE IF NOT EXISTS {quoted(settings.database)}")
        todo = pending(migrations(), _applied(client, settings.database))
        for migration in todo:
            for statement in migration.statements(settings.database):
                client.command(statement)
            client.command(
                f"INSERT INTO {quoted(settings.database)}.schema_migrations (number, name, checksum)"  # noqa: S608
                " VALUES ({number:UInt32}, {name:String}, {checksum:String})",
                parameters={"number": migration.number, "name": migration.name, "checksum": migration.checksum},
            )
        apply_retention(client, settings)
        return [migration.number for migration in todo]


def schema_version(settings: ClickHouseSettings) -> tuple[int, int]:
    """Return (number applied, number known to this release)."""
    with connect(settings) as client:
        names = client.query(
            "SELECT count() FROM system.tables WHERE database = {database:String} AND name = 'schema_migrations'",
            parameters={"database": settings.database},
        )
        if not names.result_rows[0][0]:
            return 0, len(migrations())
        return max(_applied(client, settings.database), default=0), len(migrations())


def _applied(client: Client, database: str) -> dict[int, str]:
    client.command(
        f"CREATE TABLE IF NOT EXISTS {quoted(database)}.schema_migrations"
        " (number UInt32, name String, checksum String, applied_at DateTime64(3, 'UTC') DEFAULT now64(3))"
        " ENGINE = ReplacingMergeTree ORDER BY number"
    )
    query = f"SELECT number, checksum FROM {quoted(database)}.schema_migrations FINAL"  # noqa: S608
    return {int(number): str(checksum) for number, checksum in client.query(query).result_rows}


TTL_COLUMNS: Final[dict[str, str]] = {
    "usage_events": "ingest_time",
    "usage_rejects": "ingest_time",
    "intake_counts": "ingest_minute",
    "usage_facts": "booked_minute",
    "rated_usage": "booked_hour",
    "financial_documents": "booked_hour",
}
"""Tables that may forget, and the time that decides it."""
SUMS_OF: Final = {"usage_facts": ("usage_hours", "usage_totals")}
"""Tables that forget with another one, by `booked_hour`."""


def retention_statements(settings: ClickHouseSettings) -> list[str]:
    """Return the statements that set each table's retention; none for tables that are not named."""
    named = [(table, TTL_COLUMNS[table], days) for table, days in sorted(settings.retention_days.items())]
    sums = [(one, "booked_hour", days) for table, _, days in named for one in SUMS_OF.get(table, ())]
    return [
        f"ALTER TABLE {quoted(settings.database)}.{quoted(table)}"
        f" MODIFY TTL toDateTime({column}, 'UTC') + INTERVAL {days} DAY"
        for table, column, days in named + sums
    ]


def apply_retention(client: Client, settings: ClickHouseSettings) -> None:
    """Set the retention that the settings ask for; a table without one keeps what it has."""
    for statement in retention_statements(settings):
        client.command(statement, settings={"materialize_ttl_after_modify": 0})
