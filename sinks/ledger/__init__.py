"""The ledger database: documents, postings and every recorded input, in SQLite or PostgreSQL."""

from sinks.ledger.database import connect, migrate, read, unreachable, write

__all__ = ["connect", "migrate", "read", "unreachable", "write"]
