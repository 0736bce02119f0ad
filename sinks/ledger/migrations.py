"""Numbered migrations of the ledger, oldest first. A migration that was released never changes.

`{amount}` becomes NUMERIC(38, 12) on PostgreSQL and TEXT on SQLite, `{serial}` a growing integer key.
"""

from typing import Final

_0001: Final = (
    """CREATE TABLE config_revisions (known_from_ms BIGINT PRIMARY KEY, digest TEXT NOT NULL, text TEXT NOT NULL,
    recorded_at_ms BIGINT NOT NULL)""",
    "CREATE TABLE deployment (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    """CREATE TABLE progress (name TEXT PRIMARY KEY, watermark_ms BIGINT NOT NULL, sequence BIGINT NOT NULL,
    positions TEXT NOT NULL)""",
    """CREATE TABLE documents (key TEXT PRIMARY KEY, digest TEXT NOT NULL, entity TEXT NOT NULL,
    customer TEXT NOT NULL, contract TEXT NOT NULL, currency TEXT NOT NULL, booked_hour BIGINT NOT NULL,
    accounting_period TEXT NOT NULL, posting_date TEXT NOT NULL, kind TEXT NOT NULL,
    debit_total {amount} NOT NULL, json TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('STAGED', 'PENDING', 'IN_POSTING', 'NOT_POSTED_ZERO')),
    staged_sequence BIGINT NOT NULL, posting_key TEXT, state_written INTEGER NOT NULL DEFAULT 0,
    CHECK ((state = 'IN_POSTING') = (posting_key IS NOT NULL)))""",
    "CREATE INDEX documents_state ON documents (state, entity, booked_hour)",
    "CREATE INDEX documents_hour ON documents (entity, booked_hour, currency, accounting_period)",
    """CREATE TABLE document_lines (document_key TEXT NOT NULL REFERENCES documents (key) ON DELETE CASCADE,
    line INTEGER NOT NULL, kind TEXT NOT NULL, account_role TEXT NOT NULL,
    side TEXT NOT NULL CHECK (side IN ('debit', 'credit')), amount {amount} NOT NULL, charge TEXT NOT NULL,
    json TEXT NOT NULL, PRIMARY KEY (document_key, line))""",
    """CREATE TABLE postings (key TEXT PRIMARY KEY, digest TEXT NOT NULL, entity TEXT NOT NULL,
    adapter TEXT NOT NULL, currency TEXT NOT NULL, accounting_period TEXT NOT NULL, bucket TEXT NOT NULL,
    booked_hour BIGINT NOT NULL, documents INTEGER NOT NULL, json TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('PENDING', 'SUBMITTED', 'ACCEPTED', 'UNKNOWN', 'POSTED', 'HELD',
    'CONFLICT', 'DUPLICATED', 'SUPERSEDED', 'REVERSED', 'RECONCILED', 'MISMATCHED')),
    reason TEXT NOT NULL DEFAULT '', detail TEXT NOT NULL DEFAULT '', version BIGINT NOT NULL DEFAULT 1,
    fence BIGINT NOT NULL DEFAULT 0, attempts INTEGER NOT NULL DEFAULT 0, lookups INTEGER NOT NULL DEFAULT 0,
    created_at_ms BIGINT NOT NULL, submitted_at_ms BIGINT NOT NULL DEFAULT 0, changed_at_ms BIGINT NOT NULL,
    due_at_ms BIGINT NOT NULL DEFAULT 0, job TEXT NOT NULL DEFAULT '', erp_number TEXT NOT NULL DEFAULT '',
    version_written BIGINT NOT NULL DEFAULT 0)""",
    "CREATE INDEX postings_state ON postings (entity, state, due_at_ms)",
    "CREATE INDEX postings_written ON postings (changed_at_ms) WHERE version_written < version",
    """CREATE TABLE posting_documents (document_key TEXT PRIMARY KEY REFERENCES documents (key),
    posting_key TEXT NOT NULL REFERENCES postings (key))""",
    "CREATE INDEX posting_documents_posting ON posting_documents (posting_key)",
    """CREATE TABLE attempts (posting_key TEXT NOT NULL REFERENCES postings (key), attempt INTEGER NOT NULL,
    attempt_id TEXT NOT NULL, fence BIGINT NOT NULL, digest TEXT NOT NULL, started_at_ms BIGINT NOT NULL,
    finished_at_ms BIGINT, outcome TEXT NOT NULL DEFAULT '', detail TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (posting_key, attempt))""",
    """CREATE TABLE erp_entries (adapter TEXT NOT NULL, posting_key TEXT NOT NULL REFERENCES postings (key),
    number TEXT NOT NULL, digest TEXT NOT NULL, reference TEXT NOT NULL, posted_at_ms BIGINT NOT NULL,
    PRIMARY KEY (adapter, posting_key, number))""",
    """CREATE TABLE period_closes (entity TEXT NOT NULL, accounting_period TEXT NOT NULL,
    known_from_ms BIGINT NOT NULL, action TEXT NOT NULL CHECK (action IN ('close', 'reopen')),
    actor TEXT NOT NULL, recorded_at_ms BIGINT NOT NULL,
    PRIMARY KEY (entity, accounting_period, known_from_ms))""",
    """CREATE TABLE exceptions (key TEXT PRIMARY KEY, kind TEXT NOT NULL, identity TEXT NOT NULL,
    detail TEXT NOT NULL, created_at_ms BIGINT NOT NULL, resolved_at_ms BIGINT)""",
    """CREATE TABLE audit_log (id {serial}, at_ms BIGINT NOT NULL, actor TEXT NOT NULL, action TEXT NOT NULL,
    subject TEXT NOT NULL, reason TEXT NOT NULL, detail TEXT NOT NULL)""",
    """CREATE TABLE leases (name TEXT PRIMARY KEY, holder TEXT NOT NULL, fence BIGINT NOT NULL,
    expires_at_ms BIGINT NOT NULL)""",
)

_0002: Final = (
    # Documents of the flow are made again by a replay; those of acts follow from the acts table.
    "ALTER TABLE documents ADD COLUMN origin TEXT NOT NULL DEFAULT 'flow'",
    "ALTER TABLE documents ADD COLUMN net {amount}",
    "CREATE INDEX documents_period ON documents (entity, accounting_period, currency)",
    "ALTER TABLE postings ADD COLUMN kind TEXT NOT NULL DEFAULT 'journal'",
    "ALTER TABLE postings ADD COLUMN lines INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE postings ADD COLUMN approval TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE postings ADD COLUMN reverses TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE postings ADD COLUMN supersedes TEXT NOT NULL DEFAULT ''",
    "CREATE INDEX postings_period ON postings (entity, accounting_period, state)",
    "ALTER TABLE period_closes ADD COLUMN reason TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE erp_entries ADD COLUMN tax {amount}",
    """CREATE TABLE acts (key TEXT PRIMARY KEY, kind TEXT NOT NULL, subject TEXT NOT NULL, entity TEXT NOT NULL,
    booked_hour BIGINT NOT NULL, json TEXT NOT NULL, actor TEXT NOT NULL, reason TEXT NOT NULL,
    recorded_at_ms BIGINT NOT NULL)""",
    "CREATE INDEX acts_kind ON acts (kind, booked_hour)",
    """CREATE TABLE correction_totals (entity TEXT NOT NULL, customer TEXT NOT NULL, currency TEXT NOT NULL,
    original_period TEXT NOT NULL, total {amount} NOT NULL,
    PRIMARY KEY (entity, customer, currency, original_period))""",
    """CREATE TABLE erp_records (entity TEXT NOT NULL, kind TEXT NOT NULL, code TEXT NOT NULL, name TEXT NOT NULL,
    active INTEGER NOT NULL, pulled_at_ms BIGINT NOT NULL, PRIMARY KEY (entity, kind, code))""",
    """CREATE TABLE erp_pulls (entity TEXT PRIMARY KEY, authoritative TEXT NOT NULL, pulled_at_ms BIGINT NOT NULL)""",
    """CREATE TABLE erp_status (entity TEXT PRIMARY KEY, waiting_since_ms BIGINT NOT NULL, cause TEXT NOT NULL,
    changed_at_ms BIGINT NOT NULL)""",
)

_0003: Final = ("CREATE INDEX documents_contract ON documents (customer, contract, entity, booked_hour)",)

_0004: Final = (
    # Secrets are never stored, only their digests.
    """CREATE TABLE api_tokens (id TEXT PRIMARY KEY, name TEXT NOT NULL, role TEXT NOT NULL CHECK (role IN
    ('producer', 'viewer', 'operator', 'approver', 'admin')), tenants TEXT NOT NULL, digest TEXT NOT NULL,
    created_by TEXT NOT NULL, created_at_ms BIGINT NOT NULL, expires_at_ms BIGINT, revoked_at_ms BIGINT)""",
    """CREATE TABLE sessions (digest TEXT PRIMARY KEY, token_id TEXT NOT NULL REFERENCES api_tokens (id),
    created_at_ms BIGINT NOT NULL, expires_at_ms BIGINT NOT NULL)""",
    "CREATE INDEX sessions_expiry ON sessions (expires_at_ms)",
    """CREATE TABLE idempotent_acts (token_id TEXT NOT NULL, key TEXT NOT NULL, request_digest TEXT NOT NULL,
    status INTEGER NOT NULL DEFAULT 0, answer TEXT NOT NULL DEFAULT '', created_at_ms BIGINT NOT NULL,
    PRIMARY KEY (token_id, key))""",
    "CREATE INDEX idempotent_acts_age ON idempotent_acts (created_at_ms)",
)

_0005: Final = (
    """CREATE TABLE period_seals (number BIGINT PRIMARY KEY, entity TEXT NOT NULL, accounting_period TEXT NOT NULL,
    digest TEXT NOT NULL, previous TEXT NOT NULL, key_id TEXT NOT NULL, signature TEXT NOT NULL, json TEXT NOT NULL,
    actor TEXT NOT NULL, reason TEXT NOT NULL, sealed_at_ms BIGINT NOT NULL, UNIQUE (entity, accounting_period))""",
)

_0006: Final = (
    # Invoices that wait for a person in the ERP. Until now only Tryton left any, under numbers of this form.
    "ALTER TABLE erp_entries ADD COLUMN draft INTEGER NOT NULL DEFAULT 0",
    "UPDATE erp_entries SET draft = 1 WHERE adapter = 'tryton' AND substr(number, 1, 6) = 'draft '",
    "CREATE INDEX erp_entries_draft ON erp_entries (adapter) WHERE draft = 1",
)

_0007: Final = (
    """CREATE TABLE price_corrections (id TEXT PRIMARY KEY, json TEXT NOT NULL, actor TEXT NOT NULL,
    reason TEXT NOT NULL, recorded_at_ms BIGINT NOT NULL, withdrawn_at_ms BIGINT)""",
)

_0008: Final = (
    """CREATE TABLE expirations (table_name TEXT NOT NULL, month BIGINT NOT NULL, removed_rows BIGINT NOT NULL,
    kept_rows BIGINT NOT NULL, digest TEXT NOT NULL, actor TEXT NOT NULL, recorded_at_ms BIGINT NOT NULL,
    PRIMARY KEY (table_name, month))""",
    """CREATE TABLE legal_holds (kind TEXT NOT NULL CHECK (kind IN ('customer', 'tenant')), name TEXT NOT NULL,
    placed_at_ms BIGINT NOT NULL, actor TEXT NOT NULL, reason TEXT NOT NULL, released_at_ms BIGINT,
    PRIMARY KEY (kind, name, placed_at_ms))""",
)

MIGRATIONS: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("0001_initial", _0001),
    ("0002_erp", _0002),
    ("0003_invoices", _0003),
    ("0004_console", _0004),
    ("0005_seals", _0005),
    ("0006_drafts", _0006),
    ("0007_price_corrections", _0007),
    ("0008_retention", _0008),
)


def statements(dialect: str, texts: tuple[str, ...]) -> list[str]:
    """Return a migration's statements for that dialect."""
    words = (
        {"{amount}": "TEXT", "{serial}": "INTEGER PRIMARY KEY AUTOINCREMENT"}
        if dialect == "sqlite"
        else {"{amount}": "NUMERIC(38, 12)", "{serial}": "BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY"}
    )
    out = []
    for text in texts:
        statement = text
        for name, word in words.items():
            statement = statement.replace(name, word)
        out.append(statement)
    return out
