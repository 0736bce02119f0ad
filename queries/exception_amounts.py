"""The money that waits behind exceptions: the debits of the postings they are about, by currency."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Final

import orjson
from sqlalchemy import Engine, select

from sinks.ledger import tables
from sinks.ledger.amounts import exact
from sinks.ledger.database import read

_KEYS_PER_QUERY: Final = 200


def at_stake(engine: Engine, identities: Sequence[str]) -> dict[str, tuple[str, Decimal]]:
    """Return currency and debit total of each identity that is the key of a posting; others are left out."""
    table = tables.postings.c
    found: dict[str, tuple[str, Decimal]] = {}
    with read(engine) as connection, exact():
        for start in range(0, len(identities), _KEYS_PER_QUERY):
            part = list(identities[start : start + _KEYS_PER_QUERY])
            for key, currency, text in connection.execute(
                select(table.key, table.currency, table.json).where(table.key.in_(part))
            ):
                debits = (Decimal(line["amount"]) for line in orjson.loads(text)["lines"] if line["side"] == "debit")
                found[key] = currency, sum(debits, Decimal(0))
    return found
