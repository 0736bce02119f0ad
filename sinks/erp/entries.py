"""What is read from an ERP, as types: entries, master data, what preflight found."""

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Literal, NamedTuple


@dataclass(frozen=True, slots=True)
class Issue:
    """What preflight found missing for one posting, before anything was sent."""

    key: str
    reason: str
    text: str


class NetLine(NamedTuple):
    """One line of an invoice as the ERP has it."""

    place: int
    """Which of the lines we sent it is, from 1; 0 if that is not known, or somebody added it."""
    account: str
    amount: Decimal
    """Debit positive: a line of an invoice is negative."""


@dataclass(frozen=True, slots=True)
class ErpEntry:
    """One entry as the ERP holds it. `digest` is empty where the ERP cannot keep one."""

    key: str
    number: str
    digest: str
    currency: str = ""
    posting_date: date | None = None
    lines: tuple[tuple[str, Decimal], ...] = ()
    """(account as the ERP names it, signed amount, debit positive); empty where lines cannot be read."""
    tax: Decimal | None = None
    """For an invoice: the tax in it."""
    draft: bool = False
    """An invoice that a person has not posted yet: it is in no balance, and may still change."""
    net: tuple[NetLine, ...] = ()
    """For an invoice: its lines without receivable and taxes; empty where the ERP does not keep them apart."""
    changed_by: str = ""
    """Who changed it last, as far as the ERP tells."""
    changed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """One party, account, currency or period as the ERP has it. `code` is what the configuration names."""

    kind: Literal["party", "account", "currency", "period", "tax"]
    code: str
    """For a period its name as ours, `YYYY-MM`."""
    name: str = ""
    active: bool = True
    """A party or account that may be posted to; a period that is open."""


@dataclass(frozen=True, slots=True)
class MasterData:
    """What the ERP has for one company."""

    records: tuple[Record, ...]
    authoritative: frozenset[str] = frozenset()
    """Kinds of which the ERP must have what is posted to; of others it takes anything (as the journal does)."""


@dataclass(frozen=True, slots=True)
class Window:
    """Booked days to read back, both included (UTC)."""

    first: date
    last: date
