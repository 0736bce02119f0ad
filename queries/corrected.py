"""What a price correction corrects: the rows of the charge and billing period that were booked before, by document."""

from collections.abc import Iterable
from typing import Any, Final

from operators.document import document_key
from queries.stores import Row, Stores, minute_of, of_hour

LINKS_MAX: Final = 1_000
"""Corrected documents named; more are counted."""


def correction_of(stores: Stores, document: Row, chains: Iterable[tuple[Any, ...]]) -> Row | None:
    """Return the correction that a document was made by, with what it corrects, or None if it is not journaled.

    :param chains: plan, version, charge, price row, meter and period start of each corrected charge.
    """
    known = stores.history.at(document["booked_hour"] * 3_600_000).configuration.price_corrections
    found = next((one for one in known if one.id == document["approval"]), None)
    if found is None:
        return None
    links = [link for chain in sorted(chains, key=str) for link in _links(stores, document, chain)]
    plain = found.model_dump(mode="json", by_alias=True)
    del plain["versions"]
    return plain | {
        "versions": [one.version for one in found.versions],
        "corrected": len(links),
        "corrects": links[:LINKS_MAX],
    }


def _links(stores: Stores, document: Row, chain: tuple[Any, ...]) -> list[Row]:
    plan, version, charge, price_row, _, start = chain
    rows = stores.rows(
        "SELECT booked_hour, accounting_period, toString(entity) AS entity, toString(currency) AS currency,"
        " count() AS n, sum(r.amount) AS total FROM @rated_usage_current AS r WHERE status = 'sealed'"
        " AND customer = {customer:String} AND contract = {contract:String} AND plan = {plan:String}"
        " AND plan_version = {version:UInt32} AND charge = {charge:String} AND price_row = {price_row:String}"
        " AND period_start = {start:DateTime64(6)} AND booked_hour < {booked:DateTime}"
        " GROUP BY ALL ORDER BY booked_hour, accounting_period",
        {
            "customer": document["customer"],
            "contract": document["contract"],
            "plan": plan,
            "version": version,
            "charge": charge,
            "price_row": price_row,
            "start": start,
            "booked": of_hour(document["booked_hour"]),
        },
    )
    return [
        {
            "document": document_key(
                row["entity"],
                document["customer"],
                document["contract"],
                row["currency"],
                minute_of(row["booked_hour"]) // 60,
                row["accounting_period"],
            ),
            "charge": f"{charge}/{price_row}" if price_row else charge,
            "booked_hour": row["booked_hour"],
            "accounting_period": row["accounting_period"],
            "rated_rows": int(row["n"]),
            "amount": row["total"],
        }
        for row in rows
    ]
