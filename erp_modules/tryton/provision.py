# SPDX-License-Identifier: GPL-3.0-or-later
"""Sets up one accounting company in an empty Tryton database, for demos and tests.

Run by the Python of the Tryton server: `python provision.py SPECIFICATION.json RESULT.json`, with TRYTOND_CONFIG and
TRYTOND_DATABASE_URI set. The specification names the company, currencies with their rates, fiscal years, closed
periods, accounts, customers and the integration user; the result has the company's id and the user's REST key.
"""

import datetime as dt
import json
import sys
from decimal import Decimal
from pathlib import Path

from proteus import Model, config
from trytond.modules.account.tests.tools import create_chart, create_fiscalyear, create_tax, get_accounts
from trytond.modules.account_invoice.tests.tools import create_payment_term, set_fiscalyear_invoice_sequences
from trytond.modules.company.tests.tools import create_company, get_company

GROUPS = ["Accounting", "Account Party Administration", "Party Administration", "Accounting Administration"]


def currencies(specification):
    """Make the currencies, each with a rate (units per unit of the first) from a day in the past."""
    made = {}
    for code, (digits, rate) in specification.items():
        currency = Model.get("currency.currency")(name=code, code=code, symbol=code)
        currency.digits, currency.rounding = digits, Decimal(1).scaleb(-digits)
        currency.save()
        Model.get("currency.currency.rate")(date=dt.date(2000, 1, 1), rate=Decimal(rate), currency=currency).save()
        made[code] = currency
    return made


def years(company, specification, closed):
    """Make fiscal years with monthly periods and close some."""
    for year in specification:
        span = (dt.date(year, 1, 1), dt.date(year, 12, 31))
        fiscal_year = create_fiscalyear(company, span)
        fiscal_year.start_date, fiscal_year.end_date = span
        fiscal_year.name = str(year)
        fiscal_year = set_fiscalyear_invoice_sequences(fiscal_year)
        fiscal_year.save()
        fiscal_year.click("create_period")
    for month in closed:
        (period,) = Model.get("account.period").find([("start_date", "=", dt.date.fromisoformat(f"{month}-01"))])
        period.click("close")


def accounts(company, specification):
    """Make accounts, each of the type of one of the template's."""
    templates = get_accounts(company)
    for one in specification:
        like = templates[one["like"]]
        account = Model.get("account.account")(name=one["name"])
        account.code, account.company, account.type, account.parent = one["code"], company, like.type, like.parent
        account.party_required = one["like"] == "receivable" or bool(one.get("party"))
        account.unbilled_usage = bool(one.get("unbilled"))
        if one.get("end"):
            account.start_date, account.end_date = dt.date(2000, 1, 1), dt.date.fromisoformat(one["end"])
        account.save()
    return templates


def taxes(company, specification):
    """Make the tax, on the account that the specification names, else on the template's."""
    tax = create_tax(Decimal(specification["tax"]), company)
    if specification.get("tax_account"):
        (account,) = Model.get("account.account").find([("code", "=", specification["tax_account"])])
        tax.invoice_account = tax.credit_note_account = account
    tax.save()


def parties(specification):
    """Make customers with an address and a term of payment."""
    term = create_payment_term()
    term.save()
    for code, name in specification.items():
        party = Model.get("party.party")(name=name)
        party.code, party.customer_payment_term = code, term
        if not party.addresses:
            party.addresses.new()
        party.save()


def integration_user(company, login):
    """Make the user of the integration and return its REST key."""
    user = Model.get("res.user")(name="Usage integration", login=login)
    for group in Model.get("res.group").find([("name", "in", GROUPS)]):
        user.groups.append(Model.get("res.group")(group.id))
    user.companies.append(company.__class__(company.id))
    user.company = company.__class__(company.id)
    user.save()
    application = Model.get("res.user.application")(user=user, application="rest")
    application.save()
    return application.key


def main(specification_path, result_path):
    """Read the specification, set everything up, and write the result."""
    specification = json.loads(Path(specification_path).read_text())
    config.set_trytond(user="admin")
    made = currencies(specification["currencies"])
    party = Model.get("party.party")(name=specification["company"])
    party.save()
    create_company(party=party, currency=made[specification["currency"]])
    company = get_company()
    create_chart(company)
    years(company, specification["years"], specification["closed"])
    accounts(company, specification["accounts"])
    if specification.get("tax"):
        taxes(company, specification)
    parties(specification["customers"])
    key = integration_user(company, specification["login"])
    Path(result_path).write_text(json.dumps({"company": company.id, "key": key}))


if __name__ == "__main__":
    main(*sys.argv[1:])
