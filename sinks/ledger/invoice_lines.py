"""What an invoice says: the third cumulative, invoiced to date, against what is accrued by its cut-off hour. Pure.

A chain is what is rounded together: contract, plan version, charge, price row, billing period, unbilled account. Its
accrued total is the sum of the cents in documents booked before the cut-off; an invoice line is that total less what
earlier invoices took. So every cent is invoiced once, whenever it was booked, and nothing is rounded again.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, NamedTuple

from operators.posting_rules import RECOGNITION
from sinks.ledger.act_documents import ActDocument, When, act_key, finished
from sinks.ledger.amounts import exact
from sinks.ledger.approval_policy import signed
from sinks.ledger.documents import ACT_KINDS

UNBILLED: Final = ("unbilled_receivable", "contract_asset")
RECEIVABLE: Final = "accounts_receivable"
KIND: Final = "invoice"
ADJUSTMENT: Final = "adjustment"
"""What a person took off a draft in the ERP, or put on it: it was invoiced otherwise than we said."""


INVOICES: Final = ("invoice", "credit_note")


class Chain(NamedTuple):
    """Identity of an invoice line. `period_start` is as in document lines, RFC 3339."""

    period_start: str
    plan: str
    plan_version: int
    charge: str
    price_row: str
    role: str


@dataclass(slots=True)
class Tally:
    """One chain: accrued before the cut-off, invoiced before, and the usage not invoiced yet."""

    accrued: Decimal = Decimal(0)
    invoiced: Decimal = Decimal(0)
    quantity: Decimal = Decimal(0)
    unit: str = ""
    tax_category: str = ""
    service_from: str = ""
    service_to: str = ""

    @property
    def open(self) -> Decimal:
        """Return what is not invoiced."""
        return self.accrued - self.invoiced

    def name(self, line: Mapping[str, Any]) -> None:
        """Take unit and tax category from a line that has them."""
        self.unit = str(line.get("unit") or self.unit)
        self.tax_category = str(line.get("tax_category") or self.tax_category)

    def goes_on_from(self, line: Mapping[str, Any]) -> None:
        """Add the totals to date of the last invoice line: what came since is all that was tallied."""
        base = Decimal(line["rounded_after"])
        self.accrued += base
        self.invoiced += base
        if not self.unit and not self.tax_category:
            self.name(line)


def is_unbilled(line: Mapping[str, Any]) -> bool:
    """Tell whether a line moves what is earned or due and not invoiced.

    Recognition moves revenue in time, ahead of what is billable or behind it: nobody owes it.
    """
    return line["account_role"] in UNBILLED and line["kind"] != RECOGNITION


def chain_of(line: Mapping[str, Any]) -> Chain:
    """Return the chain a document line belongs to."""
    return Chain(
        str(line.get("period_start") or ""),
        str(line.get("plan") or ""),
        int(line.get("plan_version") or 0),
        str(line.get("charge") or ""),
        str(line.get("price_row") or ""),
        str(line["account_role"]),
    )


@dataclass(frozen=True, slots=True)
class Since:
    """The invoice before: what it could take, of its period and earlier ones, is invoiced to the cent."""

    hour: int = 0
    """Its cut-off."""
    period_start: str = ""
    counted: frozenset[str] = frozenset()
    """Keys of the documents of acts it knew, and of its own."""

    def settles(self, chain: Chain, hour: int, *, known: bool) -> bool:
        """Tell whether an accrual of that hour was taken by it; `known`: made by the flow, or by an act it knew."""
        return known and hour < self.hour and chain.period_start <= self.period_start


def tally(documents: Iterable[Mapping[str, Any]], before_hour: int, since: Since = Since()) -> dict[Chain, Tally]:
    """Add up the unbilled lines: accruals booked before that hour, and every invoice there is.

    What `since` settled is left out, but for totals to date: an even chain goes on from its last invoice line. So of
    the flow's documents only those from that invoice's billing period on are needed.
    The service period is that of what was booked since the chain's last invoice: the rest is on invoices already.
    """
    made = _Tallies(before_hour, since)
    with exact():
        for document in documents:
            for line in document["lines"]:
                if is_unbilled(line):
                    made.take(document, line)
        return made.finish()


class _Tallies:
    """The chains while documents come in."""

    def __init__(self, before_hour: int, since: Since) -> None:
        self._before_hour = before_hour
        self._since = since
        self._found: dict[Chain, Tally] = {}
        self._services: list[tuple[Chain, int, Mapping[str, Any]]] = []
        self._invoiced_until: dict[Chain, int] = {}
        self._bases: dict[Chain, tuple[int, str, Mapping[str, Any]]] = {}

    def take(self, document: Mapping[str, Any], line: Mapping[str, Any]) -> None:
        """Take one unbilled line."""
        chain, hour = chain_of(line), int(document["booked_hour"])
        known = document["key"] in self._since.counted
        if line["kind"] == KIND:
            self._invoiced_until[chain] = max(self._invoiced_until.get(chain, hour), hour)
        if line["kind"] not in (KIND, ADJUSTMENT):
            by_flow = document["kind"] not in ACT_KINDS
            if hour < self._before_hour and not self._since.settles(chain, hour, known=known or by_flow):
                self._accrual(chain, hour, line)
        elif not known:
            one = self._found.setdefault(chain, Tally())
            one.invoiced -= signed(line)
            one.quantity -= _quantity(line)
            if line["kind"] == ADJUSTMENT:
                self._services.append((chain, hour, line))
        elif document["kind"] in INVOICES:
            newest = self._bases.get(chain, (-1, "", line))
            self._bases[chain] = max(newest, (hour, document["key"], line), key=lambda base: base[:2])

    def _accrual(self, chain: Chain, hour: int, line: Mapping[str, Any]) -> None:
        one = self._found.setdefault(chain, Tally())
        one.accrued += signed(line)
        one.quantity += _quantity(line)
        one.name(line)
        self._services.append((chain, hour, line))

    def finish(self) -> dict[Chain, Tally]:
        """Add totals to date and service periods."""
        for chain, (_, _, line) in self._bases.items():
            if chain in self._found:
                self._found[chain].goes_on_from(line)
        for chain, hour, line in self._services:
            if hour >= self._invoiced_until.get(chain, hour):
                _widen(self._found[chain], line)
        return self._found


def _quantity(line: Mapping[str, Any]) -> Decimal:
    return Decimal(line.get("quantity") or 0)


def _widen(one: Tally, line: Mapping[str, Any]) -> None:
    begins, ends = str(line.get("service_from") or ""), str(line.get("service_to") or "")
    one.service_from = min(filter(None, (one.service_from, begins)), default="")
    one.service_to = max(one.service_to, ends)


@dataclass(frozen=True, slots=True)
class InvoiceAct:
    """Everything an invoice follows from, beside the documents: the content of its act."""

    entity: str
    customer: str
    contract: str
    currency: str
    period_start: str
    """Of the billing period it closes, RFC 3339; usage of earlier ones that came late is on it too."""
    period_end: str
    cutoff_hour: int
    accounting_period: str
    posting_date: str
    config_version: str
    credits: str = ""
    """Key of the posting of the invoice that a credit note belongs to."""
    text: str = ""
    """That of the entity's posting rule."""
    previous: str = ""
    """Key of the act of the invoice before, whose cut-off and period are `since_hour` and `since_period`."""
    since_hour: int = 0
    since_period: str = ""

    @property
    def key(self) -> str:
        """Return the document's key, the same for every run over the period."""
        identity = (self.entity, self.customer, self.contract, self.currency, self.period_start)
        return act_key("invoice", *identity)

    @property
    def when(self) -> When:
        """Return where it is booked."""
        return When(self.cutoff_hour, self.accounting_period, self.posting_date)


def open_chains(
    act: InvoiceAct, documents: Iterable[Mapping[str, Any]], counted: frozenset[str] = frozenset()
) -> list[tuple[Chain, Tally]]:
    """Return the chains of this period and earlier ones that have something to invoice, in order."""
    found = tally(documents, act.cutoff_hour, Since(act.since_hour, act.since_period, counted))
    due = [(chain, one) for chain, one in sorted(found.items()) if chain.period_start <= act.period_start]
    return [(chain, one) for chain, one in due if one.open]


def invoice_of(
    act: InvoiceAct, documents: Iterable[Mapping[str, Any]], counted: frozenset[str] = frozenset()
) -> ActDocument | None:
    """Return the document that bills what is open, or None if nothing is. A net negative is a credit note.

    :param documents: the flow's from `since_period` on, and all of acts.
    :param counted: keys of the documents of acts that the invoice before knew, and of its own.
    """
    chains = open_chains(act, documents, counted)
    if not chains:
        return None
    with exact():
        net = sum((one.open for _, one in chains), Decimal(0))
    plain: dict[str, Any] = {
        "schema_version": 1,
        "key": act.key,
        "kind": "credit_note" if net < 0 else "invoice",
        "status": "TO_POST",
        "entity": act.entity,
        "customer": act.customer,
        "contract": act.contract,
        "currency": act.currency,
        "original_period": act.accounting_period,
        "reason_code": "",
        "revision": 1,
        "supersedes": "",
        "reverses": "",
        "credits": act.credits if net < 0 else "",
        "approval": "",
        "config_version": act.config_version,
        "billing_period": [act.period_start, act.period_end],
        "source_digest": "",
        "events": 0,
        "lines": [line for chain, one in chains for line in _lines(act, chain, one)],
    }
    made = finished(plain, act.when)
    made.plain["total"] = format(net, "f")  # what the customer is asked for; receivable and unbilled net to nothing
    return made


def receivable_lines(lines: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the lines whose sum is what the customer is asked for."""
    return [line for line in lines if line["account_role"] == RECEIVABLE]


def _lines(act: InvoiceAct, chain: Chain, one: Tally) -> Iterable[dict[str, Any]]:
    amount = one.open
    sides = (("debit", RECEIVABLE), ("credit", chain.role))
    for side, role in sides if amount >= 0 else (("credit", RECEIVABLE), ("debit", chain.role)):
        yield {
            "kind": KIND,
            "account_role": role,
            "side": side,
            "amount": format(abs(amount), "f"),
            "amount_exact": format(amount, "f"),
            "swapped": amount < 0,
            "cumulative_before": format(one.invoiced, "f"),
            "cumulative_after": format(one.accrued, "f"),
            "rounded_before": format(one.invoiced, "f"),
            "rounded_after": format(one.accrued, "f"),
            "quantity": format(one.quantity, "f"),
            "unit": one.unit,
            "events": 0,
            "customer": act.customer,
            "contract": act.contract,
            "plan": chain.plan,
            "plan_version": chain.plan_version,
            "charge": chain.charge,
            "price_row": chain.price_row,
            "meter": "",
            "period_start": chain.period_start,
            "service_from": one.service_from,
            "service_to": one.service_to,
            "original_period": act.accounting_period,
            "dimensions": {},
            "tax_category": one.tax_category,
            **({"text": act.text} if act.text else {}),
        }


def text_of(line: Mapping[str, Any]) -> str:
    """Return what the customer reads: the charge, how much, and when."""
    name = "/".join(part for part in (line["charge"], line["price_row"]) if part)
    quantity = Decimal(line["quantity"])
    plain = format(quantity.normalize(), "f") if quantity else ""
    usage = f", {plain} {line['unit']}".rstrip() if plain else ""
    first, last = service_days(line)
    return f"{name}{usage}, {first.isoformat()} to {last.isoformat()}"


def service_days(line: Mapping[str, Any]) -> tuple[date, date]:
    """Return the first and last day of the service, in UTC."""
    begins = datetime.fromisoformat(line["service_from"] or line["period_start"])
    ends = datetime.fromisoformat(line["service_to"]) if line["service_to"] else begins + timedelta(hours=1)
    return begins.date(), (ends - timedelta(microseconds=1)).date()
