"""ClickHouse: schema, converters, the writer thread and the sinks that flush with the epoch."""

from config.settings import ClickHouseSettings

__all__ = ["migrate"]


def migrate(settings: ClickHouseSettings) -> list[int]:
    """Bring the schema up to date and return the numbers of the migrations applied (see `schema.py`)."""
    from sinks.clickhouse.schema import migrate as run  # noqa: PLC0415  # keeps the import of the package cheap

    return run(settings)
