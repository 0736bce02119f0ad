"""The ledger's tables, as SQLAlchemy Core sees them. The migrations make them; a test compares the two.

Amounts are exact: NUMERIC(38, 12) on PostgreSQL, text on SQLite, whose own numbers are floats. So no SQL sums
amounts; sums are made in Python. Times are Unix milliseconds, hours are hours since 1970-01-01T00:00Z.
"""

from decimal import Decimal
from typing import Any

from sqlalchemy import BigInteger, Column, Dialect, Integer, MetaData, Numeric, Table, Text
from sqlalchemy.types import TypeDecorator, TypeEngine


class Amount(TypeDecorator[Decimal]):
    """An exact decimal with up to 12 places."""

    impl = Numeric(38, 12)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Store text where the database has no decimals."""
        return dialect.type_descriptor(Text() if dialect.name == "sqlite" else Numeric(38, 12))

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> Any:
        """Write plain notation, never an exponent."""
        return format(value, "f") if value is not None and dialect.name == "sqlite" else value

    def process_result_value(self, value: Any, dialect: Dialect) -> Decimal | None:
        """Read the exact number back."""
        return None if value is None else Decimal(value)


metadata = MetaData()

config_revisions = Table(
    "config_revisions",
    metadata,
    Column("known_from_ms", BigInteger, primary_key=True, autoincrement=False),
    Column("digest", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("recorded_at_ms", BigInteger, nullable=False),
)

deployment = Table(
    "deployment",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

progress = Table(
    "progress",
    metadata,
    Column("name", Text, primary_key=True),
    Column("watermark_ms", BigInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("positions", Text, nullable=False),
)

documents = Table(
    "documents",
    metadata,
    Column("key", Text, primary_key=True),
    Column("digest", Text, nullable=False),
    Column("entity", Text, nullable=False),
    Column("customer", Text, nullable=False),
    Column("contract", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("booked_hour", BigInteger, nullable=False),
    Column("accounting_period", Text, nullable=False),
    Column("posting_date", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("debit_total", Amount, nullable=False),
    Column("json", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("staged_sequence", BigInteger, nullable=False),
    Column("origin", Text, nullable=False, default="flow"),
    Column("net", Amount),
    Column("posting_key", Text),
    Column("state_written", Integer, nullable=False, default=0),
)

document_lines = Table(
    "document_lines",
    metadata,
    Column("document_key", Text, primary_key=True),
    Column("line", Integer, primary_key=True, autoincrement=False),
    Column("kind", Text, nullable=False),
    Column("account_role", Text, nullable=False),
    Column("side", Text, nullable=False),
    Column("amount", Amount, nullable=False),
    Column("charge", Text, nullable=False),
    Column("json", Text, nullable=False),
)

postings = Table(
    "postings",
    metadata,
    Column("key", Text, primary_key=True),
    Column("digest", Text, nullable=False),
    Column("entity", Text, nullable=False),
    Column("adapter", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("accounting_period", Text, nullable=False),
    Column("bucket", Text, nullable=False),
    Column("booked_hour", BigInteger, nullable=False),
    Column("documents", Integer, nullable=False),
    Column("json", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False, default=""),
    Column("detail", Text, nullable=False, default=""),
    Column("version", BigInteger, nullable=False, default=1),
    Column("fence", BigInteger, nullable=False, default=0),
    Column("attempts", Integer, nullable=False, default=0),
    Column("lookups", Integer, nullable=False, default=0),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("submitted_at_ms", BigInteger, nullable=False, default=0),
    Column("changed_at_ms", BigInteger, nullable=False),
    Column("due_at_ms", BigInteger, nullable=False, default=0),
    Column("job", Text, nullable=False, default=""),
    Column("erp_number", Text, nullable=False, default=""),
    Column("version_written", BigInteger, nullable=False, default=0),
    Column("kind", Text, nullable=False, default="journal"),
    Column("lines", Integer, nullable=False, default=0),
    Column("approval", Text, nullable=False, default=""),
    Column("reverses", Text, nullable=False, default=""),
    Column("supersedes", Text, nullable=False, default=""),
)

posting_documents = Table(
    "posting_documents",
    metadata,
    Column("document_key", Text, primary_key=True),
    Column("posting_key", Text, nullable=False),
)

attempts = Table(
    "attempts",
    metadata,
    Column("posting_key", Text, primary_key=True),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("attempt_id", Text, nullable=False),
    Column("fence", BigInteger, nullable=False),
    Column("digest", Text, nullable=False),
    Column("started_at_ms", BigInteger, nullable=False),
    Column("finished_at_ms", BigInteger),
    Column("outcome", Text, nullable=False, default=""),
    Column("detail", Text, nullable=False, default=""),
)

erp_entries = Table(
    "erp_entries",
    metadata,
    Column("adapter", Text, primary_key=True),
    Column("posting_key", Text, primary_key=True),
    Column("number", Text, primary_key=True),
    Column("digest", Text, nullable=False),
    Column("reference", Text, nullable=False),
    Column("posted_at_ms", BigInteger, nullable=False),
    Column("tax", Amount),
    Column("draft", Integer, nullable=False, default=0),
)

period_closes = Table(
    "period_closes",
    metadata,
    Column("entity", Text, primary_key=True),
    Column("accounting_period", Text, primary_key=True),
    Column("known_from_ms", BigInteger, primary_key=True, autoincrement=False),
    Column("action", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("recorded_at_ms", BigInteger, nullable=False),
    Column("reason", Text, nullable=False, default=""),
)

period_seals = Table(
    "period_seals",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("entity", Text, nullable=False),
    Column("accounting_period", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("previous", Text, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("signature", Text, nullable=False),
    Column("json", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("sealed_at_ms", BigInteger, nullable=False),
)

price_corrections = Table(
    "price_corrections",
    metadata,
    Column("id", Text, primary_key=True),
    Column("json", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("recorded_at_ms", BigInteger, nullable=False),
    Column("withdrawn_at_ms", BigInteger),
)

expirations = Table(
    "expirations",
    metadata,
    Column("table_name", Text, primary_key=True),
    Column("month", BigInteger, primary_key=True, autoincrement=False),
    Column("removed_rows", BigInteger, nullable=False),
    Column("kept_rows", BigInteger, nullable=False),
    Column("digest", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("recorded_at_ms", BigInteger, nullable=False),
)

legal_holds = Table(
    "legal_holds",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("placed_at_ms", BigInteger, primary_key=True, autoincrement=False),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("released_at_ms", BigInteger),
)

acts = Table(
    "acts",
    metadata,
    Column("key", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("entity", Text, nullable=False),
    Column("booked_hour", BigInteger, nullable=False),
    Column("json", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("recorded_at_ms", BigInteger, nullable=False),
)

correction_totals = Table(
    "correction_totals",
    metadata,
    Column("entity", Text, primary_key=True),
    Column("customer", Text, primary_key=True),
    Column("currency", Text, primary_key=True),
    Column("original_period", Text, primary_key=True),
    Column("total", Amount, nullable=False),
)

erp_records = Table(
    "erp_records",
    metadata,
    Column("entity", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("code", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("active", Integer, nullable=False),
    Column("pulled_at_ms", BigInteger, nullable=False),
)

erp_pulls = Table(
    "erp_pulls",
    metadata,
    Column("entity", Text, primary_key=True),
    Column("authoritative", Text, nullable=False),
    Column("pulled_at_ms", BigInteger, nullable=False),
)

erp_status = Table(
    "erp_status",
    metadata,
    Column("entity", Text, primary_key=True),
    Column("waiting_since_ms", BigInteger, nullable=False),
    Column("cause", Text, nullable=False),
    Column("changed_at_ms", BigInteger, nullable=False),
)

exceptions = Table(
    "exceptions",
    metadata,
    Column("key", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("identity", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("resolved_at_ms", BigInteger),
)

audit_log = Table(
    "audit_log",
    metadata,
    Column("id", Integer().with_variant(BigInteger, "postgresql"), primary_key=True, autoincrement=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("detail", Text, nullable=False),
)

leases = Table(
    "leases",
    metadata,
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("fence", BigInteger, nullable=False),
    Column("expires_at_ms", BigInteger, nullable=False),
)

api_tokens = Table(
    "api_tokens",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("tenants", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("expires_at_ms", BigInteger),
    Column("revoked_at_ms", BigInteger),
)

sessions = Table(
    "sessions",
    metadata,
    Column("digest", Text, primary_key=True),
    Column("token_id", Text, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("expires_at_ms", BigInteger, nullable=False),
)

idempotent_acts = Table(
    "idempotent_acts",
    metadata,
    Column("token_id", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("request_digest", Text, nullable=False),
    Column("status", Integer, nullable=False, default=0),
    Column("answer", Text, nullable=False, default=""),
    Column("created_at_ms", BigInteger, nullable=False),
)
