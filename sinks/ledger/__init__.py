"""The ledger database: documents, postings and every recorded input, in SQLite or PostgreSQL."""

from sinks.ledger.database import check_ready, connect, migrate, read, unreachable, write

__all__ = ["check_ready", "connect", "migrate", "read", "unreachable", "write"]
