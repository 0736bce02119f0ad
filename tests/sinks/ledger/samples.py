"""Documents, revisions and engines for tests of the ledger, the outbox and the poster."""

import hashlib
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from typing import Any

import orjson
from sqlalchemy import Engine, text

from config.revision import Configuration, History, Revision

HOUR = 490_000  # 2025-11-24T16:00Z
ACCOUNTS = {"unbilled_receivable": "1150", "usage_revenue": "4001"}


@dataclass(frozen=True)
class SampleDocument:
    """A balanced document of two lines, shaped like `operators.document.Document`."""

    key: str
    amount: str = "12.34"
    entity: str = "US01"
    customer: str = "acme"
    contract: str = "acme-2025"
    currency: str = "USD"
    booked_hour: int = HOUR
    accounting_period: str = "2025-11"
    kind: str = "journal"
    revenue_role: str = "usage_revenue"
    extra: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        amount = Decimal(self.amount)
        sides = ("debit", "credit") if amount >= 0 else ("credit", "debit")
        lines = [
            {
                "kind": "usage",
                "account_role": role,
                "side": side,
                "amount": format(amount.copy_abs(), "f"),
                "charge": "input",
            }
            for role, side in zip(("unbilled_receivable", self.revenue_role), sides, strict=True)
        ]
        header = {
            name: getattr(self, name)
            for name in ("key", "entity", "customer", "contract", "currency", "booked_hour", "accounting_period")
        }
        return orjson.dumps(header | {"kind": self.kind, "lines": lines} | self.extra).decode()


def key(number: int) -> str:
    """Return a document key: 16 characters [A-Z2-7]."""
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
    out = ""
    for _ in range(16):
        out = digits[number % 32] + out
        number //= 32
    return out


def entity(name: str = "US01", *, accounts: dict[str, str] | None = None, **posting: Any) -> dict[str, Any]:
    """Return an entity's configuration."""
    return {
        "id": name,
        "functional_currency": "USD",
        "timezone": "America/New_York",
        "accounts": ACCOUNTS if accounts is None else accounts,
        "posting": posting,
        "erp": {"adapter": "journal", "company": name},
    }


def revision(*entities: dict[str, Any], known_from_ms: int = 0, **more: Any) -> Revision:
    """Return a revision with these entities, and more sections."""
    plain = {"entities": list(entities) or [entity()], **more}
    return Revision(Configuration.model_validate(plain), known_from_ms)


def history(*entities: dict[str, Any]) -> History:
    """Return a history of one revision."""
    return History([revision(*entities)])


def empty(engine: Engine) -> None:
    """Empty every table of the ledger."""
    names = [
        "sessions", "api_tokens", "idempotent_acts",
        "period_seals", "price_corrections",
        "expirations", "legal_holds", "acts", "correction_totals", "erp_records", "erp_pulls", "erp_status",
        "leases", "audit_log", "exceptions", "period_closes", "erp_entries", "attempts", "posting_documents",
        "postings", "document_lines", "documents", "progress", "deployment", "config_revisions",
    ]  # fmt: skip
    with engine.begin() as connection:
        for name in names:
            connection.execute(text(f"DELETE FROM {name}"))
