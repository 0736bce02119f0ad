"""What a person changed in a draft invoice before it was posted in the ERP, as a document of its own. Pure.

The invoice that we recorded stays as it was; the adjustment is the difference to what the ERP has. Lines that bill
usage count as invoiced to date, so what was taken off a draft is unbilled again and on the next invoice, unless its
usage is reversed; what was put on is taken off the next one. Nothing is sent: the ERP has it already.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any, Final

from sinks.erp.port import Posting, PostingLine, Side
from sinks.ledger.act_documents import ActDocument, When, act_key, finished
from sinks.ledger.amounts import exact
from sinks.ledger.approval_policy import signed
from sinks.ledger.grouping import posting_key
from sinks.ledger.invoice_lines import ADJUSTMENT, RECEIVABLE

OTHER: Final = "erp_other"
"""Role of the side of a line that somebody added on an account that is none of the invoice's."""

Line = dict[str, Any]


@dataclass(frozen=True, slots=True)
class AdjustmentAct:
    """Everything an adjustment follows from, beside the invoice: the content of its act."""

    documents: Sequence[str]
    """Keys of the invoice's documents: one, or those a credit note takes back."""
    posting: str
    accounts: Mapping[str, str]
    """The ERP's codes of the invoice's roles."""
    net: Sequence[tuple[int, str, str]]
    """The ERP's lines without receivable and taxes: place (0: not one of ours), account, amount, debit positive."""
    number: str
    booked_hour: int
    accounting_period: str
    posting_date: str
    changed_by: str
    changed_at: str

    @property
    def key(self) -> str:
        """Return the document's key: an invoice is adjusted once, when its draft is posted or given up."""
        return act_key("adjustment", self.posting)


def adjustment_key(invoice_posting: str) -> str:
    """Return the key of the posting that adjusts an invoice's, whether there is one or not."""
    return posting_key("adjustment", invoice_posting)


def adjustment_of(act: AdjustmentAct, documents: Sequence[Mapping[str, Any]]) -> ActDocument | None:
    """Return the document of the difference, or None if there is none.

    :param documents: those the act names, in that order.
    """
    invoice = {**documents[0], "lines": [line for one in documents for line in one["lines"]]}
    lines = [line for change in _changes(act, invoice) for line in _pair(invoice, *change)]
    if not lines:
        return None
    plain: dict[str, Any] = {
        name: invoice[name]
        for name in ("schema_version", "status", "entity", "customer", "contract", "currency", "config_version")
    } | {
        "key": act.key,
        "kind": "adjustment",
        "original_period": invoice["accounting_period"],
        "reason_code": "",
        "revision": 1,
        "supersedes": "",
        "reverses": "",
        "adjusts": list(act.documents),
        "approval": "",
        "billing_period": invoice["billing_period"],
        "source_digest": "",
        "events": 0,
        "erp_number": act.number,
        "changed_by": act.changed_by,
        "changed_at": act.changed_at,
        "lines": lines,
    }
    made = finished(plain, When(act.booked_hour, act.accounting_period, act.posting_date))
    with exact():
        asked = sum((signed(line) for line in lines if line["account_role"] == RECEIVABLE), Decimal(0))
    made.plain["total"] = format(asked, "f")
    return made


def _changes(act: AdjustmentAct, invoice: Mapping[str, Any]) -> Iterable[tuple[Line, str, str, Decimal]]:
    """Yield the invoice's line, role and account, and how much more is billed there than we sent."""
    ours = [line for line in invoice["lines"] if line["account_role"] != RECEIVABLE]
    codes = [act.accounts[line["account_role"]] for line in ours]
    more: dict[tuple[int, str], Decimal] = {}
    with exact():
        for place, account, amount in act.net:
            # Lines of several documents are in another order than those that were sent.
            known = 0 < place <= len(ours) and len(act.documents) == 1 and codes[place - 1] == account
            key = (place if known else _largest(ours, codes, account), account)
            more[key] = more.get(key, Decimal(0)) - Decimal(amount)
        for place, line in enumerate(ours, 1):
            key = (place, codes[place - 1])
            more[key] = more.get(key, Decimal(0)) + signed(line)
    for (place, account), billed in sorted(more.items()):
        if billed:
            line = ours[place - 1] if place else ours[0]
            yield line, line["account_role"] if place else OTHER, account, billed


def _largest(ours: Sequence[Line], codes: Sequence[str], account: str) -> int:
    """Return the place of the largest line on an account, for what the ERP cannot tell better; 0 if there is none."""
    on_it = [(abs(signed(line)), -place) for place, line in enumerate(ours, 1) if codes[place - 1] == account]
    return -max(on_it)[1] if on_it else 0


def _pair(invoice: Mapping[str, Any], line: Line, role: str, account: str, amount: Decimal) -> Iterable[Line]:
    """Yield receivable and its other side; a negative amount is billed less."""
    billed = role != OTHER
    with exact():
        before = Decimal(line["cumulative_after"]) if billed else Decimal(0)
        after = before + amount
    sides = (("debit", RECEIVABLE), ("credit", role))
    for side, one in sides if amount >= 0 else (("credit", RECEIVABLE), ("debit", role)):
        yield line | {
            "kind": ADJUSTMENT,
            "account_role": one,
            "account": account if one == role else "",
            "side": side,
            "amount": format(abs(amount), "f"),
            "amount_exact": format(amount, "f"),
            "swapped": amount < 0,
            "cumulative_before": format(before, "f"),
            "cumulative_after": format(after, "f"),
            "rounded_before": format(before, "f"),
            "rounded_after": format(after, "f"),
            "quantity": "0",
            "original_period": invoice["accounting_period"],
        }


def posting_of(act: AdjustmentAct, made: ActDocument, invoice: Posting) -> Posting:
    """Return the posting: what the ERP's accounts have beyond the invoice's. It is recorded as posted, never sent."""
    party = next((line.party for line in invoice.lines if line.party), None)
    lines = []
    for line in made.plain["lines"]:
        side: Side = line["side"]
        account = line["account"] or act.accounts[line["account_role"]]
        amount = Decimal(line["amount"])
        lines.append(PostingLine(line["account_role"], account, side, amount, made.customer, (), None, party))
    return Posting(
        key=adjustment_key(act.posting),
        entity=made.entity,
        company=invoice.company,
        currency=made.currency,
        accounting_period=act.accounting_period,
        posting_date=date.fromisoformat(act.posting_date),
        booked_hour=act.booked_hour,
        kind="adjustment",
        description=f"Edited in the ERP: {invoice.description}"[:200],
        lines=tuple(lines),
        document_keys=(made.key,),
        customer=made.customer,
        extra={"adjusts": act.posting, "number": act.number},
    )
