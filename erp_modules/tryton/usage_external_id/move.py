# SPDX-License-Identifier: GPL-3.0-or-later
"""External ids on account moves, and the calls that post, find and read them."""

import datetime as dt

from sql import Null
from sql.aggregate import Sum
from sql.conditionals import Case, Coalesce
from trytond.i18n import gettext
from trytond.model import Index, Unique
from trytond.modules.currency.exceptions import RateError
from trytond.pool import Pool, PoolMeta
from trytond.rpc import RPC
from trytond.transaction import Transaction

from .documents import ExternalMixin, Refused, exact_amount, external_company, head, without_external


class Move(ExternalMixin, metaclass=PoolMeta):
    __name__ = "account.move"

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
            external_party_balances=RPC(),
        )

    @classmethod
    def copy(cls, moves, default=None):
        return super().copy(moves, default=without_external(default))

    @classmethod
    def _external_make(cls, fresh):
        made = cls.create([values for _, values in fresh.values()])
        cls.post(made)
        return made

    @classmethod
    def _external_number(cls, move):
        return move.number

    @classmethod
    def external_balances(cls):
        """Return [account code, currency code, balance] over all posted moves, debit positive, in line currency."""
        tables, joined, chosen, amount = cls._external_posted()
        names = [tables["account"].code, tables["currency"].code]
        return cls._external_rows(joined.select(*names, Sum(amount), where=chosen, group_by=names))

    @classmethod
    def external_party_balances(cls, accounts, until=None):
        """Return [account code, currency code, party code or None, balance] of these accounts, up to that day."""
        tables, joined, chosen, amount = cls._external_posted()
        party = Pool().get("party.party").__table__()
        joined = joined.join(party, type_="LEFT", condition=tables["line"].party == party.id)
        chosen &= tables["account"].code.in_(list(accounts))
        if until:
            chosen &= tables["move"].date <= dt.date.fromisoformat(until)
        names = [tables["account"].code, tables["currency"].code, party.code]
        return cls._external_rows(joined.select(*names, Sum(amount), where=chosen, group_by=names))

    @classmethod
    def _external_posted(cls):
        """Return tables by name, their join, the condition on posted moves of the company, and a line's amount."""
        pool = Pool()
        models = {"line": "account.move.line", "account": "account.account", "currency": "currency.currency"}
        tables = {name: pool.get(model).__table__() for name, model in models.items()} | {"move": cls.__table__()}
        line, move, account, currency = (tables[name] for name in ("line", "move", "account", "currency"))
        company = pool.get("company.company")(external_company())
        joined = line.join(move, condition=line.move == move.id).join(account, condition=line.account == account.id)
        joined = joined.join(currency, condition=Coalesce(line.second_currency, company.currency.id) == currency.id)
        amount = Case((line.second_currency == Null, line.debit - line.credit), else_=line.amount_second_currency)
        return tables, joined, (move.company == company.id) & (move.state == "posted"), amount

    @staticmethod
    def _external_rows(query):
        """Run a query and return its rows, the balance as text."""
        cursor = Transaction().connection.cursor()
        cursor.execute(*query)
        return [[*names, str(balance)] for *names, balance in cursor]

    @classmethod
    def _external_values(cls, codes, document):
        """Return the values of a new move; refuse what is malformed or unknown."""
        pool = Pool()
        names = ("journal", "currency", "lines")
        date, day, external_id, digest, journal, code, given = head(document, *names)
        lines = [(line, line.get("account")) for line in given]
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
            amount = exact_amount(text, currency)
            if amount < 0:
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
