"""Our balance of some account roles per customer, as the ERP's entries name customers, against the ERP's own."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from decimal import Decimal

from sqlalchemy import Connection, Engine, select

from sinks.erp.port import ErpPort, Posting
from sinks.ledger import tables
from sinks.ledger.amounts import exact
from sinks.ledger.approval_policy import signed
from sinks.ledger.database import read
from sinks.ledger.movements import booked_documents

_POSTINGS = tables.postings.c
Place = tuple[str, str]
"""A customer as the ERP names it (empty: its entries name none), and a currency."""


@dataclass(slots=True)
class CustomerBalance:
    """One customer of one set of books, debit positive."""

    entities: tuple[str, ...]
    name: str
    """As the ERP names it; empty for entries that name no customer."""
    currency: str
    by_customer: dict[str, Decimal] = field(default_factory=dict)
    """Ours in the ERP's books, by our customer id."""
    erp: Decimal = Decimal(0)

    @property
    def ours(self) -> Decimal:
        """Return what the ERP must have."""
        with exact():
            return sum(self.by_customer.values(), Decimal(0))

    @property
    def difference(self) -> Decimal:
        """Return how much more the ERP has."""
        with exact():
            return self.erp - self.ours


def compare(
    engine: Engine, adapter: ErpPort, entities: Sequence[str], roles: Sequence[str], last: str
) -> list[CustomerBalance] | None:
    """Compare the documents of accounting periods up to `last` (YYYY-MM) that are in the ERP with its balances.

    :returns: None where this ERP cannot be asked by customer.
    :raises Unreachable: the ERP does not answer.
    """
    ours: dict[str, dict[tuple[Place, str], Decimal]] = {}
    accounts: dict[str, set[str]] = {}
    with read(engine) as connection:
        for entity in entities:
            ours[entity], accounts[entity] = _ours(connection, adapter, entity, roles, last)
    found: list[CustomerBalance] = []
    for group in _groups(accounts):
        theirs = adapter.customer_balances(set().union(*(accounts[entity] for entity in group)), last_day(last))
        if theirs is None:
            return None
        found += _compared(group, [ours[entity] for entity in group], theirs)
    return found


def _groups(accounts: dict[str, set[str]]) -> list[tuple[str, ...]]:
    """Return the entities one by one if each has accounts of its own (as in the journal), else all together."""
    if len(set().union(*accounts.values())) == sum(map(len, accounts.values())):
        return [(entity,) for entity in accounts]
    return [tuple(accounts)]


def _compared(
    entities: tuple[str, ...],
    ours: Sequence[dict[tuple[Place, str], Decimal]],
    theirs: dict[tuple[str, str, str], Decimal],
) -> list[CustomerBalance]:
    found: dict[Place, CustomerBalance] = {}
    with exact():
        for (place, customer), amount in (item for one in ours for item in one.items()):
            mine = found.setdefault(place, CustomerBalance(entities, *place)).by_customer
            mine[customer] = mine.get(customer, Decimal(0)) + amount
        for (_, currency, name), balance in theirs.items():
            if balance or (name, currency) in found:
                found.setdefault((name, currency), CustomerBalance(entities, name, currency)).erp += balance
    return [found[place] for place in sorted(found)]


def last_day(period: str) -> date | None:
    """Return the last day of an accounting period; None for one without an end (`9999-99`)."""
    year, month = (int(part) for part in period.split("-"))
    if not 1 <= month <= 12:
        return None
    return (date(year, month, 1) + timedelta(days=32)).replace(day=1) - timedelta(days=1)


def _ours(
    connection: Connection, adapter: ErpPort, entity: str, roles: Sequence[str], last: str
) -> tuple[dict[tuple[Place, str], Decimal], set[str]]:
    """Return the sums in the ERP by place and customer, and the accounts they are on, as the ERP names them."""
    sums: dict[tuple[Place, str], Decimal] = {}
    accounts: set[str] = set()
    posting: Posting | None = None
    names: dict[tuple[str, str], str] = {}
    for document in booked_documents(connection, entity, by_posting=True):
        if not document.in_erp:
            continue
        if posting is None or posting.key != document.posting:
            query = select(_POSTINGS.json).where(_POSTINGS.key == document.posting)
            posting, names = Posting.from_json(connection.execute(query).scalar_one()), {}
            lines = tuple(line for line in posting.lines if line.account_role in roles)
            accounts |= {account for account, _ in adapter.expected(replace(posting, lines=lines))}
        if posting.accounting_period > last:  # of the posting: the ERP may have refused the document's own
            continue
        for line in document.lines:
            role = line["account_role"]
            if role in roles:
                key = (role, document.customer)
                if key not in names:
                    names[key] = _name(adapter, posting, role, document.customer)
                place = ((names[key], document.currency), document.customer)
                with exact():
                    sums[place] = sums.get(place, Decimal(0)) + signed(line)
    return sums, accounts


def _name(adapter: ErpPort, posting: Posting, role: str, customer: str) -> str:
    for line in posting.lines:
        if line.account_role == role and line.customer in (None, customer):
            return adapter.named_customer(posting, line)
    return ""  # its lines add up to nothing
