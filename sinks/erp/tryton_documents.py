"""Postings as our Tryton module takes them, and its answers as outcomes and entries: pure."""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Final

from config.erp_mappings import tax_code
from config.erp_options import TrytonOptions
from core.errors import Unreachable
from sinks.erp.port import (
    Conflict,
    ErpEntry,
    Invoice,
    NetLine,
    Outcome,
    Posted,
    Posting,
    PostingLine,
    Rejected,
    Unknown,
)
from sinks.ledger.times import MS_PER_HOUR, to_datetime

MOVE: Final = "account.move"
INVOICE: Final = "account.invoice"
RECEIVABLE: Final = "accounts_receivable"


def booked_day(posting: Posting) -> date:
    """Return the UTC day of the booked hour."""
    return to_datetime(posting.booked_hour * MS_PER_HOUR).date()


def line_text(line: PostingLine) -> str | None:
    """Return customer and dimensions for the line's text."""
    parts = [f"customer={line.customer}"] if line.customer else []
    parts += [f"{name}={value}" for name, value in line.sent_dimensions]
    return "; ".join(parts) or None


def model_of(posting: Posting) -> str:
    """Return the model that holds the posting."""
    return MOVE if posting.invoice is None else INVOICE


def document(posting: Posting, options: TrytonOptions) -> dict[str, Any]:
    """Return the document of a posting."""
    plain: dict[str, Any] = {
        "external_id": posting.key,
        "digest": posting.digest,
        "day": booked_day(posting).isoformat(),
        "posting_date": posting.posting_date.isoformat(),
        "journal": options.journal,
        "currency": posting.currency,
        "description": posting.description,
        "url": posting.trace_url or None,
    }
    if posting.invoice is None:
        return plain | {"reverses": posting.reverses, "lines": [_line(line) for line in posting.lines]}
    return plain | _invoice(posting, posting.invoice, options)


def _invoice(posting: Posting, invoice: Invoice, options: TrytonOptions) -> dict[str, Any]:
    receivable = next((line.account for line in posting.lines if line.account_role == RECEIVABLE), "")
    return {
        "party": invoice.party,
        "account": receivable,
        "reference": invoice.reference,
        "credits": invoice.credits,
        "state": posting.extra.get("state", "posted"),
        "lines": [
            {
                "account": line.account,
                "amount": format(line.amount, "f"),
                "text": f"{line.text} ({line.service_from} to {line.service_to})",
                "tax": tax or None,
            }
            for line, tax in zip(invoice.lines, tax_codes(invoice, options), strict=True)
        ],
    }


def tax_codes(invoice: Invoice, options: TrytonOptions) -> tuple[str | None, ...]:
    """Return the name of Tryton's tax of each line, empty for none, None if it is not mapped."""
    if invoice.tax_codes is not None:
        return invoice.tax_codes
    return tuple(tax_code(options.taxes, line.tax_category) for line in invoice.lines)


def invoice_problem(posting: Posting, options: TrytonOptions) -> Rejected | None:
    """Return why an invoice cannot be made, or None: a tax that is not mapped would be left out in silence."""
    if posting.invoice is None:
        return None
    name = f"posting {posting.key}"
    for line, tax in zip(posting.invoice.lines, tax_codes(posting.invoice, options), strict=True):
        if tax is None:
            text = f"{name}: no tax for category {line.tax_category!r}: add it to erp.mappings.taxes, null for none"
            return Rejected("missing_tax_mapping", text)
    if not any(line.account_role == RECEIVABLE for line in posting.lines):
        return Rejected("unknown_account", f"{name}: an invoice needs a line of {RECEIVABLE}")
    return None


def _line(line: PostingLine) -> dict[str, Any]:
    # A negative amount is the other side: Tryton takes amounts of at least 0.
    is_debit = line.signed >= 0
    amount = format(line.signed.copy_abs(), "f")
    return {
        "account": line.account,
        "party": line.party,
        "description": line_text(line),
        "debit" if is_debit else "credit": amount,
    }


def outcome(row: dict[str, Any], model: str) -> Outcome:
    """Return the outcome of one document's answer."""
    reason = row.get("refused")
    if reason == "conflict":
        return Conflict(str(row["number"]), str(row["digest"]))
    if reason:
        return Rejected(str(reason), str(row["text"]), str(row))
    if not row["number"] or (model == MOVE and row["state"] != "posted"):
        return Unknown(f"Tryton says the entry is {row['state']!r} with number {row['number']!r}")
    tax = Decimal(row["tax"]) if row.get("tax") is not None else None
    reference = f"{model},{row['id']}"
    return Posted(str(row["number"]), reference, bool(row["replayed"]), tax=tax, draft=bool(row.get("draft")))


def _moment(text: str | None) -> datetime | None:
    """Return a time of Tryton's: it writes UTC, without saying so."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC) if text else None


def entry(row: dict[str, Any]) -> ErpEntry:
    """Return the entry of a row.

    :raises Unreachable: it cannot be read.
    """
    try:
        return ErpEntry(
            key=row["external_id"],
            number=str(row["number"]),
            digest=row["digest"] or "",
            currency=row["currency"],
            posting_date=date.fromisoformat(row["date"]) if row["date"] else None,
            lines=tuple((account, Decimal(amount)) for account, amount, _ in row["lines"]),
            tax=Decimal(row["tax"]) if row.get("tax") is not None else None,
            draft=bool(row.get("draft")),
            net=tuple(NetLine(place or 0, account, Decimal(amount)) for place, account, amount in row.get("net", ())),
            changed_by=row.get("changed_by") or "",
            changed_at=_moment(row.get("changed_at")),
        )
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        message = f"Tryton's entry cannot be read: {error!r}"
        raise Unreachable(message) from error
