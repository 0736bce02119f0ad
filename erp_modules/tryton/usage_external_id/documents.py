# SPDX-License-Identifier: GPL-3.0-or-later
"""What moves and invoices share: refusals, look-ups by code, and the loop over the documents of a call."""

import datetime as dt
from decimal import Decimal, InvalidOperation

from trytond.exceptions import UserError
from trytond.i18n import gettext
from trytond.model import fields
from trytond.model.exceptions import AccessError
from trytond.modules.account.exceptions import PeriodNotFoundError
from trytond.pool import Pool
from trytond.transaction import Transaction, without_check_access

DOCUMENTS_MAX = 1_000


class Refused(Exception):
    """One document cannot be booked; the others of the call can. The reason is for a machine, the text for people."""

    def __init__(self, reason, text, **more):
        super().__init__(text)
        self.answer = {"refused": reason, "text": text, **more}


class Codes:
    """Looks records up by code, once per call."""

    def __init__(self, company):
        self.company = company
        self._found = {}
        self._periods = {}

    def get(self, model, what, reason, code):
        key = (model, code)
        if key not in self._found:
            domain = [("code", "=", code)]
            if model == "account.account":
                domain += [("company", "=", self.company), ("closed", "!=", True), ("type", "!=", None)]
            records = Pool().get(model).search(domain, limit=1)
            if not records:
                raise Refused(reason, gettext("usage_external_id.msg_not_found", what=what, code=code))
            self._found[key] = records[0]
        return self._found[key]

    def account(self, code, date):
        account = self.get("account.account", "account", "unknown_account", code)
        begins, ends = account.start_date or date, account.end_date or date
        if not begins <= date <= ends:
            text = gettext("usage_external_id.msg_account_dates", account=code, date=date)
            raise Refused("unknown_account", text)
        return account

    def period(self, date):
        if date not in self._periods:
            try:
                self._periods[date] = Pool().get("account.period").find(self.company, date=date)
            except PeriodNotFoundError as error:
                raise Refused("closed_period", error.message) from error
        return self._periods[date]


EXTERNAL_FIELDS = ("external_id", "external_digest", "external_day", "external_url")


class ExternalMixin:
    """A record with the sender's key, and the call that makes each key once. Subclasses say how one is made."""

    __slots__ = ()

    external_id = fields.Char("External ID", readonly=True)
    external_digest = fields.Char("External Digest", readonly=True)
    external_day = fields.Date("External Day", readonly=True)
    external_url = fields.Char("External URL", readonly=True)

    @classmethod
    def post_external(cls, documents):
        """Make the documents in one transaction; one answer each, in order.

        An id that is known with the same digest is answered with its record. A document that cannot be booked is
        answered with a reason, and the others are booked. Whatever else goes wrong books nothing.
        """
        try:
            return cls._post_external(documents)
        except AccessError as error:
            # The REST route would answer 403 without a word.
            raise UserError(error.message, error.description) from error

    @classmethod
    def _post_external(cls, documents):
        company = external_company()
        if not isinstance(documents, list) or len(documents) > DOCUMENTS_MAX:
            detail = f"not a list of at most {DOCUMENTS_MAX} documents"
            raise UserError(gettext("usage_external_id.msg_malformed", detail=detail))
        Pool().get("ir.model.access").check(cls.__name__, "create")
        ids = [document.get("external_id") for document in documents]
        with without_check_access():  # people may not write the external fields
            known = {record.external_id: record for record in cls._search_external(company, ids)}
            codes = Codes(company)
            fresh, answers = {}, []
            for document in documents:
                try:
                    answers.append(cls._external_decide(codes, document, known, fresh))
                except Refused as refused:
                    answers.append({"external_id": document.get("external_id"), **refused.answer})
            made = cls._external_make(fresh) if fresh else []
            booked = {record.external_id: cls._external_answer(record, False) for record in made}
        return [booked.get(answer["external_id"], answer) if "refused" not in answer else answer for answer in answers]

    @classmethod
    def _external_decide(cls, codes, document, known, fresh):
        """Return the answer for a document; one that is new is added to `fresh` and gets its answer later."""
        external_id, digest = document.get("external_id"), document.get("digest")
        if external_id in known:
            record = known[external_id]
            check_same(external_id, record.external_digest, digest, cls._external_number(record))
            return cls._external_answer(record, True)
        if external_id in fresh:
            check_same(external_id, fresh[external_id][1]["external_digest"], digest, "of this call")
        else:
            fresh[external_id] = (document, cls._external_values(codes, document))
        return {"external_id": external_id}

    @classmethod
    def find_external(cls, external_ids):
        """Return the records of these ids with their lines."""
        return cls._entries(cls._search_external(external_company(), external_ids))

    @classmethod
    def read_external(cls, first, last, after=0, limit=100):
        """Return the records booked on these days (ISO dates, both included) with an id above `after`, in order."""
        domain = [
            ("company", "=", external_company()),
            ("external_day", ">=", dt.date.fromisoformat(first)),
            ("external_day", "<=", dt.date.fromisoformat(last)),
            ("external_id", "!=", None),
            ("id", ">", after),
        ]
        return cls._entries(cls.search(domain, order=[("id", "ASC")], limit=min(int(limit), DOCUMENTS_MAX)))

    @classmethod
    def _search_external(cls, company, external_ids):
        return cls.search([("company", "=", company), ("external_id", "in", list(external_ids))])

    @classmethod
    def _external_answer(cls, record, replayed):
        return {
            "external_id": record.external_id,
            "digest": record.external_digest,
            "id": record.id,
            "number": cls._external_number(record),
            "state": record.state,
            "replayed": replayed,
        }


def without_external(default):
    """Return the defaults of a copy: a copy is not what the sender sent."""
    default = {} if default is None else default.copy()
    for name in EXTERNAL_FIELDS:
        default.setdefault(name)
    return default


def external_company():
    """Return the company of the call, if the user may work for it."""
    company = Transaction().context.get("company")
    if company not in Pool().get("res.user").get_companies():
        raise UserError(gettext("usage_external_id.msg_company", company=company))
    return company


def check_same(external_id, known, digest, number):
    """Refuse other content under a known id."""
    if known != digest:
        text = gettext("usage_external_id.msg_conflict", external_id=external_id, move=number)
        raise Refused("conflict", text, number=number, digest=known)


def exact_amount(text, currency):
    """Return an amount as it was sent; nothing is rounded."""
    try:
        amount = Decimal(text)
        good = amount.is_finite() and amount == round(amount, currency.digits)
    except (InvalidOperation, TypeError):
        good = False
    if not good:
        raise Refused("invalid", gettext("usage_external_id.msg_amount", amount=text, digits=currency.digits))
    return amount


def head(document, *names):
    """Return days, key, digest and the named fields of a document."""
    try:
        dates = [dt.date.fromisoformat(document[name]) for name in ("posting_date", "day")]
        return [*dates, *(document[name] for name in ("external_id", "digest", *names))]
    except (KeyError, TypeError, ValueError) as error:
        raise Refused("invalid", gettext("usage_external_id.msg_malformed", detail=repr(error))) from error
