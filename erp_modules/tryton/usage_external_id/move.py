# SPDX-License-Identifier: GPL-3.0-or-later
"""External ids on account moves, and the calls that post, find and read them."""

import datetime as dt
from decimal import Decimal, InvalidOperation

from sql import Null
from sql.aggregate import Sum
from sql.conditionals import Case, Coalesce
from trytond.exceptions import UserError
from trytond.i18n import gettext
from trytond.model import Index, Unique, fields
from trytond.model.exceptions import AccessError
from trytond.modules.account.exceptions import PeriodNotFoundError
from trytond.modules.currency.exceptions import RateError
from trytond.pool import Pool, PoolMeta
from trytond.rpc import RPC
from trytond.transaction import Transaction, without_check_access

DOCUMENTS_MAX = 1_000


class Refused(Exception):
    """One document cannot be booked; the others of the call can. The reason is for a machine, the text for people."""

    def __init__(self, reason, text, **more):
        super().__init__(text)
        self.answer = {"refused": reason, "text": text, **more}


def _ids(documents):
    return [document.get("external_id") for document in documents]


class _Codes:
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


class Move(metaclass=PoolMeta):
    __name__ = "account.move"

    external_id = fields.Char("External ID", readonly=True)
    external_digest = fields.Char("External Digest", readonly=True)
    external_day = fields.Date("External Day", readonly=True)
    external_url = fields.Char("External URL", readonly=True)

    @classmethod
    def __setup__(cls):
        super().__setup__()
        table = cls.__table__()
        cls._sql_constraints.append(
            ("external_id_unique", Unique(table, table.company, table.external_id), "usage_external_id.msg_unique")
        )
        cls._sql_indexes.add(Index(table, (table.external_day, Index.Range()), (table.id, Index.Range())))
        cls.__rpc__.update(
            post_external=RPC(readonly=False),
            find_external=RPC(),
            read_external=RPC(),
            external_balances=RPC(),
        )

    @classmethod
    def copy(cls, moves, default=None):
        default = {} if default is None else default.copy()
        for name in ("external_id", "external_digest", "external_day", "external_url"):
            default.setdefault(name)
        return super().copy(moves, default=default)

    @classmethod
    def post_external(cls, documents):
        """Create and post the documents in one transaction; one answer each, in order.

        An id that is known with the same digest is answered with its move. A document that cannot be booked is
        answered with a reason, and the others are booked. Whatever else goes wrong books nothing.
        """
        try:
            return cls._post_external(documents)
        except AccessError as error:
            # The REST route would answer 403 without a word.
            raise UserError(error.message, error.description) from error

    @classmethod
    def _post_external(cls, documents):
        company = cls._external_company()
        if not isinstance(documents, list) or len(documents) > DOCUMENTS_MAX:
            detail = f"not a list of at most {DOCUMENTS_MAX} documents"
            raise UserError(gettext("usage_external_id.msg_malformed", detail=detail))
        Pool().get("ir.model.access").check(cls.__name__, "create")
        with without_check_access():  # people may not write the external fields
            known = {move.external_id: move for move in cls._search_external(company, _ids(documents))}
            codes = _Codes(company)
            fresh, answers = {}, []
            for document in documents:
                try:
                    answers.append(cls._external_decide(codes, document, known, fresh))
                except Refused as refused:
                    answers.append({"external_id": document.get("external_id"), **refused.answer})
            made = cls.create(list(fresh.values())) if fresh else []
            if made:
                cls.post(made)
            booked = {move.external_id: cls._external_answer(move, False) for move in made}
        return [booked.get(answer["external_id"], answer) if "refused" not in answer else answer for answer in answers]

    @classmethod
    def _external_decide(cls, codes, document, known, fresh):
        """Return the answer for a document; one that is new is added to `fresh` and gets its answer later."""
        external_id, digest = document.get("external_id"), document.get("digest")
        if external_id in known:
            move = known[external_id]
            cls._check_same(external_id, move.external_digest, digest, move.number)
            return cls._external_answer(move, True)
        if external_id in fresh:
            cls._check_same(external_id, fresh[external_id]["external_digest"], digest, "of this call")
        else:
            fresh[external_id] = cls._external_values(codes, document)
        return {"external_id": external_id}

    @classmethod
    def find_external(cls, external_ids):
        """Return the moves of these ids with their lines."""
        return cls._entries(cls._search_external(cls._external_company(), external_ids))

    @classmethod
    def read_external(cls, first, last, after=0, limit=100):
        """Return the moves booked on these days (ISO dates, both included) with an id above `after`, in order."""
        domain = [
            ("company", "=", cls._external_company()),
            ("external_day", ">=", dt.date.fromisoformat(first)),
            ("external_day", "<=", dt.date.fromisoformat(last)),
            ("external_id", "!=", None),
            ("id", ">", after),
        ]
        return cls._entries(cls.search(domain, order=[("id", "ASC")], limit=min(int(limit), DOCUMENTS_MAX)))

    @classmethod
    def external_balances(cls):
        """Return [account code, currency code, balance] over all posted moves, debit positive, in line currency."""
        pool = Pool()
        Line, Account, Currency = (pool.get(n) for n in ("account.move.line", "account.account", "currency.currency"))
        line, move, account, currency = (M.__table__() for M in (Line, cls, Account, Currency))
        company = pool.get("company.company")(cls._external_company())
        own = company.currency.id
        amount = Case((line.second_currency == Null, line.debit - line.credit), else_=line.amount_second_currency)
        query = line.join(move, condition=line.move == move.id).join(account, condition=line.account == account.id)
        query = query.join(currency, condition=Coalesce(line.second_currency, own) == currency.id)
        query = query.select(
            account.code,
            currency.code,
            Sum(amount),
            where=(move.company == company.id) & (move.state == "posted"),
            group_by=[account.code, currency.code],
        )
        cursor = Transaction().connection.cursor()
        cursor.execute(*query)
        return [[code, name, str(balance)] for code, name, balance in cursor]

    @classmethod
    def _external_company(cls):
        """Return the company of the call, if the user may work for it."""
        company = Transaction().context.get("company")
        if company not in Pool().get("res.user").get_companies():
            raise UserError(gettext("usage_external_id.msg_company", company=company))
        return company

    @classmethod
    def _search_external(cls, company, external_ids):
        return cls.search([("company", "=", company), ("external_id", "in", list(external_ids))])

    @staticmethod
    def _check_same(external_id, known, digest, move):
        if known != digest:
            text = gettext("usage_external_id.msg_conflict", external_id=external_id, move=move)
            raise Refused("conflict", text, number=move, digest=known)

    @classmethod
    def _external_values(cls, codes, document):
        """Return the values of a new move; refuse what is malformed or unknown."""
        pool = Pool()
        try:
            external_id = document["external_id"]
            date = dt.date.fromisoformat(document["posting_date"])
            day = dt.date.fromisoformat(document["day"])
            lines = [(line, line["account"]) for line in document["lines"]]
            digest, journal, code = document["digest"], document["journal"], document["currency"]
        except (KeyError, TypeError, ValueError) as error:
            text = gettext("usage_external_id.msg_malformed", detail=repr(error))
            raise Refused("invalid", text) from error
        currency = codes.get("currency.currency", "currency", "unknown_currency", code)
        amounts = [cls._external_amounts(currency, line) for line, _ in lines]
        if difference := sum(debit - credit for debit, credit in amounts):
            text = gettext("usage_external_id.msg_unbalanced", difference=difference)
            raise Refused("unbalanced", text)
        values = {
            "company": codes.company,
            "external_id": external_id,
            "external_digest": digest,
            "external_day": day,
            "external_url": document.get("url"),
            "date": date,
            "period": codes.period(date).id,
            "journal": codes.get("account.journal", "journal", "invalid", journal).id,
            "description": document.get("description"),
        }
        if reverses := document.get("reverses"):
            originals = cls._search_external(codes.company, [reverses])
            values["origin"] = str(originals[0]) if originals else None
        company = pool.get("company.company")(codes.company)
        money = cls._external_money(company.currency, currency, date, amounts)
        values["lines"] = [
            ("create", [cls._external_line(codes, date, *pair) for pair in zip(lines, money, strict=True)])
        ]
        return values

    @staticmethod
    def _external_amounts(currency, line):
        """Return a line's debit and credit; nothing is rounded."""
        pair = []
        for name in ("debit", "credit"):
            text = line.get(name) or "0"
            try:
                amount = Decimal(text)
                good = amount.is_finite() and amount >= 0 and amount == round(amount, currency.digits)
            except (InvalidOperation, TypeError):
                good = False
            if not good:
                message = gettext("usage_external_id.msg_amount", amount=text, digits=currency.digits)
                raise Refused("invalid", message)
            pair.append(amount)
        return tuple(pair)

    @classmethod
    def _external_money(cls, own, currency, date, amounts):
        """Return each line's amounts in the company's currency, and those in the document's if it is another."""
        if currency == own:
            return [{"debit": debit, "credit": credit} for debit, credit in amounts]
        Currency = Pool().get("currency.currency")
        money = []
        try:
            with Transaction().set_context(date=date):
                own, currency = Currency(own.id), Currency(currency.id)
                for debit, credit in amounts:
                    values = {
                        "debit": Currency.compute(currency, debit, own),
                        "credit": Currency.compute(currency, credit, own),
                        "second_currency": currency.id,
                        "amount_second_currency": debit - credit,
                    }
                    money.append(values)
        except RateError as error:
            raise Refused("unknown_currency", error.message) from error
        # Converting line by line may leave a cent over: the largest line takes it, so that the move balances.
        rest = sum(values["debit"] - values["credit"] for values in money)
        largest = max(money, key=lambda values: values["debit"] + values["credit"])
        if largest["debit"]:
            largest["debit"] -= rest
        else:
            largest["credit"] += rest
        return money

    @classmethod
    def _external_line(cls, codes, date, pair, money):
        line, code = pair
        account = codes.account(code, date)
        party = None
        if account.party_required:
            if not line.get("party"):
                text = gettext("usage_external_id.msg_party_required", account=code)
                raise Refused("unknown_customer", text)
            party = codes.get("party.party", "party", "unknown_customer", line["party"]).id
        return {"account": account.id, "party": party, "description": line.get("description"), **money}

    @staticmethod
    def _external_answer(move, replayed):
        return {
            "external_id": move.external_id,
            "digest": move.external_digest,
            "id": move.id,
            "number": move.number,
            "state": move.state,
            "replayed": replayed,
        }

    @classmethod
    def _entries(cls, moves):
        """Return moves with their lines in the document's currency, debit positive, as decimal texts."""
        answers = []
        for move in moves:
            lines, currencies = [], set()
            for line in move.lines:
                second = line.second_currency
                amount = line.amount_second_currency if second else line.debit - line.credit
                currencies.add(second.code if second else move.company.currency.code)
                lines.append([line.account.code, str(amount), line.party.code if line.party else None])
            answer = cls._external_answer(move, True)
            answer["date"] = move.date.isoformat()
            answer["currency"] = currencies.pop() if len(currencies) == 1 else ""
            answer["lines"] = lines
            answers.append(answer)
        return answers
