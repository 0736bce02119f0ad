"""Corrections of closed periods, added up per customer and original period as their documents are grouped."""

from decimal import Decimal

import orjson
from sqlalchemy import Connection, select

from config.entities import Entity
from sinks.ledger import documents, tables
from sinks.ledger.amounts import exact
from sinks.ledger.approval_policy import CorrectedSoFar, net, wanted_by_corrections
from sinks.ledger.upserts import upsert

_TOTALS = tables.correction_totals
_DOCUMENTS = tables.documents


class Corrections:
    """The running totals of one entity and currency, kept in the transaction that groups the documents."""

    def __init__(self, entity: Entity, currency: str) -> None:
        self._entity = entity
        self._currency = currency
        self._charged: dict[str, Decimal] = {}

    def add(self, connection: Connection, customer: str, corrected: dict[str, Decimal]) -> str:
        """Add one document's corrections by original period; return why it waits for approval, or an empty text."""
        found = []
        for period, amount in sorted(corrected.items()):
            identity = {
                "entity": self._entity.id,
                "customer": customer,
                "currency": self._currency,
                "original_period": period,
            }
            known = connection.execute(
                select(_TOTALS.c.total).where(*(_TOTALS.c[name] == value for name, value in identity.items()))
            ).scalar()
            with exact():
                total = (known or Decimal(0)) + amount
            upsert(connection, _TOTALS, identity, {"total": total})
            found.append(CorrectedSoFar(period, total, self._charged_in(connection, period)))
        return wanted_by_corrections(self._entity, found)

    def _charged_in(self, connection: Connection, period: str) -> Decimal:
        """Return what the entity charged in a period; asked only where the policy names a share."""
        if self._entity.close.correction_share_percent is None:
            return Decimal(0)
        if period not in self._charged:
            query = select(_DOCUMENTS.c.net, _DOCUMENTS.c.json).where(
                _DOCUMENTS.c.entity == self._entity.id,
                _DOCUMENTS.c.currency == self._currency,
                _DOCUMENTS.c.accounting_period == period,
                _DOCUMENTS.c.origin == documents.FLOW,
            )
            with exact():
                self._charged[period] = sum(
                    (
                        amount if amount is not None else net(orjson.loads(text)["lines"])
                        for amount, text in connection.execute(query)
                    ),
                    Decimal(0),
                )
        return self._charged[period]
