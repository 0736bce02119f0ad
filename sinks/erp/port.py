"""The port to an ERP: what an adapter must do, and how it says what happened.

The functions are synchronous: the poster works on one batch per entity at a time by design (order, fencing, the
ERP's own sequence locks), so that concurrency inside an adapter would only add outcomes nobody can order. Every
call may block up to the adapter's own time limit. An adapter only translates; it decides no accounting.
"""

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from enum import Enum
from functools import cached_property
from typing import Any, Literal, Protocol

import orjson

from sinks.erp.entries import ErpEntry, Issue, MasterData, NetLine, Record, Window
from sinks.erp.outcomes import Accepted, Conflict, NotSent, Outcome, Posted, Rejected, Throttled, Unknown

__all__ = [
    "Accepted",
    "Capabilities",
    "Conflict",
    "ErpEntry",
    "ErpPort",
    "Idempotency",
    "Invoice",
    "InvoiceLine",
    "Issue",
    "MasterData",
    "NetLine",
    "NotSent",
    "Outcome",
    "Posted",
    "Posting",
    "PostingLine",
    "Record",
    "Rejected",
    "Side",
    "Throttled",
    "Unknown",
    "Window",
]

Side = Literal["debit", "credit"]


class Idempotency(Enum):
    """How an ERP keeps a repeated key from being booked twice."""

    UNIQUE_KEY = "unique_key"
    """The key is unique in the ERP: a repeat answers with the first entry."""
    UPSERT = "upsert"
    """A repeat rewrites the same entry."""
    KEY_HEADER = "key_header"
    """A repeat within the key's lifetime answers with the first entry."""
    SEARCH_ONLY = "search_only"
    """The ERP can only be searched: after an unknown outcome nothing is sent again without a person."""
    ASYNC_JOB = "async_job"
    """The ERP answers with a job to poll."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What the poster may expect of an adapter."""

    idempotency: Idempotency
    atomic_batch: bool = False
    """One bad posting rejects its whole batch; the poster then bisects."""
    postings_max: int = 100
    lines_max: int = 1000
    rate_per_s: float = 0.0
    """Calls a second; 0 is no limit."""
    burst: int = 1
    settle_window_s: float = 0.0
    """How long a request whose answer was lost may still take effect."""
    settle_lookups: int = 1
    """How many lookups must find nothing before the same key is sent again."""
    two_phase: bool = False
    """Drafts are made first and only one is ever posted: a key that is not unique may be sent again."""
    preflight_asks: bool = False
    """Preflight asks the ERP, so that it takes a token of the rate."""
    reads_lines: bool = True
    lines_per_month_max: int = 0
    """Lines the ERP's contract allows a month, for `doctor`; 0 is no limit."""
    invoices: bool = False
    """The adapter makes real invoices of `Posting.invoice`; else they are booked as the journal in `lines`."""


@dataclass(frozen=True, slots=True)
class PostingLine:
    """One line. `account` is the ERP's code for the role; amounts are exact and positive or negative."""

    account_role: str
    account: str
    side: Side
    amount: Decimal
    customer: str | None = None
    dimensions: tuple[tuple[str, str], ...] = ()
    tax_code: str | None = None
    party: str | None = None
    """The ERP's code of the customer, where the line has one."""
    erp_dimensions: tuple[tuple[str, str | None], ...] | None = None
    """For each of `dimensions` the ERP's name and value, where they are mapped: empty is not sent, None has no mapping
    and holds the posting. None for all: the ERP has our names."""

    @property
    def sent_dimensions(self) -> tuple[tuple[str, str], ...]:
        """Return the dimensions as the ERP calls them; one without a value is not sent."""
        found = self.dimensions if self.erp_dimensions is None else self.erp_dimensions
        return tuple((name, value) for name, value in found if value)

    @property
    def signed(self) -> Decimal:
        """Return the amount, debit positive."""
        return self.amount if self.side == "debit" else self.amount.copy_negate()


@dataclass(frozen=True, slots=True)
class InvoiceLine:
    """One line of an invoice: quantity 1 x the exact net amount, with the usage in its text."""

    text: str
    amount: Decimal
    """Net, exact; negative where the customer gets back."""
    account: str
    """The ERP's code of the unbilled account it credits: never revenue again."""
    tax_category: str
    service_from: date
    service_to: date
    """The last day of the service, included."""
    account_role: str = ""
    """The role of `account`, by which a corrected mapping finds it; empty in postings made before there was this."""


@dataclass(frozen=True, slots=True)
class Invoice:
    """What an invoice needs beyond its journal. The ERP computes the taxes and adds them to the receivable."""

    party: str
    reference: str
    """Our invoice's key, to be shown on it."""
    lines: tuple[InvoiceLine, ...]
    credits: str | None = None
    """For a credit note: the key of the posting of the invoice it belongs to."""
    tax_codes: tuple[str | None, ...] | None = None
    """For each line the ERP's tax code; empty is no tax, None has no mapping and holds the posting. None for all: the
    ERP needs none, or the adapter has a mapping of its own (postings made before there was this one)."""

    @property
    def net(self) -> Decimal:
        """Return the sum of the lines."""
        return sum((line.amount for line in self.lines), Decimal(0))


@dataclass(frozen=True)
class Posting:
    """What the ERP gets: a balanced journal under one key. Immutable; other content is another digest."""

    key: str
    entity: str
    company: str
    currency: str
    accounting_period: str
    posting_date: date
    booked_hour: int
    """The last booked hour in it, in hours since 1970-01-01T00:00Z."""
    kind: str
    description: str
    lines: tuple[PostingLine, ...]
    document_keys: tuple[str, ...]
    customer: str | None = None
    reverses: str | None = None
    trace_url: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)
    invoice: Invoice | None = None
    """With kind `invoice` or `credit_note`; `lines` then says the same without taxes."""

    def to_json(self) -> str:
        """Return the canonical JSON, amounts as text; made once, or as it was read."""
        return self._text

    @cached_property
    def _text(self) -> str:
        plain = {name: getattr(self, name) for name in _FIELDS}
        plain["posting_date"] = self.posting_date.isoformat()
        plain["invoice"] = None if self.invoice is None else _invoice_plain(self.invoice)
        plain["lines"] = [
            {
                "account_role": line.account_role,
                "account": line.account,
                "side": line.side,
                "amount": format(line.amount, "f"),
                "customer": line.customer,
                "dimensions": [list(pair) for pair in line.dimensions],
                "tax_code": line.tax_code,
                "party": line.party,
                # Written only where there is a mapping: other postings stay as they were before there was any.
                **({} if line.erp_dimensions is None else {"erp_dimensions": line.erp_dimensions}),
            }
            for line in self.lines
        ]
        return orjson.dumps(plain, option=orjson.OPT_SORT_KEYS).decode()

    @cached_property
    def digest(self) -> str:
        """Return the SHA-256 of the canonical JSON, in hex."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @classmethod
    def from_json(cls, text: str) -> "Posting":
        """Read a posting back."""
        plain = orjson.loads(text)
        plain["posting_date"] = date.fromisoformat(plain["posting_date"])
        plain["document_keys"] = tuple(plain["document_keys"])
        plain["lines"] = tuple(
            PostingLine(
                line["account_role"],
                line["account"],
                line["side"],
                Decimal(line["amount"]),
                line["customer"],
                tuple((name, value) for name, value in line["dimensions"]),
                line["tax_code"],
                line["party"],
                _pairs(line.get("erp_dimensions")),
            )
            for line in plain["lines"]
        )
        plain["invoice"] = None if plain["invoice"] is None else _invoice(plain["invoice"])
        made = cls(**plain)
        made.__dict__["_text"] = text  # what was stored is what its digest is of
        return made


_FIELDS = tuple(name for name in Posting.__dataclass_fields__)


def _pairs(plain: list[list[Any]] | None) -> tuple[tuple[str, str | None], ...] | None:
    return None if plain is None else tuple((name, value) for name, value in plain)


def _invoice_plain(invoice: Invoice) -> dict[str, Any]:
    lines = [
        {name: getattr(line, name) for name in ("text", "account", "tax_category")}
        | {"amount": format(line.amount, "f")}
        | {"service_from": line.service_from.isoformat(), "service_to": line.service_to.isoformat()}
        | ({"account_role": line.account_role} if line.account_role else {})
        for line in invoice.lines
    ]
    plain = {"party": invoice.party, "reference": invoice.reference, "credits": invoice.credits, "lines": lines}
    return plain if invoice.tax_codes is None else plain | {"tax_codes": list(invoice.tax_codes)}


def _invoice(plain: dict[str, Any]) -> Invoice:
    lines = tuple(
        InvoiceLine(
            line["text"],
            Decimal(line["amount"]),
            line["account"],
            line["tax_category"],
            date.fromisoformat(line["service_from"]),
            date.fromisoformat(line["service_to"]),
            line.get("account_role", ""),
        )
        for line in plain["lines"]
    )
    codes = plain.get("tax_codes")
    return Invoice(plain["party"], plain["reference"], lines, plain["credits"], None if codes is None else tuple(codes))


class ErpPort(Protocol):
    """One adapter, bound to one ERP. Called by the poster of one entity at a time; may block."""

    @property
    def name(self) -> str:
        """Return the adapter's registered name."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """Return what may be expected."""
        ...

    def preflight(self, postings: Sequence[Posting]) -> list[Issue]:
        """Check accounts, parties, periods and line limits without booking anything.

        :raises Unreachable: the ERP does not answer; nothing was decided.
        """
        ...

    def submit(self, postings: Sequence[Posting], attempt_id: str) -> list[Outcome]:
        """Book postings; one outcome each, in order. Any exception counts as Unknown for all of them."""
        ...

    def lookup(self, keys: Sequence[str]) -> dict[str, list[ErpEntry]]:
        """Find entries by key: none, one, or more than one, which is an alarm.

        :raises Unreachable: the ERP does not answer; nothing is known.
        """
        ...

    def poll(self, jobs: Sequence[str]) -> list[Outcome]:
        """Ask for the outcome of accepted jobs, in order; Accepted again while they run.

        :raises Unreachable: the ERP does not answer.
        """
        ...

    def reverse(self, entry: ErpEntry, posting: Posting) -> Outcome:
        """Book `posting`, the opposite of `entry`, under its own key; idempotent."""
        ...

    def sweep(self) -> int:
        """Delete what requests whose answer was lost left outside the books; return how much it was.

        Called by the poster at its start, and once the settle window of an unknown outcome has passed.

        :raises Unreachable: the ERP does not answer.
        """
        ...

    def read_back(self, window: Window) -> Iterator[ErpEntry]:
        """Read our entries of those booked days.

        :raises Unreachable: the ERP does not answer.
        """
        ...

    def expected(self, posting: Posting) -> tuple[tuple[str, Decimal], ...]:
        """Return the lines a read-back of this posting must give, accounts as the ERP names them. Asks nobody.

        Several lines of one account may come as one: comparisons sum by account.
        """
        ...

    def balances(self) -> dict[tuple[str, str], Decimal]:
        """Return the company's balance by (account as the ERP names it, currency), debit positive.

        All entries count, also those of others; only accounts that ours can be on need be there.

        :raises Unreachable: the ERP does not answer.
        """
        ...

    def named_customer(self, posting: Posting, line: PostingLine) -> str:
        """Return the customer as the ERP names it on that line of ours; empty where an entry does not name one.

        :raises Unreachable: the ERP does not answer.
        """
        ...

    def customer_balances(
        self, accounts: Collection[str], until: date | None
    ) -> dict[tuple[str, str, str], Decimal] | None:
        """Return the balance by (account, currency, customer), named as above, debit positive; all entries count.

        :param accounts: the only ones wanted, as the ERP names them.
        :param until: entries dated later do not count.
        :returns: None where this ERP cannot be asked.
        :raises Unreachable: the ERP does not answer.
        """
        ...

    def master_data(self) -> MasterData:
        """Read the company's parties, accounts, currencies and periods.

        :raises Unreachable: the ERP does not answer.
        """
        ...
