# SPDX-License-Identifier: GPL-3.0-or-later
"""External ids on customer invoices, whose lines may credit unbilled accounts; the calls that make and read them."""

from trytond.i18n import gettext
from trytond.model import Index, Unique, fields
from trytond.pool import Pool, PoolMeta
from trytond.rpc import RPC
from trytond.transaction import Transaction

from .documents import ExternalMixin, Refused, exact_amount, head, without_external


class Account(metaclass=PoolMeta):
    __name__ = "account.account"

    unbilled_usage = fields.Boolean(
        "Unbilled Usage", help="Invoices of usage credit this account: its revenue is booked already."
    )


class InvoiceLine(metaclass=PoolMeta):
    __name__ = "account.invoice.line"

    external_place = fields.Integer("External Place", readonly=True)

    @classmethod
    def copy(cls, lines, default=None):
        default = {} if default is None else default.copy()
        default.setdefault("external_place")
        return super().copy(lines, default=default)

    @classmethod
    def _account_domain(cls, type_):
        domain = super()._account_domain(type_)
        if type_ == "out":
            domain.append(("unbilled_usage", "=", True))
        return domain


class Invoice(ExternalMixin, metaclass=PoolMeta):
    __name__ = "account.invoice"

    external_draft = fields.Boolean("External Draft", readonly=True)

    @classmethod
    def __setup__(cls):
        super().__setup__()
        table = cls.__table__()
        cls._sql_constraints.append(
            ("external_id_unique", Unique(table, table.company, table.external_id), "usage_external_id.msg_unique")
        )
        cls._sql_indexes.add(Index(table, (table.external_day, Index.Range()), (table.id, Index.Range())))
        cls.__rpc__.update(post_external=RPC(readonly=False), find_external=RPC(), read_external=RPC())

    @classmethod
    def copy(cls, invoices, default=None):
        return super().copy(invoices, default=without_external(default))

    @classmethod
    def _external_make(cls, fresh):
        made = cls.create([values for _, values in fresh.values()])
        posted = [invoice for invoice in made if not invoice.external_draft]
        if posted:
            with Transaction().set_context(_skip_warnings=True):  # nobody is there to be asked
                cls.post(posted)
        return cls.browse([invoice.id for invoice in made])

    @classmethod
    def _external_number(cls, invoice):
        # A draft gets its number from a person later: what the sender was told must not change by that.
        return f"draft {invoice.id}" if invoice.external_draft else invoice.number

    @classmethod
    def _external_values(cls, codes, document):
        """Return the values of a new invoice; refuse what is malformed or unknown."""
        names = ("journal", "currency", "account", "party", "lines")
        date, day, external_id, digest, journal, code, account, customer, lines = head(document, *names)
        codes.period(date)
        currency = codes.get("currency.currency", "currency", "unknown_currency", code)
        party = codes.get("party.party", "party", "unknown_customer", customer)
        address = party.address_get(type="invoice")
        if address is None:
            raise Refused("unknown_customer", gettext("usage_external_id.msg_no_address", party=customer))
        term = party.customer_payment_term
        return {
            "company": codes.company,
            "type": "out",
            "external_id": external_id,
            "external_digest": digest,
            "external_day": day,
            "external_url": document.get("url"),
            "external_draft": document.get("state") == "draft",
            "party": party.id,
            "invoice_address": address.id,
            "currency": currency.id,
            "account": codes.account(account, date).id,
            "journal": codes.get("account.journal", "journal", "invalid", journal).id,
            "payment_term": term.id if term else None,
            "invoice_date": date,
            "reference": document.get("reference"),
            "description": cls._external_description(codes, document),
            "lines": [("create", [cls._external_line(codes, currency, date, *pair) for pair in enumerate(lines, 1)])],
        }

    @classmethod
    def _external_description(cls, codes, document):
        """Return the description; that of a credit note names the invoice, by its number if it is here."""
        description, credited = document.get("description"), document.get("credits")
        if not credited:
            return description
        originals = cls._search_external(codes.company, [credited])
        number = cls._external_number(originals[0]) if originals else credited
        return gettext("usage_external_id.msg_credits", description=description or "", number=number)

    @classmethod
    def _external_line(cls, codes, currency, date, place, line):
        """Return a line of quantity 1 and the exact amount, so that nothing is multiplied or rounded.

        Its place among the lines sent stays with it, so that what a person changes in a draft can be told.
        """
        amount = exact_amount(line.get("amount"), currency)
        taxes = []
        if line.get("tax"):
            domain = [("name", "=", line["tax"]), ("company", "=", codes.company), ("parent", "=", None)]
            taxes = Pool().get("account.tax").search(domain)
            if len(taxes) != 1:
                text = gettext("usage_external_id.msg_not_found", what="tax", code=line["tax"])
                raise Refused("invalid", text)
        return {
            "type": "line",
            "external_place": place,
            "company": codes.company,
            "currency": currency.id,
            "account": codes.account(line.get("account"), date).id,
            "quantity": 1 if amount >= 0 else -1,
            "unit_price": abs(amount),
            "description": line.get("text"),
            "taxes": [("add", [tax.id for tax in taxes])],
        }

    @classmethod
    def _external_answer(cls, invoice, replayed):
        answer = super()._external_answer(invoice, replayed)
        void = cls._external_void(invoice)
        # A draft is in no balance; one that was cancelled before it was posted never will be.
        draft = invoice.state in {"draft", "validated"}
        return {**answer, "draft": draft, "void": void, "tax": "0" if void else str(invoice.tax_amount)}

    @classmethod
    def _external_void(cls, invoice):
        return invoice.state == "cancelled" and not invoice.move

    @classmethod
    def _entries(cls, invoices):
        """Return invoices with their lines in the invoice's currency, debit positive, their tax, and who wrote last.

        `net` has the lines without receivable and taxes, each with its place among those that were sent, or None.
        """
        answers = []
        for invoice in invoices:
            answer = cls._external_answer(invoice, True)
            net = [line for line in invoice.lines if line.type == "line" and not answer["void"]]
            answer["net"] = [[line.external_place, line.account.code, str(-line.amount)] for line in net]
            lines = [[account, amount, None] for _, account, amount in answer["net"]]
            if not answer["void"]:
                lines.insert(0, [invoice.account.code, str(invoice.total_amount), invoice.party.code])
                lines += [[tax.account.code, str(-tax.amount), None] for tax in invoice.taxes]
            date = invoice.accounting_date or invoice.invoice_date
            answer["date"] = date.isoformat() if date else None
            answer["currency"] = invoice.currency.code
            answer["lines"] = lines
            written = invoice.write_date or invoice.create_date
            answer["changed_at"] = written.replace(microsecond=0).isoformat()
            answer["changed_by"] = (invoice.write_uid or invoice.create_uid).rec_name
            answers.append(answer)
        return answers
