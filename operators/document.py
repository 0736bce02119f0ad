"""Document: from the sealed rated rows of a booked hour to subledger documents (design 2.6).

A document is a complete balanced journal of one (entity, customer, contract, currency, booked hour, accounting
period). Its key is derived from that identity and its digest from its content, so replaying an hour gives the
same documents.

Cents: a charge's cumulative amount is rounded half-up (ties away from zero) to the currency's exponent, and a
line is the difference of two rounded cumulatives. So the lines of a charge and period add up to its rounded
total, whatever the hours they were booked in. Sums are never rounded again.
"""

import base64
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import timedelta
from decimal import Decimal
from itertools import groupby
from typing import Any, Final

import orjson
import polars as pl

from config.price_corrections import PriceCorrection, in_force
from config.revision import History
from core.frames import RATED_SCHEMA
from core.quantities import exactly
from operators.document_lines import DocumentLine, Row, lines_of
from operators.posting_rules import RECOGNITION
from operators.rate_chains import PRICE_CHANGE
from operators.rate_terms import TermsIndex, index_of, moment

SCHEMA_VERSION: Final = 1
NOT_POSTED_ZERO: Final = "NOT_POSTED_ZERO"
TO_POST: Final = "TO_POST"
_MS_PER_HOUR: Final = 3_600_000


@dataclass(frozen=True, slots=True)
class Document:
    """One subledger document. Amounts are in `currency`; `total` is what charges come to more (or less).

    That includes what a prepaid balance covers (`drawdown`, `breakage`), and leaves out what only moves revenue in
    time (`recognition`): the totals of a customer's documents add up to the rounded charges.
    """

    key: str
    """16 characters [A-Z2-7], derived from the identity alone."""
    kind: str
    """`accrual`, or `correction` if something in it belongs to a closed accounting period."""
    status: str
    """`TO_POST`, or `NOT_POSTED_ZERO`: every amount is zero, kept so that quantities tie."""
    entity: str
    customer: str
    contract: str
    currency: str
    booked_hour: int
    accounting_period: str
    original_period: str
    posting_date: str
    reason_code: str
    revision: int
    supersedes: str
    reverses: str
    approval: str
    """The id of the approved price correction behind it, if one is."""
    config_version: str
    source_digest: str
    """SHA-256 of the rated rows it was made from."""
    events: int
    total: Decimal
    debit_total: Decimal
    credit_total: Decimal
    trace_url: str
    lines: tuple[DocumentLine, ...]
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> bytes:
        """Return the canonical JSON: sorted keys, compact, numbers with decimals as text."""
        plain = {name: getattr(self, name) for name in _FIELDS}
        plain["lines"] = [line.plain() for line in self.lines]
        return orjson.dumps(plain, default=_text, option=orjson.OPT_SORT_KEYS)

    @property
    def digest(self) -> str:
        """Return the SHA-256 of the canonical JSON, in hex."""
        return hashlib.sha256(self.to_json()).hexdigest()

    @classmethod
    def from_json(cls, text: bytes | str) -> "Document":
        """Read a document back from its canonical JSON."""
        plain: dict[str, Any] = orjson.loads(text)
        plain["lines"] = tuple(DocumentLine.from_plain(line) for line in plain["lines"])
        for name in ("total", "debit_total", "credit_total"):
            plain[name] = Decimal(plain[name])
        return cls(**plain)


_FIELDS: Final = tuple(field.name for field in fields(Document))


def _text(value: Any) -> str:
    if isinstance(value, Decimal):
        return format(value, "f")
    raise TypeError


@exactly
def documents(rows: pl.DataFrame, history: History) -> list[Document]:
    """Return the documents of sealed rated rows (RATED_SCHEMA), in order of their identity.

    Provisional and unrated rows make none.

    Guarantee: a function of the rows and the revision known at their booked hour; nothing is kept.
    Unit of parallelism: any set of rows that holds a customer's whole booked hour.
    """
    sealed = rows.filter(pl.col("status") == "sealed")
    found = sorted((Row(*values) for values in sealed.select(RATED_SCHEMA.keys()).iter_rows()), key=_order)
    made = []
    for identity, members in groupby(found, key=_identity):
        group = list(members)
        correction = correction_behind(group, history, identity[4])
        made.append(_document(identity, group, index_of(history.at(identity[4] * _MS_PER_HOUR)), correction))
    return made


def correction_behind(rows: Sequence[Row], history: History, booked_hour: int) -> PriceCorrection | None:
    """Return the approved price correction that began in the hour and changed the price of rows, if one did."""
    revision = history.at(booked_hour * _MS_PER_HOUR)
    corrections = revision.configuration.price_corrections
    if not corrections:
        return None
    before = history.at(revision.known_from_ms - 1).configuration.price_corrections
    for row in rows:
        if row.line_kind == PRICE_CHANGE:
            start = moment(0) + timedelta(microseconds=row.period_start_us)
            found = in_force(corrections, row.plan, row.plan_version, start)
            if found is not None and found[0] not in before:
                return found[0]
    return None


_Identity = tuple[str, str, str, str, int, str]


def _identity(row: Row) -> _Identity:
    return row.entity, row.customer, row.contract, row.currency, row.booked_hour, row.accounting_period


def _order(row: Row) -> tuple[Any, ...]:
    return (*_identity(row), *row.chain_order())


def document_key(*identity: Any) -> str:
    """Return 16 characters [A-Z2-7]: base32 of a SHA-256 over the unambiguous identity."""
    encoded = orjson.dumps(["document", *identity])
    return base64.b32encode(hashlib.sha256(encoded).digest()).decode()[:16]


def _document(identity: _Identity, rows: list[Row], index: TermsIndex, correction: PriceCorrection | None) -> Document:
    entity, customer, contract, currency, booked_hour, accounting_period = identity
    lines = tuple(lines_of(rows, index))
    key = document_key(*identity)
    corrected = sorted({row.original_period for row in rows if row.original_period != accounting_period})
    debit = sum((line.amount for line in lines if line.side == "debit"), Decimal(0))
    credit = sum((line.amount for line in lines if line.side == "credit"), Decimal(0))
    return Document(
        key=key,
        kind="correction" if corrected else "accrual",
        status=TO_POST if any(line.amount for line in lines) else NOT_POSTED_ZERO,
        entity=entity,
        customer=customer,
        contract=contract,
        currency=currency,
        booked_hour=booked_hour,
        accounting_period=accounting_period,
        original_period=corrected[0] if corrected else accounting_period,
        posting_date=_posting_date(index, entity, booked_hour, accounting_period),
        reason_code=_reason(rows, accounting_period) if correction is None else correction.reason_code,
        revision=1,
        supersedes="",
        reverses="",
        approval="" if correction is None else correction.id,
        config_version=rows[0].config_version,
        source_digest=_source_digest(rows),
        events=sum(row.events for row in rows),
        total=sum(_net(lines), Decimal(0)),
        debit_total=debit,
        credit_total=credit,
        trace_url=f"/documents/{key}",
        lines=lines,
    )


def _net(lines: tuple[DocumentLine, ...]) -> Iterator[Decimal]:
    """Yield what each pair of lines books of charges: its debit, or less its credit where the sides are swapped."""
    for line in lines:
        if line.side == ("credit" if line.swapped else "debit") and line.kind != RECOGNITION:
            yield -line.amount if line.swapped else line.amount


def _reason(rows: list[Row], accounting_period: str) -> str:
    """Return why there is a correction; voids are named before changed prices, and those before late usage."""
    kinds = {row.line_kind for row in rows if row.original_period != accounting_period}
    if not kinds:
        return ""
    if "void" in kinds:
        return "void"
    return "contract_modification" if "price_change" in kinds else "late_usage"


def _posting_date(index: TermsIndex, entity: str, booked_hour: int, accounting_period: str) -> str:
    """Return the booked hour's date in the entity's zone, moved to the near end of the period if outside it."""
    local = moment(booked_hour * 60).astimezone(index.revision.entities[entity].zone()).date()
    year, month = map(int, accounting_period.split("-"))
    if (local.year, local.month) < (year, month):
        return f"{accounting_period}-01"
    if (local.year, local.month) > (year, month):
        days = pl.Series([f"{accounting_period}-01"]).str.to_date().dt.month_end()
        return str(days[0])
    return local.isoformat()


def _source_digest(rows: list[Row]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(orjson.dumps(row.plain(), default=_text))
    return digest.hexdigest()
